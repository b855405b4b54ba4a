"""Units of tables made elsewhere: percent or fraction, tokens or FLOPs, billions or ones."""

import numpy as np
import pandas as pd

from analysis.columns import listed
from analysis.tablefile import TableFile
from sweeps.errors import GrowpointError

# A token costs about six FLOPs for each active parameter to train on (Kaplan et al., arXiv
# 2001.08361, 2.1); attention, heads and counting conventions move that by less than this factor.
PER_PARAMETER = 6.0
_CONVENTION = 4.0
# Far below the smallest sweep worth fitting, far above counts of tokens in units of billions.
_LEAST_FLOPS = 1e9
_LEAST_PARAMETERS = 1e3
_LEAST_TOKENS = 1e3
# Budgets of one table: taking tokens for FLOPs is off by 6 N, which is 1e6 for the smallest model.
_APART = 1e5
_SPREAD = 1e7
_WORST_LOSS = 20.0  # nats per token; a uniform guess among a million tokens has 13.8


def sizes(table: TableFile, rows: pd.DataFrame) -> None:
    """Fill sizes that others imply, in place, and refuse those that cannot be."""
    alone = rows["arm"] != "grow"
    for name, other in (("active", "source_active"), ("source_active", "active")):
        rows[name] = rows[name].mask(alone & rows[name].isna(), rows[other])
    for name in ("source_active", "active", "total_params"):
        small = rows[name] < _LEAST_PARAMETERS
        if small.any():
            raise _wrong(
                table,
                f"`{name}` is no number of parameters",
                rows[name][small],
                f"give parameters, not millions or billions: --column '{name}=COLUMN*1e9'",
            )
    less = rows["active"] < rows["source_active"]
    if (less & ~alone).any():
        raise _wrong(
            table,
            "a grown model has fewer active parameters than its source",
            (rows["source_active"].map("{:g} to ".format) + rows["active"].map("{:g}".format))[
                less
            ],
            "swap them: --column active=COLUMN --column source_active=COLUMN",
        )


def flops(table: TableFile, rows: pd.DataFrame) -> list[str]:
    """Fill FLOPs from tokens or totals, in place, and refuse what is not in FLOPs."""
    said = []
    for part, size in (("sunk", "source_active"), ("extra", "active")):
        spent, tokens = rows[f"{part}_flops"], rows[f"{part}_tokens"]
        if part == "extra":
            spent = spent.fillna(rows["total_flops"] - rows["sunk_flops"])
        unpriced = spent.isna() & (tokens > 0) & rows[size].isna()
        if unpriced.any():
            raise _wrong(
                table,
                f"`{part}_tokens` cannot be turned into FLOPs without the size of the model",
                tokens[unpriced],
                f"name the column of its active parameters, or give one for all rows: "
                f"--column {size}=1.3e9",
            )
        if (spent.isna() & tokens.notna()).any():
            said.append(f"{part} FLOPs are 6 x active parameters x tokens")
        spent = spent.fillna((PER_PARAMETER * rows[size] * tokens).mask(tokens == 0, 0.0))
        rows[f"{part}_flops"] = spent
        if part == "extra":
            _adds_up(table, rows)
        _ratio(table, rows, part, size)
    _magnitude(table, rows)
    return said


def _adds_up(table: TableFile, rows: pd.DataFrame) -> None:
    whole = rows["sunk_flops"] + rows["extra_flops"]
    off = (rows["total_flops"] - whole).abs() > 0.05 * whole
    if off.any():
        shown = rows["total_flops"].map("{:.3g}".format) + whole.map(", the sum is {:.3g}".format)
        raise _wrong(
            table,
            "`total_flops` is not sunk and extra FLOPs together",
            shown[off],
            "count all three in FLOPs, or leave total_flops out",
        )


