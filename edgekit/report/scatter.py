"""Points in a plane, for terminals and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

OTHER = "·"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One point; `label` is drawn at its place (a number for what one may choose), `OTHER` for the rest."""

    x: float
    y: float
    label: str = OTHER


def scatter(marks: Sequence[Mark], *, x: str, y: str, width: int = 64, height: int = 16) -> list[str]:
    r"""The points as lines of text, axes and their ends included; a label that would cover another moves aside.

    >>> print("\n".join(scatter([Mark(x=1, y=0, label="1"), Mark(x=2, y=5)], x="ms", y="drop", width=8, height=3)))
      drop
    5 │       ·
      │
    0 │1
      └────────
       1 … 2 ms
    """
    if not marks:
        return []
    left, right = min(mark.x for mark in marks), max(mark.x for mark in marks)
    low, high = min(mark.y for mark in marks), max(mark.y for mark in marks)
    grid = [[" "] * width for _ in range(height)]
    # Those that can be chosen last, so that they stay legible.
    for mark in sorted(marks, key=lambda mark: mark.label != OTHER):
        column = _place(mark.x, left, right, width)
        row = height - 1 - _place(mark.y, low, high, height)
        free = (
            at
            for at in sorted(range(width - len(mark.label) + 1), key=lambda at: abs(at - column))
            if all(cell in " " + OTHER for cell in grid[row][at : at + len(mark.label)])
        )
        at = next(free, column)
        grid[row][at : at + len(mark.label)] = mark.label
    ends = (f"{high:.3g}", f"{low:.3g}")
    margin = max(map(len, ends))
    names = [ends[0], *[""] * (height - 2), ends[1]] if height > 1 else [ends[0]]
    lines = [f"{name:>{margin}} │{''.join(row).rstrip()}" for name, row in zip(names, grid, strict=True)]
    axis = f"{'':>{margin}} └{'─' * width}"
    return [f"{'':>{margin}} {y}", *lines, axis, f"{'':>{margin}}  {left:.3g} … {right:.3g} {x}"]


def picture(marks: Sequence[Mark], path: Path, *, title: str, x: str, y: str) -> None:
    """The points as a picture (PNG), those with a number joined by a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    others = [mark for mark in marks if mark.label == OTHER]
    chosen = sorted((mark for mark in marks if mark.label != OTHER), key=lambda mark: mark.x)
    axes.scatter([mark.x for mark in others], [mark.y for mark in others], s=14, color="0.6")
    axes.plot([mark.x for mark in chosen], [mark.y for mark in chosen], marker="o", drawstyle="steps-post")
    for mark in chosen:
        axes.annotate(mark.label, (mark.x, mark.y), textcoords="offset points", xytext=(5, 5))
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    figure.savefig(path)


def _place(value: float, low: float, high: float, cells: int) -> int:
    return round((value - low) / (high - low) * (cells - 1)) if high > low else 0
