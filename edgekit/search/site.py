"""A search as one process sees it: what was asked, and what is measured and trained for it in the run's folder."""

from __future__ import annotations

from pathlib import Path

from edgekit.progress import Progress, silent
from edgekit.search.asked import Asked
from edgekit.search.settings import SearchSettings
from edgekit.search.speeds import Speeds
from edgekit.search.trainings import Trainings
from edgekit.workload import WorkloadConfig


class Site(Asked):
    """What was asked, with the speeds and the trainings of its networks on this host.

    Args:
        config: as for `Asked`.
        settings: likewise.
        root: likewise.
        baseline_ms: of the baseline's file where the search began; None measures it.
        progress: told all along.

    Raises:
        WorkloadError: a reference is wrong, or what it names does not fit the data.
    """

    def __init__(
        self,
        config: WorkloadConfig,
        settings: SearchSettings,
        root: Path,
        *,
        baseline_ms: float | None = None,
        progress: Progress = silent,
    ) -> None:
        super().__init__(config, settings, root, progress=progress)
        self.speeds = Speeds(self, baseline_ms=baseline_ms)
        self.trainings = Trainings(self)
