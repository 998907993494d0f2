"""The Pareto front: candidates that no other one beats in latency, drop and size together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgekit.stats import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One candidate, as it was measured.

    Args:
        name: of the candidate, unique among those it is compared with.
        latency_ms: median of one sample in ONNX Runtime.
        drop: points of the metric that it is worse than the reference, on the selection split; negative where it is
            better.
        size_bytes: of its ONNX file.
    """

    name: str
    latency_ms: float
    drop: Estimate
    size_bytes: int

    def beats(self, other: Point) -> bool:
        """Whether it is better in one aim, and worse in none."""
        mine = (self.latency_ms, self.drop.value, self.size_bytes)
        theirs = (other.latency_ms, other.drop.value, other.size_bytes)
        return mine != theirs and all(a <= b for a, b in zip(mine, theirs, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return asdict(self)


def front(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points that none of the others beats, the fastest first.

    >>> def point(name, ms, drop):
    ...     return Point(name=name, latency_ms=ms, drop=Estimate(value=drop, low=drop, high=drop, n=1), size_bytes=1)
    >>> [each.name for each in front([point("a", 2.0, 0.1), point("b", 1.0, 0.5), point("c", 2.5, 0.2)])]
    ['b', 'a']
    """
    best = [point for point in points if not any(other.beats(point) for other in points)]
    return tuple(sorted(best, key=lambda point: (point.latency_ms, point.drop.value)))
