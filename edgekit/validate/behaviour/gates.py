"""Limits on what compression may change besides the mean."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from edgekit.errors import EdgekitError
from edgekit.stats import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The four figures that gates look at; None where a task has none, or where it was not measured.

    Args:
        churn: answers that changed, in percent.
        worst_class_drop: of the class that lost most, in points, with that class's own interval.
        ece_rise: of the expected calibration error, in points.
        robustness_drop: mean drop under perturbations, in the metric's unit.
    """

    churn: Estimate | None = None
    worst_class_drop: Estimate | None = None
    ece_rise: Estimate | None = None
    robustness_drop: Estimate | None = None

    @classmethod
    def unchanged(cls) -> Self:
        """Of a file against itself: nothing changes, for certain."""
        none = Estimate(value=0.0, low=0.0, high=0.0, n=0)
        return cls(churn=none, worst_class_drop=none, ece_rise=none, robustness_drop=none)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        found = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: None if value is None else value.to_dict() for name, value in found}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """Limits on `Figures`. None leaves a side open.

    Args:
        max_churn: answers that may change, in percent.
        max_worst_class_drop: what any class may lose, in points.
        max_ece_rise: what the expected calibration error may rise by, in points.
        max_robustness_drop: mean drop under perturbations, in the metric's points.

    Raises:
        EdgekitError: a limit is negative or no number.

    >>> churn = Estimate(value=2.5, low=2.0, high=3.0, n=1000)
    >>> Gates(max_churn=2).broken(Figures(churn=churn))
    ('churn 2.50 % > 2.00 %',)
    """

    max_churn: float | None = None
    max_worst_class_drop: float | None = None
    max_ece_rise: float | None = None
    max_robustness_drop: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not 0 <= value < math.inf:
                raise EdgekitError(f"got {value}", where=f"--{field.name.replace('_', '-')}", rule="0 or more")

    def __bool__(self) -> bool:
        """Whether there is any limit."""
        return any(getattr(self, field.name) is not None for field in fields(self))

    @property
    def before_the_end(self) -> Self:
        """The gates that a decision can look at: robustness is measured once, at the end."""
        return replace(self, max_robustness_drop=None)

    def broken(self, figures: Figures, *, margin: float = 0.0) -> tuple[str, ...]:
        """Which limits are broken, in words; empty where all hold.

        A figure that is asked for and is not there breaks its limit: what nobody measured holds nothing.

        Args:
            figures: what was measured.
            margin: standard errors to add to each figure first.
        """
        words = []
        for _, name, limit, figure, unit in self._asked(figures):
            if figure is None:
                words.append(f"{name} not measured, so not known to be within {limit:.2f}{unit}")
            elif not (value := figure.raised(margin)) <= limit:
                words.append(f"{name} {value:.2f}{unit} > {limit:.2f}{unit}")
        return tuple(words)

    def unmeasured(self, figures: Figures) -> tuple[str, ...]:
        """The figures that a limit asks for and that are not there, in words."""
        return tuple(name for _, name, _, figure, _ in self._asked(figures) if figure is None)

    def require(self, figures: Figures, task: str) -> None:
        """See to it that there is a figure for each limit.

        Args:
            figures: of any file.
            task: its name.

        Raises:
            EdgekitError: one is missing; no file could hold its limit.
        """
        if absent := self.unmeasured(figures):
            raise EdgekitError(
                f"no {' and no '.join(absent)} to hold against a limit",
                where="budget",
                rule=f"a gate that the task {task} has a figure for",
                way_out="leave this gate out; --max-churn is there for every task",
            )

    def excess(self, figures: Figures, *, margin: float = 0.0) -> float:
        """By how much the limits are broken, as a share of them; 0 where all hold. `margin` as for `broken`."""
        shares = [0.0]
        for _, _, limit, figure, _ in self._asked(figures):
            value = math.nan if figure is None else figure.raised(margin)
            shares.append(math.inf if math.isnan(value) else (value - limit) / max(limit, 0.5))
        return max(shares)

    def rows(self, figures: Figures) -> list[dict[str, Any]]:
        """Each limit with its figure and whether it holds, JSON-ready."""
        return [
            {
                "gate": option,
                "limit": limit,
                "figure": None if figure is None else figure.to_dict(),
                "holds": figure is not None and figure.value <= limit,
            }
            for option, _, limit, figure, _ in self._asked(figures)
        ]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _asked(self, figures: Figures) -> list[tuple[str, str, float, Estimate | None, str]]:
        """(option, name, limit, figure, unit) of each gate that has a limit."""
        every = (
            ("max_churn", "churn", self.max_churn, figures.churn, " %"),
            (
                "max_worst_class_drop",
                "worst class's drop",
                self.max_worst_class_drop,
                figures.worst_class_drop,
                " points",
            ),
            ("max_ece_rise", "ECE rise", self.max_ece_rise, figures.ece_rise, " points"),
            ("max_robustness_drop", "robustness drop", self.max_robustness_drop, figures.robustness_drop, " points"),
        )
        return [(option, name, limit, figure, unit) for option, name, limit, figure, unit in every if limit is not None]
