"""Identity, as reviewed: a diff here means that finished stages would not be found again."""

import json

from pydantic import BaseModel

from sweeps import config, search
from sweeps.command import CommandRecipe, File, Own
from sweeps.growth import Depth, Width
from sweeps.plan import plan, to_json
from sweeps.recipe import Branch, Constant, Cosine, Recipe, Wsd
from sweeps.schema import asked, canonical
from sweeps.stages import Evaluate, Grow, Init, Train
from sweeps.suite import Benchmark, Choices, Suite
from tests.conftest import Golden
from tests.unit.sweeps.conftest import CORPUS

VERBS = (Init, Train, Grow, Evaluate)
PARTS = (Recipe, Constant, Wsd, Cosine, Suite, Choices, Benchmark, Depth, Width, Branch)
COMMANDS = (CommandRecipe, File, Own)
HASHED: tuple[type[BaseModel], ...] = (*VERBS, *PARTS, *COMMANDS)


def test_defaults_of_what_is_hashed(golden: Golden) -> None:
    """A default may never change its meaning: it is left out of every stage's text."""
    defaults = {
        kind.__name__: {
            name: json.loads(canonical(asked(field.get_default(call_default_factory=True))))
            for name, field in kind.model_fields.items()
            if not field.is_required()
        }
        for kind in HASHED
    }
    golden("defaults.json", json.dumps(defaults, indent=1, sort_keys=True) + "\n")


def test_stages_of_the_shipped_sweeps(golden: Golden) -> None:
    for name in search.known("sweep"):
        request = config.load(name)
        corpora = {canonical(asked(sweep.data)): CORPUS for sweep, _ in request.sweeps}
        made = to_json(plan(request.name, request.sweeps, corpora))
        kept = {key: made[key] for key in ("sweep", "stages", "jobs")}
        kept["cells"] = [{"label": cell["label"], "stage": cell["stage"]} for cell in made["cells"]]
        golden(f"plans/{name}.json", json.dumps(kept, indent=1) + "\n")
