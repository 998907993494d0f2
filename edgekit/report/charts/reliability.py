"""Confidence against correctness of two models: on the diagonal, a model is right as often as it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.report.charts.axes import Scale, x_axis, y_axis
from edgekit.report.charts.svg import NARROW, WIDE, Chart, Drawing, Element, circle, key, line, path, square

SIDE_PX = 340


def reliability(before: Mapping[str, Any], after: Mapping[str, Any], names: tuple[str, str]) -> Chart | None:
    """A reliability diagram; None where there are no bins.

    Args:
        before: the original's `bins`, each with `confidence` and `accuracy` in 0 to 1 and `n`.
        after: the compressed file's, likewise.
        names: of both.
    """
    bins = [[each for each in side.get("bins", ()) if each["n"]] for side in (before, after)]
    if not any(bins):
        return None
    return Chart(
        name="reliability",
        title="How often each file is right, against how sure it is",
        description=" ".join(
            f"{name}: "
            + ", ".join(f"{100 * b['confidence']:.0f} % sure, {100 * b['accuracy']:.0f} % right" for b in side)
            for name, side in zip(names, bins, strict=True)
        ),
        wide=_draw(bins, names, WIDE),
        narrow=_draw(bins, names, NARROW),
        keys=[
            key(names[0], line(0, 7, 22, 7, "link"), square(11, 7, 4.5, "mark plain")),
            key(names[1], line(0, 7, 22, 7, "front"), circle(11, 7, 4.5, "mark accent")),
            key("as often right as it is sure", line(0, 7, 22, 7, "p90")),
        ],
    )


def _draw(bins: Sequence[Sequence[Mapping[str, Any]]], names: tuple[str, str], width: int) -> Drawing:
    left, top = 48.0, 34.0
    right, bottom = min(width - 12.0, left + (SIDE_PX if width == NARROW else 1.35 * SIDE_PX)), top + 270.0
    low = min(100 * min(b["confidence"], b["accuracy"]) for side in bins for b in side)
    start = max(0.0, low // 10 * 10 - 5)
    x = Scale(low=start, high=100.0, start=left, end=right)
    y = Scale(low=start, high=100.0, start=bottom, end=top)
    found: list[Element] = x_axis(x, top=top, bottom=bottom, title="confidence, %", most=5)
    found += y_axis(y, left=left, right=right, title="right answers, %", most=5)
    found.append(line(x(start), y(start), x(100), y(100), "p90"))
    for side, name, form, look, joined in zip(
        bins, names, (square, circle), ("mark plain", "mark accent"), ("link", "front"), strict=True
    ):
        places = [(x(100 * each["confidence"]), y(100 * each["accuracy"])) for each in side]
        found += [path(places, joined)] if len(places) > 1 else []
        for each, (at, over) in zip(side, places, strict=True):
            tip = f"{name}: {100 * each['confidence']:.1f} % sure, {100 * each['accuracy']:.1f} % right ({each['n']})"
            found.append(form(at, over, 4.5, look, tip=tip))
    return Drawing(width=width, height=round(bottom + 46), elements=found)
