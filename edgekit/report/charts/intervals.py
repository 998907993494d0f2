"""Figures with their intervals, one a line, around zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.report.charts.axes import CHARACTER_PX, Scale, padded, x_axis
from edgekit.report.charts.svg import NARROW, WIDE, Chart, Drawing, circle, key, line, rectangle, text

ROW_PX = 22.0
MOST_CHARACTERS = {WIDE: 34, NARROW: 15}


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """One line: a name, a value and its interval; `strong` sets it off."""

    name: str
    value: float
    low: float
    high: float
    strong: bool = False


def intervals(
    name: str,
    title: str,
    rows: Sequence[Interval],
    *,
    axis: str,
    unit: str,
    limit: float | None = None,
    marked: str = "the largest",
) -> Chart | None:
    """A line with a point for each row, zero and a limit drawn in; None without rows. `marked`: what is set off."""
    if not rows:
        return None
    said = "; ".join(_tip(row, unit) for row in rows)
    keys = [
        key("value and 95 % interval", line(0, 7, 22, 7, "whisker"), circle(11, 7, 4.5, "mark plain")),
        key(marked, line(0, 7, 22, 7, "whisker"), circle(11, 7, 4.5, "mark accent"), circle(11, 7, 8, "ring")),
    ]
    if limit is not None:
        keys.append(key("beyond the limit", rectangle(0, 0, 22, 14, "beyond"), line(0, 0, 0, 14, "limit")))
    return Chart(
        name=name,
        title=title,
        description=said,
        wide=_draw(rows, axis, unit, limit, WIDE),
        narrow=_draw(rows, axis, unit, limit, NARROW),
        keys=keys,
    )


def _draw(rows: Sequence[Interval], axis: str, unit: str, limit: float | None, width: int) -> Drawing:
    longest = min(max(len(row.name) for row in rows), MOST_CHARACTERS[width])
    top, bottom = 8.0, 14 + ROW_PX * len(rows)
    ends = [0.0, *(row.low for row in rows), *(row.high for row in rows), *([] if limit is None else [limit])]
    low, high = padded(ends)
    x = Scale(low=low, high=high, start=1.1 * CHARACTER_PX * longest + 16, end=width - 12.0)
    found = []
    if limit is not None:
        found += [
            rectangle(x(limit), top, x.end - x(limit), bottom - top, "beyond"),
            line(x(limit), top, x(limit), bottom, "limit", tip=f"limit {limit:g} {unit}"),
        ]
    found += x_axis(x, top=top, bottom=bottom, title=axis, most=4 if width == NARROW else 9)
    found.append(line(x(0), top, x(0), bottom, "axis"))
    for index, row in enumerate(rows):
        y = top + ROW_PX * (index + 0.5)
        words = row.name if len(row.name) <= longest else f"{row.name[: longest - 1]}…"
        found += [
            text(x.start - 10, y + 4, words, "label strong" if row.strong else "label", anchor="end"),
            line(x(row.low), y, x(row.high), y, "whisker"),
            *([circle(x(row.value), y, 8, "ring")] if row.strong else []),
            circle(x(row.value), y, 4.5, f"mark {'accent' if row.strong else 'plain'}", tip=_tip(row, unit)),
        ]
    return Drawing(width=width, height=round(bottom + 46), elements=found)


def _tip(row: Interval, unit: str) -> str:
    return f"{row.name}: {row.value:.2f} {unit} [{row.low:.2f}, {row.high:.2f}]"
