"""Tables as the page shows them: a figure, what stands below it in small, and its exact value for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgekit.units import format_latency


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell.

    Args:
        text: what is read.
        note: in small below it: an interval.
        value: the exact figure, which the page keeps in a `<data value>`.
        share: 0 to 1 for a bar behind the cell.
        code: whether it is set in the typeface of code.
    """

    text: str
    note: str = ""
    value: float | None = None
    share: float | None = None
    code: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row; `mark` says in words why it is set off from the others."""

    cells: Sequence[Cell]
    mark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table. The first column names its rows; those in `words` hold text, all others figures."""

    name: str
    caption: str
    headers: Sequence[str]
    rows: Sequence[Row]
    words: frozenset[int] = field(default_factory=frozenset)


def plain(text: object, *, code: bool = False) -> Cell:
    """Words."""
    return Cell(text=str(text), code=code)


def number(value: float | None, digits: int = 2, suffix: str = "") -> Cell:
    """A figure; a dash where there is none."""
    return DASH if value is None else Cell(text=signed(f"{value:.{digits}f}{suffix}"), value=float(value))


def estimate(found: Mapping[str, Any] | None, digits: int = 2, suffix: str = "") -> Cell:
    """A figure with its 95 % interval below it."""
    if found is None:
        return DASH
    low, high = (f"{found[end]:.{digits}f}" for end in ("low", "high"))
    return Cell(
        text=signed(f"{found['value']:.{digits}f}{suffix}"),
        note=signed(f"{low} to {high}"),
        value=float(found["value"]),
    )


def latency(ms: float | None) -> Cell:
    """A latency with its unit."""
    return DASH if ms is None else Cell(text=format_latency(ms), value=float(ms))


def latency_estimate(found: Mapping[str, Any]) -> Cell:
    """A latency with its unit, its interval in the same unit below it."""
    factor, digits = (1e3, 1) if found["value"] < 1 else (1.0, 2)
    low, high = (f"{found[end] * factor:.{digits}f}" for end in ("low", "high"))
    return Cell(text=format_latency(found["value"]), note=f"{low} to {high}", value=float(found["value"]))


def signed(text: str) -> str:
    """With a minus sign that is one."""
    return text.replace("-", "−")


DASH = Cell(text="–")
