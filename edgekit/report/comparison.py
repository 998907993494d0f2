"""Two runs side by side: what came out, what was set differently, and whether their figures can be compared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.report.headline import chosen, original, sentence
from edgekit.report.machine import machine_facts, said
from edgekit.stats import Estimate

CHANGING = ("frequency", "temperature", "load average")
"""Facts of a machine that change by themselves."""
BUSY = 0.5
"""Load for each core by which two runs may differ."""
APART = 1.1
"""How far the same original may be apart in latency under the same conditions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An entry that differs: its name, and the value in either run."""

    name: str
    a: str
    b: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs, A and B.

    Args:
        a: the report of A.
        b: the report of B.
        verdict: which one came out better, in a sentence.
        drop: of B's chosen file less that of A's, in the metric's unit; positive where B loses more. The interval takes
            the two as independent, which makes it too wide rather than too narrow where both saw the same samples.
        speed: how many times A's ratio to fp32 B's ratio is, likewise.
        size: how many times larger B's chosen file is than A's.
        warnings: why figures of the two may not be compared.
        settings: what was set differently, the budget included.
        environment: where the machines differ.
        data: which splits differ.
    """

    a: Mapping[str, Any]
    b: Mapping[str, Any]
    verdict: str
    drop: Estimate | None
    speed: Estimate
    size: float
    warnings: Sequence[str]
    settings: Sequence[Difference]
    environment: Sequence[Difference]
    data: Sequence[Difference]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""

        def listed(differences: Sequence[Difference]) -> list[dict[str, str]]:
            return [{"name": each.name, "a": each.a, "b": each.b} for each in differences]

        def short(report: Mapping[str, Any]) -> dict[str, Any]:
            row = chosen(report)
            keys = ("metric", "drop", "agreement", "latency", "ratio_to_fp32", "ratio_to_int8", "size_bytes", "sha256")
            return {
                "name": report["name"],
                "sentence": sentence(report),
                "holds": report["verdict"]["holds"],
                "chosen": row["stage"],
                **{key: row.get(key) for key in keys},
                "seconds": sum(report["seconds"].values()),
            }

        return {
            "format": "edgekit-comparison",
            "version": "1.0",
            "a": short(self.a),
            "b": short(self.b),
            "verdict": self.verdict,
            "difference": {
                "drop": None if self.drop is None else self.drop.to_dict(),
                "speed_ratio": self.speed.to_dict(),
                "size_ratio": self.size,
            },
            "warnings": list(self.warnings),
            "settings": listed(self.settings),
            "environment": listed(self.environment),
            "data": listed(self.data),
        }


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> Comparison:
    """Compare two reports, as `report.json` holds them."""
    ours, theirs = chosen(a), chosen(b)
    same_metric = (a["metric"], a["unit"]) == (b["metric"], b["unit"])
    drop = _less(theirs["drop"], ours["drop"]) if same_metric else None
    speed = _over(theirs["ratio_to_fp32"], ours["ratio_to_fp32"])
    environment = _differences(*({"": machine_facts(_before(each))} for each in (a, b)))
    return Comparison(
        a=a,
        b=b,
        verdict=_verdict(a, b, drop, speed),
        drop=drop,
        speed=speed,
        size=theirs["size_bytes"] / ours["size_bytes"],
        warnings=list(_warnings(a, b, environment)),
        settings=_differences(
            {"": a["settings"], "budget: ": a["budget"]}, {"": b["settings"], "budget: ": b["budget"]}
        ),
        environment=environment,
        data=_differences(*({f"{name}: ": split for name, split in each["splits"].items()} for each in (a, b))),
    )


def _before(report: Mapping[str, Any]) -> Mapping[str, Any]:
    return report["environment"].get("before") or {}


def _less(a: Mapping[str, Any], b: Mapping[str, Any]) -> Estimate:
    """A - b of two independent estimates."""
    value = a["value"] - b["value"]
    down = math.hypot(a["value"] - a["low"], b["high"] - b["value"])
    up = math.hypot(a["high"] - a["value"], b["value"] - b["low"])
    return Estimate(value=value, low=value - down, high=value + up, n=_n(a, b))


def _over(a: Mapping[str, Any], b: Mapping[str, Any]) -> Estimate:
    """A / b of two independent positive estimates: their logarithms differ."""
    logs = [{key: math.log(each[key]) for key in ("value", "low", "high")} for each in (a, b)]
    found = _less(*logs)
    return Estimate(value=math.exp(found.value), low=math.exp(found.low), high=math.exp(found.high), n=_n(a, b))


