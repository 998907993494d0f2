"""What the result must keep to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from edgekit.errors import EdgekitError
from edgekit.stats import Estimate
from edgekit.units import format_bytes, format_latency
from edgekit.validate.behaviour import Gates
from edgekit.validate.selection import CONFIDENCE, margin_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The limits of a compression. None leaves a side open.

    Args:
        max_drop: loss of the metric against the original model, in its points (percentage points for accuracy).
        max_latency_ms: median latency of one sample in ONNX Runtime.
        max_size_bytes: size of the ONNX file.
        gates: limits on what changes besides the metric's mean; that on robustness is looked at in the end only.
        time_s: how long the search for it may take.
        confidence: how sure the selection split has to be, in 0.5 to 1, that a file holds drop and gates: one-sided, by
            the standard errors of the figures.

    Raises:
        EdgekitError: a limit is not a positive number (`max_drop` may be 0), or the confidence no such share.

    >>> Budget(max_drop=0.5).broken(drop=0.7, latency_ms=1.0, size_bytes=1)
    ('drop 0.70 points > 0.50 points',)
    """

    max_drop: float | None = 0.5
    max_latency_ms: float | None = None
    max_size_bytes: int | None = None
    gates: Gates = field(default_factory=Gates)
    time_s: float = 900.0
    confidence: float = CONFIDENCE

    def __post_init__(self) -> None:
        limits = (
            ("--max-drop", self.max_drop, self.max_drop is None or 0 <= self.max_drop < math.inf),
            (
                "--max-latency-ms",
                self.max_latency_ms,
                self.max_latency_ms is None or 0 < self.max_latency_ms < math.inf,
            ),
            ("--max-size-mb", self.max_size_bytes, self.max_size_bytes is None or self.max_size_bytes > 0),
            ("--time", self.time_s, 0 < self.time_s < math.inf),
        )
        for where, value, holds in limits:
            if not holds:
                raise EdgekitError(
                    f"got {value}", where=where, rule="a positive number (a drop of 0 is allowed)", way_out="raise it"
                )
        margin_of(self.confidence)

    @property
    def margin(self) -> float:
        """Standard errors that a decision keeps between a figure and its limit.

        >>> round(Budget(confidence=0.95).margin, 3)
        1.645
        """
        return margin_of(self.confidence)

    def broken(self, *, drop: float, latency_ms: float, size_bytes: int) -> tuple[str, ...]:
        """Which limits these figures break, in words; empty when the budget holds."""
        words = []
        if self.max_drop is not None and not drop <= self.max_drop:
            words.append(f"drop {drop:.2f} points > {self.max_drop:.2f} points")
        if self.max_latency_ms is not None and not latency_ms <= self.max_latency_ms:
            words.append(f"latency {format_latency(latency_ms)} > {format_latency(self.max_latency_ms)}")
        if self.max_size_bytes is not None and not size_bytes <= self.max_size_bytes:
            words.append(f"size {format_bytes(size_bytes)} > {format_bytes(self.max_size_bytes)}")
        return tuple(words)

    def allows(self, drop: float) -> bool:
        """Whether a drop alone, in points, is within its limit."""
        return not self.broken(drop=drop, latency_ms=0.0, size_bytes=0)

    def cautious(self, drop: Estimate) -> float:
        """The drop to decide with on the selection split, so that the test split is likely to agree.

        Some way above the estimate: a candidate that merely touches the limit on selection would break it on test every
        second time.
        """
        return drop.raised(self.margin)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "max_drop_points": self.max_drop,
            "max_latency_ms": self.max_latency_ms,
            "max_size_bytes": self.max_size_bytes,
            **self.gates.to_dict(),
            "time_s": self.time_s,
            "confidence": self.confidence,
        }
