"""What a decision has to know of a file, from the selection split alone: the test split is for the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist

from edgekit.errors import EdgekitError
from edgekit.progress import Progress, silent
from edgekit.quantize import Judged
from edgekit.spec import IOSpec
from edgekit.stats import Estimate
from edgekit.validate.behaviour import Figures, Gates, figures_of
from edgekit.validate.scoring import Score, compare, score
from edgekit.workload import Workload

CONFIDENCE = 0.7
"""What a decision asks of the selection split: half a standard error between a drop and its limit. A whole one (0.84)
is a quarter of a point with 5,000 samples, and of a limit of half a point it leaves little to pruning."""


def margin_of(confidence: float) -> float:
    """Standard errors to keep between a figure and its limit, to be so sure (one-sided) that it is within.

    Raises:
        EdgekitError: the confidence is not in 0.5 to 1.

    >>> round(margin_of(0.95), 3)
    1.645
    """
    if not 0.5 <= confidence < 1:
        raise EdgekitError(
            f"got {confidence}",
            where="--confidence",
            rule="at least 0.5 and below 1",
            way_out="0.95 rests on what is 95 % sure; nothing that is measured on samples is wholly so",
        )
    return NormalDist().inv_cdf(confidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionJudge:
    """Scores files on a workload's selection split, and holds scores against limits on drop and behaviour.

    Args:
        workload: its selection split is what counts.
        max_drop: points of the metric that may be lost; None where any number may.
        gates: limits on what changes besides the metric's mean; one on robustness is not looked at.
        margin: standard errors that are added to the drop and to each gate's figure first.
        threads: of ONNX Runtime.
        seed: of bootstraps.
        progress: told while files are scored.
    """

    workload: Workload
    max_drop: float | None = None
    gates: Gates = field(default_factory=Gates)
    margin: float = 0.0
    threads: int = 1
    seed: int = 0
    progress: Progress = silent

    def score(self, path: Path, spec: IOSpec, *, target: str) -> Score:
        """Score a file in ONNX Runtime, as on the kind of CPU that it is for."""
        return score(
            path,
            self.workload.splits.selection,
            self.workload.task,
            spec=spec,
            target=target,
            threads=self.threads,
            seed=self.seed,
            progress=self.progress,
        )

    def changes(self, found: Score, reference: Score) -> Figures:
        """What the gates look at; nothing where there are none, since it takes its time."""
        if not self.gates.before_the_end:
            return Figures()
        return figures_of(reference, found, self.workload.task, seed=self.seed)

    def judged(self, found: Score, reference: Score) -> Judged:
        """By how much a score breaks the gates, and its drop, against a reference's on the same samples."""
        return self.of(compare(found, reference, self.workload.task).drop, self.changes(found, reference))

    def of(self, drop: Estimate, changes: Figures) -> Judged:
        """What `judged` says, of a drop and changes that are known already."""
        return Judged(
            excess=self.gates.before_the_end.excess(changes, margin=self.margin), drop=drop.raised(self.margin)
        )

    def of_files(self, spec: IOSpec, target: str, reference: Score) -> Callable[[Path], Judged]:
        """Scores and judges files with the inputs of `spec`, as `edgekit.quantize.climb` asks for it."""
        return lambda path: self.judged(self.score(path, spec, target=target), reference)

    def holds(self, judged: Judged) -> bool:
        """Whether a file that was judged so is within all limits."""
        return judged.excess <= 0 and (self.max_drop is None or judged.drop <= self.max_drop)
