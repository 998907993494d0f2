"""Two bars a line: before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.report.charts.axes import CHARACTER_PX, Scale, x_axis
from edgekit.report.charts.svg import NARROW, WIDE, Chart, Drawing, key, rectangle, text

ROW_PX, BAR_PX = 34.0, 11.0
MOST_CHARACTERS = {WIDE: 30, NARROW: 16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One line: a name and its two values, None where there is nothing."""

    name: str
    before: float | None
    after: float | None


def pairs(name: str, title: str, rows: Sequence[Pair], *, names: tuple[str, str], axis: str, unit: str) -> Chart | None:
    """A chart of bars in pairs; None without rows."""
    if not rows:
        return None
    said = "; ".join(f"{row.name}: {_said(row.before, unit)} before, {_said(row.after, unit)} after" for row in rows)
    return Chart(
        name=name,
        title=title,
        description=said,
        wide=_draw(rows, names, axis, unit, WIDE),
        narrow=_draw(rows, names, axis, unit, NARROW),
        keys=[
            key(f"{names[0]} (upper bar)", rectangle(0, 1, 22, 10, "area plain")),
            key(f"{names[1]} (lower bar)", rectangle(0, 1, 22, 10, "area accent")),
        ],
    )


def _draw(rows: Sequence[Pair], names: tuple[str, str], axis: str, unit: str, width: int) -> Drawing:
    longest = min(max(len(row.name) for row in rows), MOST_CHARACTERS[width])
    top, bottom = 6.0, 8 + ROW_PX * len(rows)
    high = max(value for row in rows for value in (row.before, row.after) if value is not None) or 1.0
    x = Scale(low=0.0, high=high * 1.12, start=1.1 * CHARACTER_PX * longest + 16, end=width - 12.0)
    found = x_axis(x, top=top, bottom=bottom, title=axis, most=4 if width == NARROW else 8)
    for index, row in enumerate(rows):
        y = top + ROW_PX * index + 5
        words = row.name if len(row.name) <= longest else f"{row.name[: longest - 1]}…"
        found.append(text(x.start - 10, y + BAR_PX + 4, words, "label", anchor="end"))
        sides = zip((row.before, row.after), ("area plain", "area accent"), names, strict=True)
        for side, (value, look, whose) in enumerate(sides):
            if value is not None:
                at = y + side * (BAR_PX + 1)
                tip = f"{row.name}, {whose}: {_said(value, unit)}"
                found += [
                    rectangle(x.start, at, max(x(value) - x.start, 0.5), BAR_PX, look, tip=tip),
                    text(x(value) + 5, at + BAR_PX - 1.5, _said(value), "small"),
                ]
    return Drawing(width=width, height=round(bottom + 46), elements=found)


def _said(value: float | None, unit: str = "") -> str:
    return "nothing" if value is None else f"{value:.1f} {unit}".strip()
