"""Checkpoints of a hub repository: which revisions there are, what is cached, fetching one.

What the hub cannot say just now is answered from what it said before: without a network, revisions
are those of the last listing, and snapshots those of the cache.
"""

import contextlib
import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeps.errors import GrowpointError
from sweeps.pattern import match
from sweeps.places import CONFIG, Snapshot, config_in, is_whole
from sweeps.series import Series

# Weights, what describes them, and the tokenizer: never pickles, never code.
WANTED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")


def snapshots(series: Series) -> dict[str, Snapshot]:
    """The revisions of a series' repository that its pattern or its entries name.

    Raises GrowpointError if the hub refuses, if nothing matches (saying what there is), and without
    a network if nothing was listed before.
    """
    repo = str(series.repo)
    given = {entry.name: entry.commit for entry in series.checkpoints if entry.commit}
    wanted = [entry.name for entry in series.checkpoints if entry.name not in given]
    refs = _refs(repo, series.name or f"repo={repo} ...") if series.revision or wanted else {}
    missing = [name for name in wanted if name not in refs]
    matching = [n for n in refs if series.revision and match(series.revision, n) is not None]
    if missing or not (matching or series.checkpoints):
        raise _no_revision(series, missing, refs)
    commits = {name: refs[name] for name in (*matching, *wanted)} | given
    return {
        name: Snapshot(repo=repo, revision=name, commit=commit)
        for name, commit in sorted(commits.items())
    }


def _no_revision(series: Series, missing: list[str], refs: Mapping[str, str]) -> GrowpointError:
    there = ", ".join(list(refs)[:8]) + (f", ... ({len(refs)})" if len(refs) > 8 else "")
    asked = f"has no revision `{missing[0]}`" if missing else "has no revision like the pattern"
    return GrowpointError(
        f"the repository of the series {asked}",
        [
            ("repo", series.repo),
            ("asked", missing[0] if missing else series.revision),
            ("there", there or "nothing"),
        ],
        "series.revision='\"PATTERN\"', with {step} or {tokens} where the names have numbers",
    )


def _refs(repo: str, series_name: str) -> dict[str, str]:
    """Commit of every branch and tag, from the hub or, when it cannot be reached, as last seen."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        found = HfApi().list_repo_refs(repo)
    except HfHubHTTPError as error:
        raise refused(repo, error) from error
    # A missing network, a proxy or a name that is none raise a dozen unrelated classes.
    except Exception as error:
        known = _remembered(repo)
        if not known:
            again = f"growpoint series {series_name} --fetch CHECKPOINT"
            raise _unreachable(repo, again, error) from error
        return known
    refs = _commits({ref.name: ref.target_commit for ref in (*found.tags, *found.branches)})
    with contextlib.suppress(OSError):
        _remember(repo, refs)
    return refs


def refused(repo: str, error: Any) -> GrowpointError:
    """The user's error for what the hub answered: it is closed, or not there."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    says = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if status in (401, 403) or type(error).__name__ == "GatedRepoError":
        return GrowpointError(
            "the hub does not give this repository to you",
            [("repo", repo), ("status", status), ("says", says)],
            f"accept its terms at {_endpoint()}/{repo}, then: hf auth login; "
            "without such a page, put right series.repo",
        )
    gone = status == 404
    return GrowpointError(
        "the hub does not have this" if gone else "the hub cannot answer",
        [("repo", repo), ("status", status), ("says", says)],
        "series.repo=OWNER/NAME and series.revision as the hub spells them"
        if gone
        else "repeat the command later: what was fetched is kept",
    )


def _unreachable(repo: str, again: str, error: Exception) -> GrowpointError:
    says = next(iter(str(error).splitlines()), "") or type(error).__name__
    return GrowpointError(
        "the hub cannot be reached, and the series is not in its cache",
        [("repo", repo), ("hub", _endpoint()), ("cache", _cache()), ("says", says)],
        f"where there is a network, with the same cache (HF_HOME): {again}",
    )


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _folder(repo: str) -> Path:
    return _cache() / f"models--{repo.replace('/', '--')}"


def _memory(repo: str) -> Path:
    # Beside the hub's own cache of that repository: who shares the one shares the other.
    return _folder(repo) / "growpoint-refs.json"


def _remember(repo: str, refs: Mapping[str, str]) -> None:
    path = _memory(repo)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    aside.write_text(json.dumps(refs, indent=1))
    aside.replace(path)


def _commits(refs: Mapping[str, object]) -> dict[str, str]:
    """Those refs that lead to a commit."""
    return {name: str(to) for name, to in refs.items() if re.fullmatch("[0-9a-f]{40}", str(to))}


def _remembered(repo: str) -> dict[str, str]:
    """Refs of the last listing, and those that the hub's client has noted since."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found = {str(k): str(v) for k, v in json.loads(_memory(repo).read_text()).items()}
    root = _folder(repo) / "refs"
    with contextlib.suppress(OSError):
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            found[path.relative_to(root).as_posix()] = path.read_text().strip()
    return _commits(found)


def cached(place: Snapshot) -> Path:
    """Where a snapshot lies, or would lie, in the hub's cache."""
    return _folder(place.repo) / "snapshots" / place.commit


def is_cached(place: Snapshot) -> bool:
    """Whether all weights of a snapshot are here; of a damaged one they are not."""
    try:
        return is_whole(cached(place))
    except GrowpointError:
        return False


def config_of(place: Snapshot) -> dict[str, Any]:
    """config.json of a snapshot, fetched by itself unless it is here."""
    folder = cached(place)
    if not (folder / CONFIG).is_file():
        folder = fetch(place, (CONFIG,))
    return config_in(folder)


def fetch(place: Snapshot, patterns: tuple[str, ...] = WANTED) -> Path:
    """The folder of a snapshot in the hub's cache, with the files that `patterns` name.

    What an interrupted download has brought is kept and gone on from. Raises GrowpointError if the
    hub refuses or cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    if patterns == WANTED and is_cached(place):
        return cached(place)
    try:
        found = snapshot_download(place.repo, revision=place.commit, allow_patterns=list(patterns))
    except HfHubHTTPError as error:
        raise refused(place.repo, error) from error
    # As above: there is no one class for a network that is not there.
    except Exception as error:
        again = f"hf download {place.repo} --revision {place.commit}"
        raise _unreachable(place.repo, again, error) from error
    return Path(found)
