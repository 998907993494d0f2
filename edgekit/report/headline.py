"""The verdict of a run in a sentence, and the limits that it was held against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.units import format_bytes, format_latency


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One limit: what was measured, what was allowed, and whether that holds."""

    name: str
    measured: str
    limit: str
    holds: bool

    @property
    def word(self) -> str:
        """`holds` or `missed`."""
        return "holds" if self.holds else "missed"


def original(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row of the file that drops and ratios refer to: the first."""
    row: Mapping[str, Any] = report["stages"][0]
    return row


def chosen(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row of the file that the run ends with."""
    name = report["verdict"]["chosen"]
    return next(row for row in report["stages"] if row["stage"] == name)


def is_original(report: Mapping[str, Any]) -> bool:
    """Whether nothing better than the uncompressed file was found."""
    return chosen(report) is original(report)


def smaller(report: Mapping[str, Any]) -> float:
    """How many times smaller the chosen file is than the original."""
    return float(original(report)["size_bytes"] / chosen(report)["size_bytes"])


def gates(report: Mapping[str, Any]) -> list[Gate]:
    """Each limit of the budget, held against the test split's figures; and that the file is not slower."""
    row, budget = chosen(report), report["budget"]
    found = []
    if (most := budget.get("max_drop_points")) is not None:
        drop = row["drop"]
        found.append(
            Gate(
                name="drop",
                measured=f"{drop['value']:.2f} {report['unit']}",
                limit=f"at most {most:.2f} {report['unit']}",
                holds=drop["value"] <= most,
            )
        )
    device = row.get("device")
    if (most := budget.get("max_latency_ms")) is not None:
        ms = row["latency"]["value"] if device is None else device["ms"]
        found.append(
            Gate(
                name="latency" if device is None else "latency, predicted for the device",
                measured=format_latency(ms),
                limit=f"at most {format_latency(most)}",
                holds=ms <= most,
            )
        )
    if (most := budget.get("max_size_bytes")) is not None:
        found.append(
            Gate(
                name="size",
                measured=format_bytes(row["size_bytes"]),
                limit=f"at most {format_bytes(most)}",
                holds=row["size_bytes"] <= most,
            )
        )
    if not is_original(report):
        ratio = row["ratio_to_fp32"]
        found.append(
            Gate(
                name="speed against fp32",
                measured=f"{ratio['value']:.2f}×",
                limit="not slower",
                holds=ratio["high"] >= 1,
            )
        )
    return [*found, *_behaviour_gates(report)]


BEHAVIOUR = {
    "max_churn": ("churn", "%"),
    "max_worst_class_drop": ("worst class's drop", "points"),
    "max_ece_rise": ("rise of the calibration error", "points"),
    "max_robustness_drop": ("drop under perturbations", "points"),
}
"""Limits on what may change besides the mean: their names and units."""


def _behaviour_gates(report: Mapping[str, Any]) -> Iterator[Gate]:
    for each in (report.get("behaviour") or {}).get("gates") or ():
        name, unit = BEHAVIOUR.get(each["gate"], (each["gate"], ""))
        figure = each.get("figure")
        yield Gate(
            name=name,
            measured="not measured" if figure is None else f"{figure['value']:.2f} {unit}".strip(),
            limit=f"at most {each['limit']:.2f} {unit}".strip(),
            holds=bool(each["holds"]),
        )


def sentence(report: Mapping[str, Any]) -> str:
    """What came out, for somebody who reads nothing else."""
    name, verdict = report["name"], report["verdict"]
    if not verdict["holds"]:
        return (
            f"No version of {name} stays inside the budget: the closest one, {verdict['chosen']}, misses it "
            f"({'; '.join(verdict['broken'])}). It {_gain(report)}, {_quality(report)}."
        )
    if is_original(report):
        return f"{name} is best left as it is: nothing faster than the original stayed inside the budget."
    return f"{name} now {_gain(report)}, {_quality(report)}."


def caveat(report: Mapping[str, Any]) -> str:
    """How sure the verdict on the drop is, by its 95 % interval; empty without a limit."""
    most, drop = report["budget"].get("max_drop_points"), chosen(report)["drop"]
    if most is None or is_original(report):
        return ""
    unit = report["unit"]
    if drop["high"] <= most:
        return f"The whole 95 % interval of the drop lies inside the limit of {most:.2f} {unit}."
    if drop["value"] <= most:
        return (
            f"The 95 % interval of the drop reaches {drop['high']:.2f} {unit}, beyond the limit of {most:.2f}: "
            "with other test data of this size the limit may not hold."
        )
    if drop["low"] <= most:
        return (
            f"The 95 % interval of the drop begins at {drop['low']:.2f} {unit}, inside the limit of {most:.2f}: "
            "more test data could tell whether it is really missed."
        )
    return f"The whole 95 % interval of the drop lies beyond the limit of {most:.2f} {unit}."


def _gain(report: Mapping[str, Any]) -> str:
    row, ratio = chosen(report), chosen(report)["ratio_to_fp32"]
    device = row.get("device")
    if ratio["low"] > 1:
        speed = f"answers {_times(ratio['value'])} as fast as before"
    elif ratio["high"] >= 1:
        speed = "is as fast as before, within what can be measured"
    else:
        speed = f"answers {_times(ratio['value'])} as fast as before, so slower"
    if device is not None:
        speed += f" (here; on the device {format_latency(device['ms'])} are predicted)"
    times = smaller(report)
    if times >= 1.05:
        return f"{speed}, from a file {times:.1f} times smaller"
    return speed if times > 0.95 else f"{speed}, from a file {1 / times:.1f} times larger"


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times" if abs(ratio - 1) >= 0.15 else f"{ratio:.2f} times"


def _quality(report: Mapping[str, Any]) -> str:
    drop, metric, unit = chosen(report)["drop"], report["metric"], report["unit"]
    if drop["low"] <= 0 <= drop["high"]:
        return f"with no measurable change in {metric}"
    if drop["value"] > 0:
        return f"and loses {drop['value']:.2f} {unit} of {metric}"
    return f"and gains {-drop['value']:.2f} {unit} of {metric}"
