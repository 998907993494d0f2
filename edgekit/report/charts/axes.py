"""Scales, ticks and labels that do not cover each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgekit.report.charts.svg import Element, line, text

CHARACTER_PX, LINE_PX = 6.6, 14.0
"""Room of a character and of a line of labels, on the safe side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Values from `low` to `high` as pixels from `start` to `end`; beyond the ends they stay at the ends."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        inside = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(inside / self.low) / math.log(self.high / self.low)
        else:
            share = (inside - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def holds(self, value: float) -> bool:
        """Whether a value lies on the scale."""
        return self.low <= value <= self.high

    def ticks(self, most: int) -> list[float]:
        """Round values on the scale, about `most` of them."""
        return log_ticks(self.low, self.high, most) if self.log else ticks(self.low, self.high, most)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten from `low` to `high`, at most `most`.

    >>> ticks(0, 0.97, 6)
    [0.0, 0.2, 0.4, 0.6, 0.8]
    """
    raw = (high - low) / max(most, 1)
    power = 10 ** math.floor(math.log10(raw))
    step = next(each * power for each in (1, 2, 2.5, 5, 10, 20) if (high - low) / (each * power) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) + 0.0 for index in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Values of 1, 2 and 5 times powers of ten, or the powers alone where those are too many.

    >>> log_ticks(0.03, 1.5, 8)
    [0.05, 0.1, 0.2, 0.5, 1.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [
            value for power in powers for factor in factors if low <= (value := float(f"{factor}e{power}")) <= high
        ]
        if len(found) <= most:
            return found
    return found


def padded(values: Sequence[float], *, share: float = 0.06, zero: bool = False) -> tuple[float, float]:
    """The ends of a scale that holds all values with some room; `zero` keeps 0 in it."""
    low, high = min([*values, *([0.0] if zero else [])]), max([*values, *([0.0] if zero else [])])
    room = share * (high - low) or abs(high) * share or 1.0
    return (0.0 if zero and low == 0 else low - room), high + room


def format_tick(value: float) -> str:
    """A tick's number, with a minus sign that is one."""
    return f"{value:.10g}".replace("-", "−")


def x_axis(scale: Scale, *, top: float, bottom: float, title: str, most: int, factor: float = 1.0) -> list[Element]:
    """Grid lines, numbers (times `factor`) below, and the title below them."""
    found = [line(scale.start, bottom, scale.end, bottom, "axis")]
    for value in scale.ticks(most):
        x = scale(value)
        found += [
            line(x, top, x, bottom, "grid"),
            text(x, bottom + 17, format_tick(round(value * factor, 9)), "tick", anchor="middle"),
        ]
    return [*found, text((scale.start + scale.end) / 2, bottom + 37, title, "title", anchor="middle")]


def y_axis(scale: Scale, *, left: float, right: float, title: str, most: int) -> list[Element]:
    """Grid lines, numbers on the left, and the title above them (turned text is hard to read)."""
    found = [text(0, scale.end - 12, title, "title")]
    for value in scale.ticks(most):
        y = scale(value)
        found += [line(left, y, right, y, "grid"), text(left - 8, y + 4, format_tick(value), "tick", anchor="end")]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """Words that belong to a point; labels come first where their `rank` is low."""

    x: float
    y: float
    words: str
    look: str = "label"
    rank: int = 0


Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def placed(
    labels: Sequence[Label], *, room: Box, points: Sequence[tuple[float, float]] = (), lines: Sequence[Box] = ()
) -> Iterator[Element]:
    """The labels beside their points, within `room`, where they cover no other label and no point.

    Each stays off `lines` if it can; one without a place is left out.
    """
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    for label in sorted(labels, key=lambda each: each.rank):
        free = [
            (place, box)
            for place in _places(label)
            if _inside(box := _box(place, label.words), room) and not any(_overlap(box, other) for other in taken)
        ]
        if free:
            place, box = min(free, key=lambda pair: sum(_overlap(pair[1], each) for each in lines))
            taken.append(box)
            anchor, x, y = place
            yield text(x, y, label.words, label.look, anchor=anchor)


def _places(label: Label) -> list[tuple[str, float, float]]:
    """Anchors and places, the best first."""
    x, y = label.x, label.y
    beside = [("start", x + 11, y + 4), ("end", x - 11, y + 4)]
    above = [("start", x + 9, y - 9), ("middle", x, y - 14), ("end", x - 9, y - 9)]
    below = [("start", x + 9, y + 18), ("middle", x, y + 23), ("end", x - 9, y + 18)]
    return [*beside, *above, *below]


def _box(place: tuple[str, float, float], words: str) -> Box:
    anchor, x, y = place
    width = CHARACTER_PX * len(words)
    left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    return left, y - LINE_PX + 3, left + width, y + 3


def _inside(box: Box, room: Box) -> bool:
    return box[0] >= room[0] and box[1] >= room[1] and box[2] <= room[2] and box[3] <= room[3]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
