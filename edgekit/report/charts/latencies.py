"""How the calls of each file are distributed: histograms above one axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.report.charts.axes import Scale, x_axis
from edgekit.report.charts.svg import NARROW, WIDE, Chart, Drawing, Element, key, line, path, text
from edgekit.units import format_latency

SHOWN = 99.5
"""Percent of a file's calls that the axis holds at least."""
CURVE_PX = 52.0
BIN_PX = 3.0
GUTTER_PX, ABOVE_PX = 175.0, 22.0
"""Names stand left of the histograms on a wide screen, above them on a narrow one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """One file's calls [calls] in milliseconds, and its percentiles as they are reported."""

    name: str
    times: np.ndarray
    marks: Mapping[str, float]
    chosen: bool

    @property
    def tip(self) -> str:
        marks = ", ".join(f"{name} {format_latency(value)}" for name, value in self.marks.items())
        return f"{self.name}: {marks}, {len(self.times)} calls"


def latencies(raw: Mapping[str, Any], chosen: str) -> Chart | None:
    """A histogram of every file's calls; None where no raw times were kept.

    Args:
        raw: what `latency-raw.json` holds: for each file `samples_ms` and the percentiles that were made of them.
        chosen: the file that is set off from the others.
    """
    files = [
        _File(
            name=name,
            times=np.asarray(each["samples_ms"], dtype=np.float64),
            marks={
                "p50": each["p50_ms"]["value"],
                **{mark: each[f"{mark}_ms"] for mark in ("p90", "p99") if each.get(f"{mark}_ms") is not None},
            },
            chosen=name == chosen,
        )
        for name, each in raw.items()
    ]
    if not files:
        return None
    return Chart(
        name="latencies",
        title="Distribution of the latency of every file",
        description="; ".join(file.tip for file in files),
        wide=_draw(files, WIDE),
        narrow=_draw(files, NARROW),
        keys=[
            key("p50, the median over rounds", line(11, 0, 11, 14, "p50")),
            key("p90", line(11, 0, 11, 14, "p90")),
            key("p99", line(11, 0, 11, 14, "p99")),
        ],
    )


def _draw(files: Sequence[_File], width: int) -> Drawing:
    gutter, above = (GUTTER_PX, 0.0) if width == WIDE else (0.0, ABOVE_PX)
    row, top = CURVE_PX + above + 12, 4.0
    bottom = top + row * len(files)
    high = max(float(np.percentile(each.times, SHOWN)) for each in files)
    low = min(float(each.times.min()) for each in files)
    log = high / low > 20
    scale = Scale(low=low / 1.1 if log else 0.0, high=high * 1.02, start=gutter + 4, end=width - 12.0, log=log)
    micro = max(each.marks["p50"] for each in files) < 1
    found = x_axis(
        scale,
        top=top,
        bottom=bottom,
        title=f"time of one call, {'µs' if micro else 'ms'}{', logarithmic' if log else ''}",
        most=4 if width == NARROW else 9,
        factor=1e3 if micro else 1.0,
    )
    for index, each in enumerate(files):
        base = top + row * (index + 1)
        found += _curve(each, scale, base)
        words, p50 = f"{each.name}{' (chosen)' if each.chosen else ''}", f"p50 {format_latency(each.marks['p50'])}"
        look = f"label{' strong' if each.chosen else ''}"
        if gutter:
            found += [text(0, base - 22, words, look), text(0, base - 6, p50, "tick")]
        else:
            over = base - CURVE_PX - 8
            found += [text(scale.start, over, words, look), text(scale.end, over, p50, "tick", anchor="end")]
    return Drawing(width=width, height=round(bottom + 46), elements=found)


def _curve(file: _File, scale: Scale, base: float) -> list[Element]:
    bins = round((scale.end - scale.start) / BIN_PX)
    pixels = np.linspace(scale.start, scale.end, bins + 1)
    share = (pixels - scale.start) / (scale.end - scale.start)
    edges = scale.low * (scale.high / scale.low) ** share if scale.log else scale.low + share * (scale.high - scale.low)
    counts, _ = np.histogram(file.times, bins=edges)
    heights = (CURVE_PX - 4) * counts / max(int(counts.max()), 1)
    outline = [(scale.start, base)]
    for index in np.flatnonzero(counts):  # Runs of empty bins need no corners.
        left, right, top = float(pixels[index]), float(pixels[index + 1]), base - float(heights[index])
        outline += [] if index and counts[index - 1] else [(left, base)]
        outline += [(left, top), (right, top)]
        outline += [] if index + 1 < bins and counts[index + 1] else [(right, base)]
    outside = int((file.times > scale.high).sum())
    tip = f"{file.tip}{f', {outside} of them beyond the axis' if outside else ''}"
    marks = [
        line(
            scale(value), base - CURVE_PX, scale(value), base, mark, tip=f"{file.name}: {mark} {format_latency(value)}"
        )
        for mark, value in file.marks.items()
        if scale.holds(value)
    ]
    area = path(outline, f"area {'accent' if file.chosen else 'plain'}", closed=True, tip=tip)
    return [area, line(scale.start, base, scale.end, base, "axis"), *marks]
