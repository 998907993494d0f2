"""What is asked of edgekit's int8 file beside those of other quantizers, and whether a report shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantizer_benchmark.quantizers import EDGEKIT

DROP_OF_CONVOLUTIONS, DROP_OF_OTHERS = 0.2, 0.5
"""Points below fp32: for residual and depthwise convolutional networks, and for all others."""
BEHIND_THE_MOST_ACCURATE = 0.1
SLOWER_THAN_THE_FASTEST = 0.03
TIMES_AS_LONG = 2.0
STEPS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One thing that is asked.

    Args:
        name: of its column.
        rule: what is asked, in words.
        holds: whether the report shows it; None where it cannot tell.
        found: what the report says.
    """

    name: str
    rule: str
    holds: bool | None
    found: str

    @property
    def cell(self) -> str:
        """For a table."""
        return f"{ {True: '✓', False: '✗', None: '–'}[self.holds] } {self.found}"


def requirements(report: Mapping[str, Any], family: str) -> tuple[Requirement, ...]:
    """All of them, in the order of the columns; single values decide, their intervals stand in the table.

    Args:
        report: of one network with a metric, as tools/benchmark_quantizers.py writes it.
        family: of the network: `convolutional` or another.
    """
    own = next((row for row in report["rows"] if row["made_by"] == EDGEKIT), None)
    if own is None or own["status"] != "measured":
        why = "no file" if own is None else own["status"]
        return tuple(Requirement(name=name, rule=rule, holds=False, found=why) for name, rule in RULES.items())
    others = [row for row in report["rows"] if row["status"] == "measured" and row["name"] in _rivals(report)]
    found = (
        _drop(own, report["model"], family),
        _accuracy(own, report["most_accurate_other"]),
        _latency(own, report["best_other"]),
        _speed(own),
        _time(own, others),
        _steps(own),
    )
    return tuple(
        Requirement(name=name, rule=rule, holds=holds, found=text)
        for (name, rule), (holds, text) in zip(RULES.items(), found, strict=True)
    )


RULES = {
    "drop": f"at most {DROP_OF_CONVOLUTIONS:g} points below fp32 for residual and depthwise convolutional networks, "
    f"{DROP_OF_OTHERS:g} for others",
    "accuracy": f"at most {BEHIND_THE_MOST_ACCURATE:g} points below the most accurate file of another quantizer",
    "latency": f"at most {SLOWER_THAN_THE_FASTEST:.0%} slower than the fastest file of another quantizer",
    "faster": "faster than fp32, or fp32 is what `edgekit compress` ships",
    "time": f"made in at most {TIMES_AS_LONG:g} times the time of the quickest other quantizer",
    "steps": f"each kernel of ONNX Runtime at most {STEPS} quantization steps from what the file says",
}
"""What is asked, by column."""

Found = tuple[bool | None, str]


def drop_limit(model: Mapping[str, Any], family: str) -> float:
    """The largest drop that is allowed, in points."""
    strict = family == "convolutional" and (model["depthwise"] or model["residual"])
    return DROP_OF_CONVOLUTIONS if strict else DROP_OF_OTHERS


def _rivals(report: Mapping[str, Any]) -> set[str]:
    """The quantizers of others: what made a file here and is not edgekit."""
    return {row["name"] for row in report["rows"] if row.get("making") and row["made_by"] != EDGEKIT}


def _drop(own: Mapping[str, Any], model: Mapping[str, Any], family: str) -> Found:
    drop, limit = own["drop"]["value"], drop_limit(model, family)
    return _at_most(drop, limit), f"{drop:.2f} of {limit:g}"


def _at_most(points: float, limit: float) -> bool:
    # Of 5,000 samples, 5 are 0.1 points, and the mean of their scores is not exactly that.
    return points <= limit + 1e-9


def _accuracy(own: Mapping[str, Any], rival: str | None) -> Found:
    if rival is None:
        return None, "no other file"
    behind = own["drop_to_most_accurate_other"]["value"]
    return _at_most(behind, BEHIND_THE_MOST_ACCURATE), f"{behind:+.2f} to {rival}"


def _latency(own: Mapping[str, Any], rival: str | None) -> Found:
    if rival is None:
        return None, "no other file"
    ratio = own["ratio_to_best_other"]["value"]
    return ratio >= 1 / (1 + SLOWER_THAN_THE_FASTEST), f"{ratio:.2f}× {rival}"


def _speed(own: Mapping[str, Any]) -> Found:
    ratio = own["ratio_to_fp32"]["value"]
    if own["verdict"] == "faster":
        return True, f"{ratio:.2f}×"
    # `edgekit compress` takes no file whose median is above that of fp32, unless a limit on size asks for it.
    return (True, f"{ratio:.2f}×: fp32 ships") if ratio < 1 else (False, f"{ratio:.2f}×: no difference")


def _time(own: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> Found:
    if own["making"] is None or not others:
        return None, "no other file"
    quickest = min(others, key=lambda row: row["making"]["seconds"])
    times = own["making"]["seconds"] / quickest["making"]["seconds"]
    return times <= TIMES_AS_LONG, f"{times:.1f}× {quickest['name']}"


def _steps(own: Mapping[str, Any]) -> Found:
    if own["steps_apart"] is None:
        return None, "cannot be judged" if own["steps_unknown"] else "no 8-bit activations in the file"
    return own["steps_apart"] <= STEPS, str(own["steps_apart"])
