"""From quick to thorough: the rungs of quantization, climbed only as far as the accuracy asks for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import QuantizeError
from edgekit.progress import Progress, silent
from edgekit.quantize.applying import apply_plan
from edgekit.quantize.calibration import first_samples
from edgekit.quantize.layout import place
from edgekit.quantize.plan import Quantized, QuantPlan
from edgekit.quantize.planning import corrected, prepared, static_nodes
from edgekit.quantize.quantize import read_back
from edgekit.quantize.sensitivity import Sensitivities, sensitivities
from edgekit.spec import Feeds
from edgekit.store import write_atomic

if TYPE_CHECKING:  # It needs torch, and a ladder that ends early does not.
    from edgekit.quantize.learning.training import Trainable

SENSITIVITY_SAMPLES = 64
POST_TRAINING, ROUNDING, MIXED, TRAINING = "post-training", "learned rounding", "mixed precision", "training"


@dataclass(frozen=True, slots=True, order=True)
class Judged:
    """What a file comes to on the selection split; of two files, the lesser is the better one.

    Args:
        excess: by how much it breaks other limits than that on the drop; 0 where it holds all of them.
        drop: points of the metric lost against the fp32 original.

    >>> Judged(0.0, 2.0) < Judged(0.1, 0.5) < Judged(0.1, 0.6)
    True
    """

    excess: float
    drop: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """What was tried, and what came of it.

    Args:
        name: `post-training`, `learned rounding`, `mixed precision` or `training`.
        drop: of the file on the selection split; None if none was made.
        gain: by how many points it beats the best one before; None for the first.
        seconds: that it took.
        kept: whether it is the best so far.
        note: what it did, or why it made nothing.
    """

    name: str
    drop: float | None
    gain: float | None
    seconds: float
    kept: bool
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Climbed:
    """The best file, and the way to it.

    Args:
        quantized: the file with its plan.
        source: the fp32 file that the plan belongs to: the original, or one with learned weights.
        judged: what it comes to on the selection split.
        rungs: in the order in which they were tried.
        sensitivity: of the layers, where it was measured.
    """

    quantized: Quantized
    source: Path
    judged: Judged
    rungs: tuple[Rung, ...]
    sensitivity: Sensitivities | None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "quantized": self.quantized.to_dict(),
            **asdict(self.judged),
            "rungs": [rung.to_dict() for rung in self.rungs],
            "sensitivity": None if self.sensitivity is None else self.sensitivity.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class _Best:
    source: Path
    plan: QuantPlan
    judged: Judged


def climb(
    first: Quantized,
    model: Path,
    calibration: Iterable[Feeds],
    folder: Path,
    *,
    judge: Callable[[Path], Judged],
    enough: Callable[[Judged], bool],
    known: Judged | None = None,
    train: Callable[[Trainable], Trainable] | None = None,
    time_s: float = float("inf"),
    rounding_steps: int = 400,
    seed: int = 0,
    progress: Progress = silent,
) -> Climbed:
    """Better a static int8 file, rung by rung, until it is good enough.

    1. learned rounding of weights (`edgekit.quantize.learning.rounding`);
    2. mixed precision: the layers that cost most accuracy for the microseconds they save go to fp32, one, two, four ...
       of them;
    3. training with quantized weights and activations, if `train` is given.

    The best file is kept all along: that which breaks other limits least, then that with the smallest drop. A rung that
    makes none better is undone; the next one starts from the best so far. Mixed precision costs time on the device,
    training costs time here: so training goes on from the plan before mixed precision, and whichever ends better is
    kept.

    Args:
        first: the file after post-training quantization, which is the lowest rung.
        model: the fp32 file that it was made of.
        calibration: batches of inputs; gone through several times.
        folder: for the files of the rungs; `quantized.onnx` is the best one.
        judge: scores a file on the selection split.
        enough: whether a file that was judged so holds all limits.
        known: what `judge` said of `first`, where it was asked before.
        train: trains what it is given, in the shared loop, and returns it or a trained copy.
        time_s: seconds; no rung begins after them, and learned rounding takes at most half of what is left.
        rounding_steps: of learned rounding, for each block.
        seed: of learned rounding.
        progress: told all along.

    Raises:
        StoreError: a file cannot be written.
    """
    batches: Iterable[Feeds] = list(calibration) if isinstance(calibration, Iterator) else calibration
    way = _Way(first, model, folder, judge=judge, enough=enough, known=known, time_s=time_s)
    measured: list[Sensitivities] = []

    def rounding() -> Tries:
        options = {"time_s": way.left_s / 2, "steps": rounding_steps, "seed": seed}
        return _rounded(way.best, batches, folder / "rounded.onnx", options, progress)

    def mixed() -> Tries:
        measured.append(sensitivities(way.best.source, way.best.plan, few, progress=progress))
        yield from _mixed(way.best, measured[0])

    few = first_samples(batches, SENSITIVITY_SAMPLES)
    way.go(ROUNDING, rounding)
    whole = way.best
    way.go(MIXED, mixed)
    if train is not None:
        way.go(TRAINING, lambda: _trained(whole, train, folder / "trained.onnx"))
    path, best = folder / "quantized.onnx", way.best
    if best.plan is first.plan:
        write_atomic(path, first.path.read_bytes())
    else:
        apply_plan(best.source, best.plan, path)
    return Climbed(
        quantized=read_back(best.source, best.plan, path, first.spec, few),
        source=best.source,
        judged=best.judged,
        rungs=tuple(way.rungs),
        sensitivity=measured[0] if measured else None,
    )


Tries = Iterator[tuple[Path, QuantPlan, str]]
"""Candidates of a rung: the fp32 file, the plan for it, and what was done, in words."""


class _Way:
    """The best so far, and how it came about."""

    def __init__(
        self,
        first: Quantized,
        model: Path,
        folder: Path,
        *,
        judge: Callable[[Path], Judged],
        enough: Callable[[Judged], bool],
        known: Judged | None,
        time_s: float,
    ) -> None:
        self.folder, self.judge, self.enough = folder, judge, enough
        self.end = time.monotonic() + time_s
        self.best = _Best(model, first.plan, judge(first.path) if known is None else known)
        self.rungs = [Rung(name=POST_TRAINING, drop=self.best.judged.drop, gain=None, seconds=0.0, kept=True)]

    @property
    def left_s(self) -> float:
        return self.end - time.monotonic()

    def go(self, name: str, tries: Callable[[], Tries]) -> None:
        """Try a rung's candidates until one is good enough, unless it is not needed or there is no time."""
        if self.enough(self.best.judged) or self.left_s <= 0 or self.best.plan.scheme != "static":
            return
        since, before = time.monotonic(), self.best.judged
        least, note = None, ""
        try:
            for source, plan, what in tries():
                found = self._scored(source, plan)
                if least is None or found < least:
                    least, note = found, what
                if self.enough(found) or self.left_s <= 0:
                    break
        except QuantizeError as error:
            note = f"not possible: {error.problem}"
        note = note or ("" if least is not None else "nothing to try")
        self.rungs.append(
            Rung(
                name=name,
                drop=None if least is None else least.drop,
                gain=None if least is None else before.drop - least.drop,
                seconds=time.monotonic() - since,
                kept=self.best.judged < before,
                note=note,
            )
        )

    def _scored(self, source: Path, plan: QuantPlan) -> Judged:
        path = self.folder / "candidate.onnx"
        apply_plan(source, plan, path)
        found = self.judge(path)
        path.unlink()
        if found < self.best.judged:
            self.best = _Best(source, plan, found)
        return found


