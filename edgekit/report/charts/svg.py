"""Drawings as data: elements with attributes, which a template writes as SVG.

Colours are classes (`ink`, `quiet`, `accent`, …) that the page's style sheet fills in for light, dark and print.
Nothing is told by colour alone: what differs in colour differs in form, dash or label too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

WIDE, NARROW = 860, 350
"""Widths in pixels: a chart is drawn once for each, since text that is scaled to a phone cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """One SVG element; `tip` is what a pointer that rests on it is told."""

    tag: str
    attributes: Mapping[str, str | float]
    text: str = ""
    tip: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Elements on a plane of so many pixels."""

    width: int
    height: int
    elements: Sequence[Element]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An entry of a legend: a small drawing and what it means."""

    drawing: Drawing
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart for wide and for narrow screens, with what it shows in words."""

    name: str
    title: str
    description: str
    wide: Drawing
    narrow: Drawing
    keys: Sequence[Key] = field(default_factory=tuple)


def line(x1: float, y1: float, x2: float, y2: float, look: str, *, tip: str = "") -> Element:
    """A straight line."""
    return Element(
        tag="line", attributes={"x1": _px(x1), "y1": _px(y1), "x2": _px(x2), "y2": _px(y2), "class": look}, tip=tip
    )


def text(x: float, y: float, words: str, look: str = "quiet", *, anchor: str = "start") -> Element:
    """Words at a place; `anchor` is `start`, `middle` or `end`."""
    return Element(tag="text", attributes={"x": _px(x), "y": _px(y), "class": look, "text-anchor": anchor}, text=words)


def circle(x: float, y: float, radius: float, look: str, *, tip: str = "") -> Element:
    """A disc or a ring."""
    return Element(tag="circle", attributes={"cx": _px(x), "cy": _px(y), "r": _px(radius), "class": look}, tip=tip)


def square(x: float, y: float, radius: float, look: str, *, tip: str = "") -> Element:
    """A square around a place, as large to the eye as a circle of the radius."""
    half = 0.9 * radius
    return rectangle(x - half, y - half, 2 * half, 2 * half, look, tip=tip)


def rectangle(x: float, y: float, width: float, height: float, look: str, *, tip: str = "") -> Element:
    """A rectangle from its upper left corner."""
    return Element(
        tag="rect",
        attributes={"x": _px(x), "y": _px(y), "width": _px(width), "height": _px(height), "class": look},
        tip=tip,
    )


def path(points: Sequence[tuple[float, float]], look: str, *, closed: bool = False, tip: str = "") -> Element:
    """A line through points, or the area inside of it."""
    places = "L".join(f"{_px(x)} {_px(y)}" for x, y in points)
    return Element(tag="path", attributes={"d": f"M{places}{'Z' if closed else ''}", "class": look}, tip=tip)


def triangle(x: float, y: float, radius: float, look: str, *, tip: str = "") -> Element:
    """A triangle that points up: beyond the edge."""
    corners = [(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)]
    return path(corners, look, closed=True, tip=tip)


def key(meaning: str, *elements: Element, width: int = 22) -> Key:
    """A legend's entry; `elements` are drawn on a plane of `width` by 14."""
    return Key(drawing=Drawing(width=width, height=14, elements=elements), meaning=meaning)


def _px(value: float) -> float:
    """A tenth of a pixel is more than a screen shows."""
    return round(value, 1)
