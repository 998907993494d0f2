"""The files that a run has made, what the selection split says of them, and the choice between them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.compress.budget import Budget
from edgekit.compress.stages import File
from edgekit.search import Member, Point, front
from edgekit.stats import Estimate
from edgekit.validate.behaviour import Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A file with what was found before the test split is looked at.

    Args:
        file: the file.
        round: the round that it came from; 0 for the unpruned ones.
        drop: against the original fp32 file on the selection split, in points.
        latency_ms: interleaved with the original fp32 file.
        changes: what gates look at, on the selection split; empty where there are no gates.
    """

    file: File
    round: int
    drop: Estimate
    latency_ms: float
    changes: Figures = field(default_factory=Figures)


def choose(candidates: Sequence[Candidate], budget: Budget) -> Candidate:
    """The fastest file that holds the budget on the selection split with the margin of `Budget.cautious`.

    If none does, the fastest that holds it without a margin; if none does either, the one that breaks it by least. A
    file that is slower than the first one, the fp32 original, is only taken where a limit on size asks for it.
    """
    baseline = candidates[0]
    fast = [c for c in candidates if c is baseline or c.latency_ms < baseline.latency_ms] or [baseline]
    for pool in (fast, candidates) if budget.max_size_bytes is not None else (fast,):
        for cautious in (True, False):
            holding = [c for c in pool if not _broken(c, budget, cautious=cautious)]
            if holding:
                return min(holding, key=lambda c: c.latency_ms)
    return min(fast, key=lambda c: (_excess(c, budget), c.latency_ms))


def _broken(candidate: Candidate, budget: Budget, *, cautious: bool) -> tuple[str, ...]:
    # The original is its own reference: its drop is zero and has no error.
    drop = budget.cautious(candidate.drop) if cautious else candidate.drop.value
    gates = budget.gates.before_the_end.broken(candidate.changes, margin=budget.margin if cautious else 0.0)
    size = candidate.file.path.stat().st_size
    return budget.broken(drop=drop, latency_ms=candidate.latency_ms, size_bytes=size) + gates


def _excess(candidate: Candidate, budget: Budget) -> float:
    """By how much a candidate breaks the budget: the largest share over a limit."""
    size = candidate.file.path.stat().st_size
    shares = [budget.gates.before_the_end.excess(candidate.changes)]
    if budget.max_drop is not None:
        shares.append((candidate.drop.value - budget.max_drop) / max(budget.max_drop, 0.5))
    if budget.max_latency_ms is not None:
        shares.append(candidate.latency_ms / budget.max_latency_ms - 1)
    if budget.max_size_bytes is not None:
        shares.append(size / budget.max_size_bytes - 1)
    return max(shares)


def shown(candidates: Sequence[Candidate], chosen: Candidate) -> list[File]:
    """The original, its int8 file, and both files of the round that is shown: the chosen one's, else the last."""
    number = chosen.round or max(candidate.round for candidate in candidates)
    return [c.file for c in candidates if c.round in (0, number)]


def float_file(files: Sequence[File], chosen: Candidate) -> File:
    """The fp32 file that the chosen one was made from, or is."""
    wanted = f"pruned-{chosen.round}" if chosen.round else "fp32"
    return next(file for file in files if file.stage == wanted)


def members(root: Path, candidates: Sequence[Candidate], tested: Mapping[str, Any]) -> list[Member]:
    """Those that no other one beats, by what the selection split and the device say, the fastest first."""
    by_name = {candidate.file.stage: candidate for candidate in candidates}
    points = [
        Point(name=name, latency_ms=c.latency_ms, drop=c.drop, size_bytes=c.file.path.stat().st_size)
        for name, c in by_name.items()
    ]

    def member(point: Point) -> Member:
        candidate = by_name[point.name]
        target = candidate.file.target
        source = f"pruned-{candidate.round}" if candidate.round else "fp32"
        return Member(
            point=point,
            file=os.path.relpath(candidate.file.path, root),
            source=os.path.relpath(by_name[source].file.path, root),
            sha256=candidate.file.sha256,
            precision="fp32" if target == "any" else "int8",
            target=target,
            choices={"round": candidate.round},
            test=tested.get(point.name, {}),
            rungs=candidate.file.details.get("rungs", ()),
        )

    return [member(point) for point in front(points)]
