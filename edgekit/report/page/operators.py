"""What operators take before and after, where kernels were timed: the field `operators` of a report.

For each file what `edgekit bench --profile-nodes` finds of it: `rows` of `{name, operator, provider, us}`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.report.charts import Chart, Pair, pairs
from edgekit.report.headline import chosen, original
from edgekit.report.page.cells import DASH, Cell, Row, Table, number, plain

MOST_OPERATORS, MOST_KERNELS = 12, 40


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorsView:
    """The section: operators before and after, and the kernels of the chosen file that take longest."""

    chart: Chart
    kernels: Table


def operators(report: Mapping[str, Any]) -> OperatorsView | None:
    """The section, or None where no kernels of the original and of the chosen file were timed."""
    found = report.get("operators") or {}
    names = original(report)["stage"], chosen(report)["stage"]
    sides = [(found.get(name) or {}).get("rows") for name in names]
    if not all(sides):
        return None
    before, after = (_by_operator(side) for side in sides)
    order = sorted({*before, *after}, key=lambda name: -max(before.get(name, 0.0), after.get(name, 0.0)))
    chart = pairs(
        "operators",
        "Time of each kind of operator, before and after",
        [Pair(name=name, before=before.get(name), after=after.get(name)) for name in order[:MOST_OPERATORS]],
        names=names,
        axis="time in one call, µs",
        unit="µs",
    )
    assert chart is not None
    return OperatorsView(chart=chart, kernels=_kernels(sides[1]))


def _by_operator(rows: Any) -> dict[str, float]:
    found: defaultdict[str, float] = defaultdict(float)
    for row in rows:
        found[row["operator"]] += row["us"]
    return dict(found)


def _kernels(rows: Any) -> Table:
    total = sum(row["us"] for row in rows) or 1.0
    longest = sorted(rows, key=lambda row: -row["us"])
    cells = [
        Row(
            cells=[
                plain(row["name"], code=True),
                plain(row["operator"], code=True),
                Cell(text=f"{row['us']:.1f} µs", value=row["us"]),
                number(100 * row["us"] / total, 1, " %") if total else DASH,
            ]
        )
        for row in longest[:MOST_KERNELS]
    ]
    headers = ("kernel", "operator", "time", "share")
    return Table(
        name="kernels", caption="The kernels that take longest", headers=headers, rows=cells, words=frozenset({1})
    )