def _rounded(
    start: _Best, batches: Iterable[Feeds], source: Path, options: Mapping[str, Any], progress: Progress
) -> Tries:
    from edgekit.quantize.learning.rounding import learn_rounding

    plan = learn_rounding(start.source, start.plan, batches, source, **options, progress=progress)
    yield source, plan, "weights rounded block by block"
    yield source, corrected(source, plan, batches, progress), "weights rounded block by block, biases corrected"


def _trained(start: _Best, train: Callable[[Trainable], Trainable], source: Path) -> Tries:
    from edgekit.quantize.learning.training import harvest, trainable

    done = train(trainable(start.source, start.plan))
    yield source, harvest(start.source, start.plan, done, source), "weights, biases and scales trained"


def _mixed(start: _Best, measured: Sensitivities) -> Tries:
    graph = prepared(start.source, start.plan).graph
    order = [layer for layer in measured.worst_first if layer.without < measured.error]
    static = static_nodes(graph, start.plan)
    asked = {str(node.name) for node in graph} - set(start.plan.nodes)
    counts = [2**power for power in range(len(order).bit_length()) if 2**power < len(order)]
    for count in [*counts, len(order)] if order else []:
        kept = {name for layer in order[:count] for name in layer.moved}
        placement = place(graph, start.plan.target, keep_float={*asked, *kept})
        if not placement.nodes & static:
            return
        gone = static - placement.nodes
        plan = start.plan.restricted(set(start.plan.nodes) - gone, "int8 costs too much accuracy here")
        yield start.source, plan, f"in fp32: {_listed([layer.node for layer in order[:count]])}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
