"""The published table as a picture: how much faster each file is than fp32, and what it costs in accuracy."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from quantizer_benchmark.quantizers import AIMET, DYNAMIC, EDGEKIT, NNCF, STATIC

LOOKS = {
    STATIC[0].name: ("#b0b0b0", "s"),
    STATIC[1].name: ("#56b4e9", "D"),
    DYNAMIC.name: ("#cc79a7", "v"),
    NNCF.name: ("#009e73", "^"),
    AIMET.name: ("#e69f00", "P"),
    EDGEKIT: ("#d1022b", "o"),
}
"""Colour (told apart with any colour vision: Okabe and Ito, *Color Universal Design*, 2008) and marker."""
INCHES_A_NETWORK = 0.55
LINEAR_UP_TO = 1.0
"""Points of drop: above, the axis is logarithmic, since files that are broken lose tens of points."""

DROPS = (-10, -3, -1, -0.5, 0, 0.5, 1, 3, 10, 30, 90)
"""Where that axis may have a mark."""


def picture(reports: Mapping[str, Mapping[str, Any]]) -> bytes:
    """An SVG of two panels that share their rows, the networks; the same reports give the same bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": EDGEKIT, "font.family": "sans-serif", "font.size": 9}):
        figure = Figure(figsize=(9.5, 1.5 + INCHES_A_NETWORK * len(reports)), layout="constrained")
        speed, drop = figure.subplots(1, 2, sharey=True)
        shown = [name for name in LOOKS if any(_row(report, name) for report in reports.values())]
        for place, name in enumerate(shown):
            colour, marker = LOOKS[name]
            # Each quantizer has its own height within a network's row, so that equal values do not hide each other.
            shift = 0.7 * ((place + 0.5) / len(shown) - 0.5)
            points = [(y + shift, row) for y, report in enumerate(reports.values()) if (row := _row(report, name))]
            for axes, figure_of in ((speed, "ratio_to_fp32"), (drop, "drop")):
                values = [row[figure_of] for _, row in points]
                axes.errorbar(
                    [value["value"] for value in values],
                    [y for y, _ in points],
                    xerr=[
                        [value["value"] - value["low"] for value in values],
                        [value["high"] - value["value"] for value in values],
                    ],
                    fmt=marker,
                    color=colour,
                    markersize=6 if name == EDGEKIT else 4.5,
                    elinewidth=1,
                    label=name,
                )
        for row in range(1, len(reports)):
            for axes in (speed, drop):
                axes.axhline(row - 0.5, color="#dddddd", linewidth=0.6)
        speed.set_yticks(range(len(reports)), list(reports))
        speed.set_ylim(len(reports) - 0.5, -0.5)
        speed.set_xscale("log", base=2)
        speed.xaxis.set_major_formatter(lambda value, _: f"{value:g}×" if value >= 1 else f"1/{1 / value:g}×")
        speed.axvline(1, color="#555555", linewidth=0.8)
        speed.set_xlabel("times as fast as fp32 (right is better)")
        drop.set_xscale("symlog", linthresh=LINEAR_UP_TO, linscale=1.5)
        low, high = drop.get_xlim()
        drop.set_xticks([value for value in DROPS if low <= value <= high], minor=False)
        drop.set_xticks([], minor=True)
        drop.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        drop.axvline(0, color="#555555", linewidth=0.8)
        drop.set_xlabel("drop in points below fp32 (left is better)")
        for axes in (speed, drop):
            axes.tick_params(axis="y", length=0)
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.grid(axis="x", color="#eeeeee", linewidth=0.6)
            axes.set_axisbelow(True)
        handles, labels = speed.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(shown), frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _row(report: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return next((row for row in report["rows"] if row["name"] == name and row["status"] == "measured"), None)
