"""Climbing the quantization ladder with what a workload has: its selection split judges, its train split teaches."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.compress.fitting import train_quantized
from edgekit.compress.settings import Settings
from edgekit.progress import Progress
from edgekit.quantize import Climbed, Judged, Quantized, climb
from edgekit.quantize.learning.training import Trainable
from edgekit.spec import Feeds, IOSpec
from edgekit.stats import Estimate
from edgekit.validate import Score, compare, score
from edgekit.validate.behaviour import Figures, Gates, figures_of
from edgekit.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """What climbing takes.

    Args:
        workload: its selection split judges files; the last rung distills from its model.
        reference: the fp32 original's score on the selection split.
        gates: that a file has to hold besides its drop.
        cautious: what of a drop counts: its value, or something above it.
        margin: standard errors that are added to the gates' figures, likewise.
        trains: whether there is a PyTorch model for the last rung.
        settings: threads, seed and how the last rung trains.
        progress: told all along.
    """

    workload: Workload
    reference: Score
    gates: Gates
    cautious: Callable[[Estimate], float]
    margin: float
    trains: bool
    settings: Settings
    progress: Progress

    def climb(
        self,
        first: Quantized,
        source: Path,
        feeds: Sequence[Feeds],
        folder: Path,
        *,
        enough: Callable[[float], bool],
        time_s: float,
    ) -> Climbed:
        """See `edgekit.quantize.climb`."""
        end = time.monotonic() + time_s

        def train(network: Trainable) -> Trainable:
            left_s = end - time.monotonic()
            return train_quantized(network, self.workload, self.settings, deadline_s=left_s, progress=self.progress)

        return climb(
            first,
            source,
            feeds,
            folder,
            judge=lambda path: self._judged(path, first.spec, first.plan.target),
            enough=enough,
            train=train if self.trains else None,
            time_s=time_s,
            seed=self.settings.seed,
            progress=self.progress,
        )

    def _judged(self, path: Path, spec: IOSpec, target: str) -> Judged:
        task = self.workload.task
        found = score_on_selection(self.workload, path, spec, self.settings, self.progress, target=target)
        figures = figures_of(self.reference, found, task, seed=self.settings.seed) if self.gates else Figures()
        drop = compare(found, self.reference, task).drop
        return Judged(self.gates.excess(figures, margin=self.margin), self.cautious(drop))


def score_on_selection(
    workload: Workload, path: Path, spec: IOSpec, settings: Settings, progress: Progress, *, target: str
) -> Score:
    """Score any file on the selection split in ONNX Runtime, as on the kind of CPU that it is for."""
    return score(
        path,
        workload.splits.selection,
        workload.task,
        spec=spec,
        target=target,
        threads=settings.threads,
        seed=settings.seed,
        progress=progress,
    )
