"""One compression on its way: where its stages are kept, and how much of its time they have taken."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgekit.compress.budget import Budget
from edgekit.compress.settings import Settings
from edgekit.compress.speed import speed_of
from edgekit.progress import Progress
from edgekit.store import Store, code_digest, write_json
from edgekit.validate import SelectionJudge
from edgekit.workload import Workload, digest_of

SECONDS = "seconds.json"


class Run:
    """What was asked, the stages that were built for it, and the account of their time.

    The account is the sum of what each finished stage took when it was made, not the time since this process began. So
    a run that was killed and started again takes the same decisions that depend on the time left.
    """

    def __init__(
        self,
        store: Store,
        workload: Workload,
        budget: Budget,
        settings: Settings,
        *,
        progress: Progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.workload, self.budget, self.progress = workload, budget, progress
        self.speed = speed_of(settings, store.root.parent, progress)
        self.model = workload.model()
        self.settings = settings.suited_to(self.model).suited_to_data(workload, self.model)
        self.splits = workload.splits.digests()
        self.seconds: dict[str, float] = {}
        self._store, self._clock = store, clock
        self._identity = {
            "code": code_digest(),
            "model": digest_of(self.model),
            "splits": self.splits,
            "task": workload.task.name,
            "dynamic": {name: list(axes.items()) for name, axes in workload.dynamic.items()},
            "seed": settings.seed,
            "threads": settings.threads,
        }

    def stage(self, stage: str, key: Mapping[str, Any], make: Callable[[Path], float | None]) -> Path:
        """The folder of a stage, made by `make(folder)` unless an earlier process has finished it.

        `make` may return the seconds that the stage took over several processes (a resumed training knows them).
        """

        def timed(folder: Path) -> None:
            begin = self._clock()
            known = make(folder)
            write_json(folder / SECONDS, max(self._clock() - begin, known or 0.0))

        folder = self._store.build(stage, {**self._identity, "stage": stage, "inputs": dict(key)}, timed)
        self.seconds[stage] = float(json.loads((folder / SECONDS).read_text()))
        return folder

    @property
    def judge(self) -> SelectionJudge:
        """What says of a file whether it holds the budget's drop and gates, with the margin of a decision."""
        return SelectionJudge(
            workload=self.workload,
            max_drop=self.budget.max_drop,
            gates=self.budget.gates,
            margin=self.budget.margin,
            threads=self.settings.threads,
            seed=self.settings.seed,
            progress=self.progress,
        )

    @property
    def left_s(self) -> float:
        """Seconds of the time budget that no stage has taken yet."""
        return self.budget.time_s - sum(self.seconds.values())
