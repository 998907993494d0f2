"""How fast files are on the device: measured where that is this machine, else predicted from costs measured there."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.compress.settings import Settings
from edgekit.device.environment import processor
from edgekit.profiling import error_of
from edgekit.profiling.book import CostBook
from edgekit.progress import Progress, silent
from edgekit.spec import Feeds
from edgekit.validate import latency_table

WARMUP_SHARE, LONGEST_WARMUP_S = 0.25, 0.2
"""Of the time for a measurement, for warming its files up; a file needs no more than so many seconds."""


class Here:
    """This machine is the device: files are timed against each other."""

    predicts = False

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self.settings, self.progress = settings, progress

    @property
    def key(self) -> Mapping[str, Any]:
        """What stages that depend on the device are kept under: a run that moves to another machine measures again."""
        return {"processor": processor()}

    def ms(self, files: Mapping[str, bytes], feeds: Feeds, *, time_s: float, tell: bool = True) -> dict[str, float]:
        """Milliseconds of one sample for each file, in one interleaved run, whose progress is told or not.

        The first one is the baseline; the others are its median over their paired ratio, since each one's own median
        drifts with the machine, and so that files measured in different runs can be compared. `time_s` is for all
        of it, warming up included.
        """
        baseline = next(iter(files))
        warmup_s = min(WARMUP_SHARE * time_s / len(files), LONGEST_WARMUP_S)
        with tempfile.TemporaryDirectory(prefix="edgekit-speed-") as folder:
            paths = {}
            for index, (name, data) in enumerate(files.items()):
                paths[name] = Path(folder) / f"{index}.onnx"
                paths[name].write_bytes(data)
            timings = latency_table(
                paths,
                feeds,
                baseline=baseline,
                threads=self.settings.threads,
                time_s=time_s - warmup_s * len(files),
                warmup_s=warmup_s,
                seed=self.settings.seed,
                progress=self.progress if tell else silent,
            )
        base = timings[baseline].latency.p50.value
        return {name: base / timing.ratio.value for name, timing in timings.items()}

    def on_device(self, files: Mapping[str, bytes], feeds: Feeds) -> dict[str, dict[str, Any]]:
        """Nothing: what is measured here needs no prediction."""
        del files, feeds
        return {}


class Elsewhere:
    """The device is another machine: files are priced by what their pieces cost there.

    Args:
        settings: name the file of costs, and the host.
        request: the file for a request.
        progress: told while the host times pieces.
    """

    predicts = True

    def __init__(self, settings: Settings, request: Path, progress: Progress) -> None:
        assert settings.costs is not None
        self.book = CostBook(
            Path(settings.costs),
            threads=settings.threads,
            request=request,
            host=settings.host,
            python=settings.python,
            progress=progress,
        )

    @property
    def key(self) -> Mapping[str, Any]:
        """What stages that depend on the device are kept under: costs that are added later change none there are."""
        return self.book.key

    def ms(self, files: Mapping[str, bytes], feeds: Feeds, *, time_s: float, tell: bool = True) -> dict[str, float]:
        """Predicted milliseconds of one sample for each file.

        Raises:
            EdgekitError: pieces have no costs, and there is no host to time them on.
        """
        del time_s, tell
        return {name: found.us / 1e3 for name, (_, found) in self.book.predicted(files, _shapes(feeds)).items()}

    def on_device(self, files: Mapping[str, bytes], feeds: Feeds) -> dict[str, dict[str, Any]]:
        """For each file the predicted milliseconds with their interval, and the method's known median error."""
        return {
            name: {
                "ms": found.us / 1e3,
                "low": found.low / 1e3,
                "high": found.high / 1e3,
                "known_median_error": error_of(parts).median,
            }
            for name, (parts, found) in self.book.predicted(files, _shapes(feeds)).items()
        }


def _shapes(feeds: Feeds) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in feeds.items()}


Speed = Here | Elsewhere


def speed_of(settings: Settings, root: Path, progress: Progress) -> Speed:
    """How latencies of a run in `root` are found out."""
    if settings.costs is None:
        return Here(settings, progress)
    return Elsewhere(settings, root / "missing.request", progress)
