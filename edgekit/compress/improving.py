"""Climbing the quantization ladder with what a workload has: its selection split judges, its train split teaches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.compress.fitting import train_quantized
from edgekit.compress.settings import Settings
from edgekit.progress import Progress
from edgekit.quantize import Climbed, Quantized, climb
from edgekit.quantize.learning.training import Trainable
from edgekit.spec import Feeds
from edgekit.validate import Score, SelectionJudge


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """What climbing takes.

    Args:
        judge: of files, by the workload's selection split; the last rung distills from the workload's model.
        reference: the fp32 original's score on the selection split.
        trains: whether there is a PyTorch model for the last rung.
        settings: how the last rung trains, and the seed.
        progress: told all along.
    """

    judge: SelectionJudge
    reference: Score
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
        time_s: float,
        known: Score | None = None,
    ) -> Climbed:
        """See `edgekit.quantize.climb`; `known` is the score of `first`, where it has been scored."""
        end = time.monotonic() + time_s

        def train(network: Trainable) -> Trainable:
            left_s = end - time.monotonic()
            workload = self.judge.workload
            return train_quantized(network, workload, self.settings, deadline_s=left_s, progress=self.progress)

        return climb(
            first,
            source,
            feeds,
            folder,
            judge=self.judge.of_files(first.spec, first.plan.target, self.reference),
            known=None if known is None else self.judge.judged(known, self.reference),
            enough=self.judge.holds,
            train=train if self.trains else None,
            time_s=time_s,
            seed=self.settings.seed,
            progress=self.progress,
        )