def _ratio(table: TableFile, rows: pd.DataFrame, part: str, size: str) -> None:
    """FLOPs and tokens of one run must be those of one model."""
    spent, tokens = rows[f"{part}_flops"], rows[f"{part}_tokens"]
    if (tokens < 0).any():
        raise _wrong(table, f"`{part}_tokens` is negative", tokens[tokens < 0], "correct the rows")
    per_token = spent[(spent > 0) & (tokens > 0)] / tokens[(spent > 0) & (tokens > 0)]
    wanted = PER_PARAMETER * rows[size].reindex(per_token.index)
    off = (per_token < wanted / _CONVENTION) | (per_token > wanted * _CONVENTION)
    off |= per_token < PER_PARAMETER * _LEAST_PARAMETERS
    if off.any():
        shown = per_token.map("{:.3g} FLOPs a token".format)
        known = wanted.map("; 6 N is {:.3g}".format).where(wanted.notna(), "")
        raise _wrong(
            table,
            f"{part} FLOPs and tokens do not belong together",
            (shown + known)[off],
            f"map the right columns: --column {part}_flops=COLUMN --column {part}_tokens=COLUMN",
        )
    implied = spent / (PER_PARAMETER * rows[size])
    few = (spent > 0) & (implied < _LEAST_TOKENS)
    if few.any():
        raise _wrong(
            table,
            f"`{part}_flops` looks like tokens",
            (spent.map("{:.3g} FLOPs are ".format) + implied.map("{:.2g} tokens".format))[few],
            f"--column {part}_tokens=COLUMN, for a column of tokens",
        )


def _magnitude(table: TableFile, rows: pd.DataFrame) -> None:
    """Budgets of one table lie near one another, and far above counts of tokens."""
    positive = {name: rows[name][rows[name] > 0] for name in ("sunk_flops", "extra_flops")}
    ends = {
        name: f"{each.min():.3g} to {each.max():.3g}".replace("e+", "e")
        for name, each in positive.items()
        if len(each)
    }
    evidence = [("file", table.path), *ends.items()]
    largest = max((float(each.max()) for each in positive.values() if len(each)), default=0.0)
    if 0 < largest < _LEAST_FLOPS:
        raise GrowpointError(
            "the budgets are too small to be FLOPs",
            evidence,
            "give FLOPs, with a factor if need be: --column 'sunk_flops=COLUMN*1e18'",
        )
    if any(each.max() > _SPREAD * each.min() for each in positive.values() if len(each)):
        raise GrowpointError(
            "a column of FLOPs has mixed units",
            evidence,
            "give FLOPs in every row; a column of tokens is sunk_tokens or extra_tokens",
        )
    middle = [float(each.median()) for each in positive.values() if len(each)]
    if len(middle) == 2 and max(middle) > _APART * min(middle):
        raise GrowpointError(
            "sunk and extra compute are in different units",
            evidence,
            "give both in FLOPs; a column of tokens is sunk_tokens or extra_tokens",
        )


def metrics(table: TableFile, rows: pd.DataFrame) -> list[str]:
    """Accuracies as fractions, in place; refuses what no metric can be."""
    said = []
    for name in ("accuracy", "choice_accuracy"):
        if _fractions(table, rows, name):
            said.append(f"{name} is in percent")
    for name in ("accuracy", "choice_accuracy", "loss"):
        error = rows[f"{name}_se"]
        most = 0.5 if name != "loss" else np.inf
        if ((error < 0) | (error > most)).any():
            raise _wrong(
                table,
                f"`{name}_se` is no standard error of `{name}`",
                error[(error < 0) | (error > most)],
                f"give it in the unit of {name}",
            )
    loss = rows["loss"]
    if ((loss <= 0) | (loss > _WORST_LOSS)).any():
        raise _wrong(
            table,
            "`loss` is no loss in nats per token",
            loss[(loss <= 0) | (loss > _WORST_LOSS)],
            "turn perplexities and bits into nats: ln(perplexity), or --column loss=COLUMN*0.6931",
        )
    return said


def _fractions(table: TableFile, rows: pd.DataFrame, name: str) -> bool:
    """Turn percent into fractions; True if it was percent. Zero is the same in both."""
    value = rows[name]
    if ((value < 0) | (value > 100)).any():
        raise _wrong(
            table,
            f"`{name}` is no accuracy",
            value[(value < 0) | (value > 100)],
            "give percent, 0 to 100, or fractions, 0 to 1",
        )
    percent, fraction = value > 1, (value > 0) & (value <= 1)
    if percent.any() and fraction.any():
        few = percent if percent.sum() <= fraction.sum() else fraction
        raise _wrong(
            table,
            f"`{name}` is above 1 in some rows and not in others: percent or fraction",
            value[few],
            "give one of the two in every row",
        )
    if percent.any():
        rows[name], rows[f"{name}_se"] = value / 100, rows[f"{name}_se"] / 100
    return bool(percent.any())


def _wrong(table: TableFile, problem: str, values: pd.Series, help: str) -> GrowpointError:
    lines = zip(values.index.to_numpy(int).tolist(), values, strict=True)
    shown = [(line, f"{value:g}" if isinstance(value, float) else value) for line, value in lines]
    return GrowpointError(problem, [("file", table.path), *listed(table, shown)], help)