def _n(a: Mapping[str, Any], b: Mapping[str, Any]) -> int:
    return int(min(a.get("n", 0), b.get("n", 0)))


def _verdict(a: Mapping[str, Any], b: Mapping[str, Any], drop: Estimate | None, speed: Estimate) -> str:
    holds = a["verdict"]["holds"], b["verdict"]["holds"]
    if holds[0] != holds[1]:
        which = "A" if holds[0] else "B"
        begin = f"Only {which} holds its budget. "
    else:
        begin = "Both hold their budgets. " if holds[0] else "Neither holds its budget. "
    if speed.low > 1:
        words = f"B gains more speed over its fp32 file, {speed.value:.2f} times as much as A"
    elif speed.high < 1:
        words = f"A gains more speed over its fp32 file, {1 / speed.value:.2f} times as much as B"
    else:
        words = "Both gain as much speed over their fp32 files, within what was measured"
    if drop is None:
        return f"{begin}{words}; their metrics differ, so their drops cannot be compared."
    if drop.low > 0:
        return f"{begin}{words}; B loses {drop.value:.2f} {a['unit']} more."
    if drop.high < 0:
        return f"{begin}{words}; A loses {-drop.value:.2f} {a['unit']} more."
    return f"{begin}{words}; their drops do not differ measurably."


def _warnings(a: Mapping[str, Any], b: Mapping[str, Any], environment: Sequence[Difference]) -> Iterator[str]:
    fixed = [each.name for each in environment if not each.name.startswith(CHANGING)]
    if fixed:
        what = ", ".join(fixed)
        yield f"Measured on different machines or with different software ({what}): compare ratios, not times."
    elif _busier(a, b):
        yield "The machine was busier in one of the runs: compare ratios, not times."
    threads = a["settings"].get("threads"), b["settings"].get("threads")
    if threads[0] != threads[1]:
        yield f"Measured with {threads[0]} and {threads[1]} threads."
    if (a["metric"], a["unit"]) != (b["metric"], b["unit"]):
        yield f"A is measured in {a['metric']} ({a['unit']}), B in {b['metric']} ({b['unit']})."
    if _digest(a, "test") != _digest(b, "test"):
        yield "The test splits differ: metrics and drops are of other samples."
    before = original(a), original(b)
    if before[0]["sha256"] != before[1]["sha256"]:
        yield "The originals differ: drops and ratios refer to different fp32 files."
    else:
        times = before[1]["latency"]["value"] / before[0]["latency"]["value"]
        if not 1 / APART <= times <= APART:
            yield (
                f"The same fp32 file took {times:.2f} times as long in B as in A: conditions differed; "
                "compare ratios, not times."
            )
    if any(row.get("device") for row in (chosen(a), chosen(b))):
        yield "Latencies on the device are predicted, not measured."


def _busier(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    loads: list[float] = []
    for report in (a, b):
        cpu = _before(report).get("cpu") or {}
        load = cpu.get("load_average")
        if not load:
            return False
        loads.append(load[0] / max(cpu.get("cores") or 1, 1))
    return abs(loads[0] - loads[1]) > BUSY


def _digest(report: Mapping[str, Any], split: str) -> str | None:
    found = report["splits"].get(split)
    return found.get("sha256") if isinstance(found, Mapping) else None


def _differences(a: Mapping[str, Mapping[str, Any]], b: Mapping[str, Mapping[str, Any]]) -> list[Difference]:
    """Entries of two groups of entries (by the beginning of their names) that differ."""
    ours, theirs = (
        {f"{start}{key}": value for start, group in each.items() for key, value in group.items()} for each in (a, b)
    )
    return [
        Difference(name=key, a=_said(key, ours.get(key)), b=_said(key, theirs.get(key)))
        for key in dict.fromkeys([*ours, *theirs])
        if ours.get(key) != theirs.get(key)
    ]


def _said(name: str, value: object) -> str:
    return "–" if value is None else said(name, value)


def compared_rows(found: Comparison) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """(name, A's row, B's row) for the two chosen files, then for the stages that both runs have."""
    yield "chosen", chosen(found.a), chosen(found.b)
    theirs = {row["stage"]: row for row in found.b["stages"]}
    for row in found.a["stages"]:
        if row["stage"] in theirs:
            yield row["stage"], row, theirs[row["stage"]]
