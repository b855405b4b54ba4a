"""The flags of each command, and how their words are read."""

import argparse
from decimal import Decimal, InvalidOperation

# As of seeds in a configuration, whose module is not loaded to answer `--help`.
LARGEST = 2**63 - 1


def whole(word: str) -> int:
    """A whole number, also as 5e9; read exactly, since a float forgets digits above 2**53."""
    try:
        value = Decimal(word)
        is_whole = value == value.to_integral_value()
    except InvalidOperation:
        is_whole = False
    # A huge exponent must not be written out in digits.
    if not is_whole or not 0 <= value <= LARGEST:
        raise argparse.ArgumentTypeError(f"{word} is not a whole number between 0 and {LARGEST}")
    return int(value)


def amount(word: str) -> float:
    """An amount of FLOPs: zero or a positive number, such as 3e11."""
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{word} is not an amount of FLOPs, such as 3e11")
    return value


def amounts(word: str) -> tuple[float, ...]:
    """Amounts of FLOPs with commas between them."""
    return tuple(amount(each) for each in word.split(","))


def mapping(word: str) -> tuple[str, str]:
    """FIELD=COLUMN as the two."""
    name, equals, where = word.partition("=")
    if not (name and equals and where):
        raise argparse.ArgumentTypeError(f"{word} is no FIELD=COLUMN, such as accuracy=avg_acc")
    return name, where


# What learns from results takes a table of them in place of a sweep.
LEARNING = frozenset({"results", "fit", "plot", "recommend", "next", "report"})
# What writes files that were learned; `next` writes a sweep, and says where itself.
WRITING = LEARNING - {"results", "recommend", "next"}
TABLE: dict[str, dict[str, object]] = {
    "--results": {
        "metavar": "FILE",
        "help": "a .csv or .parquet of results made elsewhere, or paper-3b6b; in place of SWEEP",
    },
    "--column": {
        "type": mapping,
        "action": "append",
        "metavar": "FIELD=COLUMN",
        "help": "where the table has a field, also FIELD=COLUMN*FACTOR or =NUMBER; repeatable",
    },
}
WRITTEN: dict[str, dict[str, object]] = {
    "--to": {
        "metavar": "FOLDER",
        "help": "where what is learned from a table goes (growpoint-results/NAME)",
    },
}
METRIC: dict[str, object] = {"metavar": "NAME"}  # which there are is for the records to say
_QUESTION: dict[str, dict[str, object]] = {
    "--sunk": {"type": amount, "metavar": "FLOPS", "help": "spent on the checkpoint so far"},
    "--extra": {"type": amount, "metavar": "FLOPS", "help": "left to spend after it"},
    "--total": {"type": amount, "metavar": "FLOPS", "help": "to spend in all"},
}
FLAGS: dict[str, dict[str, dict[str, object]]] = {
    "plan": {"--config": {"action": "store_true", "help": "print the whole configuration as YAML"}},
    "grow": {
        "--allow-unknown": {
            "action": "store_true",
            "help": "copy tensors that the family does not know",
        },
        "--no-check": {
            "action": "store_true",
            "help": "do not hold the result against its model class (needs transformers)",
        },
        "--no-check-values": {
            "action": "store_true",
            "help": "do not look for infinities and NaNs in the source (reads it once more)",
        },
        "--trust-remote-code": {
            "action": "store_true",
            "help": "hand on a checkpoint's own code, which growing does not run",
        },
        "--workers": {"type": whole, "help": "cores to use (all that there are)"},
    },
    "launch": {
        "--yes": {"action": "store_true", "help": "submit without asking"},
        "--dry-run": {"action": "store_true", "help": "show the plan only"},
        "--follow": {"action": "store_true", "help": "stay, and keep SLURM's queue filled"},
        "--unattended": {
            "action": "store_true",
            "help": "have a small job keep SLURM's queue filled while nobody is logged in",
        },
        "--retry": {
            "choices": ("failed", "none"),
            "default": "failed",
            "help": "what failed before: run it again (failed, the default), or leave it (none)",
        },
        "--replace": {
            "action": "store_true",
            "help": "let the name answer for another question; runs stay",
        },
    },
    "status": {
        "--watch": {"action": "store_true", "help": "show it again every few seconds"},
    },
    "cancel": {
        "--arm": {"metavar": "ARM", "help": "only the cells of this arm: grow, continue, scratch"},
        "--growth": {"metavar": "LABEL", "help": "only the cells of this growth: `depth x2`"},
        "--stage": {"metavar": "ID", "help": "only this stage and what waits for it"},
    },
    "logs": {
        "--lines": {"type": whole, "default": 40, "help": "how many lines (40)"},
        "--follow": {"action": "store_true", "help": "go on as lines are written"},
    },
    "fit": {
        "--law": {"action": "append", "metavar": "NAME", "help": "only this law; repeatable"},
        "--metric": {**METRIC, "help": "accuracy, loss, loss@1024, accuracy:TASK (the first two)"},
    },
    "series": {
        "--fetch": {
            "action": "append",
            "metavar": "CHECKPOINT",
            "help": "bring it into the hub's cache, for jobs without a network; repeatable",
        },
    },
    "results": {"--csv": {"metavar": "FILE", "help": "write all columns to a CSV file"}},
    "plot": {
        "--metric": {**METRIC, "help": "what is drawn (accuracy, if there is one)"},
        "--figure": {"action": "append", "metavar": "NAME", "help": "only this one; repeatable"},
    },
    "inspect": {
        "--updates": {
            "action": "append",
            "nargs": 2,
            "metavar": ("BEFORE", "AFTER"),
            "help": "one lineage; given twice, the cosine of what both learnt",
        },
        "--to": {"metavar": "FOLDER", "default": "inspect", "help": "where files go (inspect)"},
    },
    "recommend": {
        **_QUESTION,
        "--extra": {
            "type": amounts,
            "metavar": "FLOPS",
            "help": "left to spend after it; several with --sunk: 1e11,3e11",
        },
        "--target": {
            "metavar": "VALUE",
            "help": "the cheapest way to this accuracy (0.47, 47%%) or loss",
        },
        "--growth": {"metavar": "LABEL", "help": "only this one, such as 'depth x2'"},
        "--series": {
            "metavar": "NAME",
            "help": "answer with the checkpoints of this series; finds the sweep over it",
        },
        "--metric": {**METRIC, "help": "what to go by (accuracy, if there is one)"},
    },
    "next": {
        **_QUESTION,
        "--metric": {**METRIC, "help": "what is decided by (accuracy, if there is one)"},
        "--budget": {"type": amount, "metavar": "FLOPS", "help": "to spend on runs at most"},
        "--count": {"type": whole, "default": 3, "help": "runs at most (3)"},
        "--to": {"metavar": "FILE", "help": "where the sweep goes (plans/NAME/next.yaml)"},
    },
}
