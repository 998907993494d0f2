"""One compression on its way: where its stages are kept, and how much of its time they have taken."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgekit.progress import Progress
from edgekit.store import Store, write_json

SECONDS = "seconds.json"


class Run:
    """Builds stages in a store and keeps the account of their time.

    The account is the sum of what each finished stage took when it was made, not the time since this process began. So a
    run that was killed and started again takes the same decisions that depend on the time left.
    """

    def __init__(
        self,
        store: Store,
        *,
        identity: Mapping[str, Any],
        time_s: float,
        progress: Progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.progress = progress
        self.seconds: dict[str, float] = {}
        self._store, self._identity, self._time_s, self._clock = store, dict(identity), time_s, clock

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
    def left_s(self) -> float:
        """Seconds of the time budget that no stage has taken yet."""
        return self._time_s - sum(self.seconds.values())
