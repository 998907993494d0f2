"""The candidates of a run by latency and drop, with the front and the budget drawn in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from edgekit.report.charts.axes import Box, Label, Scale, padded, placed, x_axis, y_axis
from edgekit.report.charts.svg import (
    NARROW,
    WIDE,
    Chart,
    Drawing,
    Element,
    Key,
    circle,
    key,
    line,
    path,
    rectangle,
    square,
    text,
    triangle,
)
from edgekit.units import format_bytes, format_latency

ROOM = 4.0
"""Limits of the drop that the chart shows at least; what lies far above is marked at its edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    name: str
    ms: float
    drop: float
    low: float
    high: float
    size: int | None
    in_front: bool
    chosen: bool
    int8: bool

    @property
    def tip(self) -> str:
        words = f"{self.name}: {format_latency(self.ms)}, drop {self.drop:.2f} [{self.low:.2f}, {self.high:.2f}]"
        size = "" if self.size is None else f", {format_bytes(self.size)}"
        return f"{words}{size}{', chosen' if self.chosen else ''}"


def tradeoff(report: Mapping[str, Any]) -> Chart | None:
    """Latency against drop of every candidate; None where there are not two."""
    front = {each["name"] for each in report.get("front", ())}
    points = [
        _Point(
            name=each["file"],
            ms=each["selection_latency_ms"],
            drop=each["selection_drop"]["value"],
            low=each["selection_drop"]["low"],
            high=each["selection_drop"]["high"],
            size=each.get("size_bytes"),
            in_front=each["file"] in front,
            chosen=each["file"] == report["verdict"]["chosen"],
            int8="int8" in each["file"],
        )
        for each in report.get("candidates", ())
    ]
    if len(points) < 2:
        return None
    most, ms = report["budget"].get("max_drop_points"), report["budget"].get("max_latency_ms")
    where = "on the device (predicted)" if report["settings"].get("costs") else "of one sample"
    limits = _Limits(drop=most, ms=ms, unit=report["unit"], axis=f"median latency {where}")
    description = f"{len(points)} candidates; {sum(p.in_front for p in points)} of them on the front. " + "; ".join(
        point.tip for point in points
    )
    return Chart(
        name="tradeoff",
        title="Latency against drop of every candidate",
        description=description,
        wide=_draw(points, limits, WIDE, 400),
        narrow=_draw(points, limits, NARROW, 340),
        keys=_keys(points, limits),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    drop: float | None
    ms: float | None
    unit: str
    axis: str


def _draw(points: Sequence[_Point], limits: _Limits, width: int, height: int) -> Drawing:
    left, right, top, bottom = 48.0, width - 12.0, 34.0, height - 46.0
    micro = max(point.ms for point in points) < 1
    x = _x_scale(points, limits, left, right)
    y = _y_scale(points, limits, bottom, top)
    few = 4 if width < WIDE else 8
    found: list[Element] = []
    if limits.drop is not None and y.holds(limits.drop):
        found.append(rectangle(left, top, right - left, y(limits.drop) - top, "beyond"))
    if limits.ms is not None and x.holds(limits.ms):
        found.append(rectangle(x(limits.ms), top, right - x(limits.ms), bottom - top, "beyond"))
    title = f"{limits.axis}, {'µs' if micro else 'ms'} (less is better)"
    found += x_axis(x, top=top, bottom=bottom, title=title, most=few, factor=1e3 if micro else 1.0)
    found += y_axis(y, left=left, right=right, title=f"drop on the selection split, {limits.unit}", most=6)
    if y.holds(0) and y.low < 0:
        found.append(line(left, y(0), right, y(0), "axis"))
    found += _budget(limits, x, y)
    corners = _corners([p for p in points if p.in_front], x, y)
    found += [path(corners, "front")] if len(corners) > 1 else []
    for point in sorted(points, key=lambda p: p.chosen):
        found += _mark(point, x, y)
    labels = [
        Label(
            x=x(p.ms),
            y=y(p.drop),
            words=f"{p.name}{' (chosen)' if p.chosen else ''}",
            look="label strong" if p.chosen else "label",
            rank=0 if p.chosen else 1 if p.in_front else 2,
        )
        for p in points
    ]
    found += placed(
        labels,
        room=(left, top, width, bottom),
        points=[(x(p.ms), y(p.drop)) for p in points],
        lines=_lines(points, limits, x, y),
    )
    return Drawing(width=width, height=height, elements=found)


def _x_scale(points: Sequence[_Point], limits: _Limits, left: float, right: float) -> Scale:
    values = [point.ms for point in points]
    if limits.ms is not None and limits.ms < 1.5 * max(values):
        values.append(limits.ms)
    wide_range = max(values) / min(values) > 12
    low, high = (min(values) / 1.3, max(values) * 1.3) if wide_range else padded(values, zero=True)
    return Scale(low=low, high=high, start=left, end=right, log=wide_range)


def _y_scale(points: Sequence[_Point], limits: _Limits, bottom: float, top: float) -> Scale:
    values = [0.0, *(point.low for point in points), *(point.high for point in points)]
    if limits.drop is not None:
        # A plan that lost everything would press all others onto one line.
        near = [point.high for point in points if point.in_front or point.chosen or point.drop <= limits.drop]
        edge = max([ROOM * limits.drop, *near])
        values = [*(min(value, edge) for value in values), 1.25 * limits.drop]
    low, high = padded(values)
    return Scale(low=low, high=high, start=bottom, end=top)


def _budget(limits: _Limits, x: Scale, y: Scale) -> list[Element]:
    found = []
    if limits.drop is not None and y.holds(limits.drop):
        words = f"limit of the budget: {limits.drop:g} {limits.unit}"
        at = y(limits.drop)
        found += [line(x.start, at, x.end, at, "limit", tip=words), text(x.end, at - 6, words, "limit", anchor="end")]
    if limits.ms is not None and x.holds(limits.ms):
        words = f"limit: {format_latency(limits.ms)}"
        at = x(limits.ms)
        found += [
            line(at, y.end, at, y.start, "limit", tip=words),
            text(at - 6, y.start - 8, words, "limit", anchor="end"),
        ]
    return found


def _corners(front: Sequence[_Point], x: Scale, y: Scale) -> list[tuple[float, float]]:
    """The edge of what was reached: from each point of the front to the next slower one that loses less."""
    places: list[tuple[float, float]] = []
    best = float("inf")
    for point in sorted(front, key=lambda p: (p.ms, p.drop)):
        if point.drop < best:
            places += [(x(point.ms), places[-1][1])] if places else []
            places.append((x(point.ms), y(point.drop)))
            best = point.drop
    return places


def _lines(points: Sequence[_Point], limits: _Limits, x: Scale, y: Scale) -> list[Box]:
    """What labels should stay off: intervals, the edge of the front, zero and the limit with its words."""
    found = [(x(p.ms) - 1, y(p.high), x(p.ms) + 1, y(p.low)) for p in points]
    corners = _corners([p for p in points if p.in_front], x, y)
    found += [
        (min(a[0], b[0]), min(a[1], b[1]) - 1, max(a[0], b[0]), max(a[1], b[1]) + 1) for a, b in pairwise(corners)
    ]
    found.append((x.start, y(0) - 1, x.end, y(0) + 1))
    if limits.drop is not None:
        found.append((x.start, y(limits.drop) - 18, x.end, y(limits.drop)))
    return found


def _mark(point: _Point, x: Scale, y: Scale) -> list[Element]:
    at, look = (x(point.ms), y(point.drop)), f"mark {'accent' if point.in_front else 'plain'}"
    if not y.holds(point.drop):
        return [triangle(*at, 5, look, tip=point.tip)]
    found = [line(at[0], y(point.low), at[0], y(point.high), "whisker")] if point.low < point.high else []
    if point.chosen:
        found.append(circle(*at, 10, "ring"))
    return [*found, (circle if point.int8 else square)(*at, 5.5, look, tip=point.tip)]


def _keys(points: Sequence[_Point], limits: _Limits) -> list[Key]:
    keys = []
    if any(point.int8 for point in points):
        keys.append(key("int8 file", circle(11, 7, 5, "mark plain")))
    keys.append(key("fp32 file", square(11, 7, 5, "mark plain")))
    if any(point.in_front for point in points):
        keys.append(
            key(
                "on the front: none is better in latency, drop and size together",
                line(0, 7, 22, 7, "front"),
                circle(11, 7, 5, "mark accent"),
            )
        )
    keys.append(key("chosen", circle(11, 7, 6, "ring"), circle(11, 7, 3, "mark accent")))
    keys.append(key("95 % interval", line(11, 0, 11, 14, "whisker")))
    if limits.drop is not None or limits.ms is not None:
        keys.append(key("outside the budget", rectangle(0, 0, 22, 14, "beyond"), line(0, 14, 22, 14, "limit")))
    return keys
