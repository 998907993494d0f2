"""Judging a plan: how close its file comes to the fp32 outputs on batches that the plan has not seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekit.device.session import open_session
from edgekit.device.variants import exact_config
from edgekit.quantize.applying import apply_plan
from edgekit.quantize.calibration import samples_in
from edgekit.quantize.plan import QuantPlan
from edgekit.quantize.targets import NO_CPU
from edgekit.spec import Feeds, IOSpec

HELD_BACK, JUDGES = 4, 128
"""One batch in so many is held back from the plan to judge by, until there are so many samples."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A plan, the bytes of its file, and how close its outputs come to those of the fp32 file."""

    plan: QuantPlan
    written: bytes
    sqnr_db: float

    def gain(self) -> float:
        """What the best has most of."""
        return self.sqnr_db


@dataclass(frozen=True, slots=True)
class Trials:
    """Judges plans by batches that they have not seen.

    Args:
        model: the fp32 file.
        path: where files are written, one over the other.
        judges: the batches.
        wanted: the fp32 file's outputs for them.
    """

    model: Path
    path: Path
    judges: Sequence[Feeds]
    wanted: Sequence[np.ndarray]

    def of(self, plan: QuantPlan) -> Trial:
        """Write the file of a plan, and judge it."""
        apply_plan(self.model, plan, self.path)
        had = outputs_of_file(self.path, self.judges, plan.target)
        return Trial(plan, self.path.read_bytes(), db_between(self.wanted, had))


@dataclass(frozen=True, slots=True)
class _Without:
    """The batches of a stream but some; it can be gone through again and again, as the stream can."""

    stream: Iterable[Feeds]
    skipped: frozenset[int]

    def __iter__(self) -> Iterator[Feeds]:
        return (feeds for index, feeds in enumerate(self.stream) if index not in self.skipped)

    def __len__(self) -> int:
        return len(self.stream) - len(self.skipped) if isinstance(self.stream, Sized) else 0


def held_back(stream: Iterable[Feeds], spec: IOSpec) -> tuple[list[Feeds], Iterable[Feeds]]:
    """Every fourth batch, up to 128 samples, and the stream without them; all for both if there are fewer than four.

    Raises:
        EdgekitError: a batch does not fit `spec`.
    """
    judges: list[Feeds] = []
    first: list[Feeds] = []
    skipped: set[int] = set()
    for index, feeds in enumerate(stream):
        spec.check_feeds(feeds)
        if index % HELD_BACK != HELD_BACK - 1:
            first += [feeds] if index < HELD_BACK else []
            continue
        judges.append(feeds)
        skipped.add(index)
        if sum(map(samples_in, judges)) >= JUDGES:
            break
    return (judges, _Without(stream, frozenset(skipped))) if judges else (first, stream)


def sqnr_db(reference: Path, candidate: Path, batches: Sequence[Feeds], target: str = "any") -> float:
    """Signal to quantization noise over all outputs, in decibels; 200 where there is no noise.

    10 log10 of the power of the reference's outputs over the power of the difference; `candidate` is for `target`.
    """
    return db_between(outputs_of_file(reference, batches), outputs_of_file(candidate, batches, target))


def outputs_of_file(path: Path, batches: Sequence[Feeds], target: str = "any") -> list[np.ndarray]:
    """All outputs for all batches, one after the other, as a device of the kind `target` gives them.

    A file for another device than the CPU is run as it is written, without ONNX Runtime's optimizations for the CPU;
    one for another CPU without the instructions that would overflow here and not there.
    """
    optimize, config = target not in NO_CPU, exact_config(target)
    session = open_session(path, threads=0, optimize=optimize, config=config)
    return [array for feeds in batches for array in session.run(None, dict(feeds))]


def db_between(wanted: Sequence[np.ndarray], had: Sequence[np.ndarray]) -> float:
    """`sqnr_db` of arrays: of the floating-point ones, in pairs of one shape.

    >>> round(db_between([np.array([10.0, 0.0])], [np.array([10.0, 1.0])]))
    20
    """
    signal = noise = 0.0
    for want, have in zip(wanted, had, strict=True):
        if np.issubdtype(want.dtype, np.floating):
            signal += float((want.astype(np.float64) ** 2).sum())
            noise += float(((want.astype(np.float64) - have) ** 2).sum())
    # NaN first: the smaller of 200 and NaN would be 200.
    return 200.0 if noise == 0.0 else min(10 * float(np.log10(max(signal, 1e-300) / noise)), 200.0)
