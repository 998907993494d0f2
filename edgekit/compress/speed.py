"""How fast files are on the device: measured where that is this machine, else predicted from costs measured there."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from edgekit.compress.settings import Settings
from edgekit.device.costs import MeasuredCosts, load_costs
from edgekit.device.request import Timed, write_request
from edgekit.errors import EdgekitError
from edgekit.profiling import Piece, Prediction, error_of, graphs, pieces, predict
from edgekit.profiling.remote import time_graphs_on
from edgekit.progress import Progress
from edgekit.spec import Feeds
from edgekit.validate import latency_table

S_PER_GRAPH, LEAST_S = 0.4, 10.0
"""Seconds of timing on a host."""


class Here:
    """This machine is the device: files are timed against each other."""

    key: Mapping[str, Any] = {}
    predicts = False

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self.settings, self.progress = settings, progress

    def ms(self, files: Mapping[str, bytes], feeds: Feeds, *, time_s: float) -> dict[str, float]:
        """Milliseconds of one sample for each file, in one interleaved run.

        The first one is the baseline; the others are its median over their paired ratio, since each one's own median
        drifts with the machine, and so that files measured in different runs can be compared.
        """
        baseline = next(iter(files))
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
                time_s=time_s,
                seed=self.settings.seed,
                progress=self.progress,
            )
        base = timings[baseline].latency.p50.value
        return {name: base / timing.ratio.value for name, timing in timings.items()}

    def on_device(self, files: Mapping[str, bytes], feeds: Feeds) -> dict[str, dict[str, Any]]:
        """Nothing: what is measured here needs no prediction."""
        del files, feeds
        return {}


class Elsewhere:
    """The device is another machine: files are priced by what their pieces cost there.

    Pieces without costs are timed on `settings.host` over ssh; without a host they go into a request.

    Args:
        settings: name the file of costs, and the host.
        request: the file for a request.
        progress: told while the host times pieces.
    """

    predicts = True

    def __init__(self, settings: Settings, request: Path, progress: Progress) -> None:
        assert settings.costs is not None
        self.path, self.request, self.settings, self.progress = Path(settings.costs), request, settings, progress
        empty = MeasuredCosts(threads=settings.threads, provider="cpu", measured={})
        self.costs = load_costs(self.path) if self.path.is_file() or settings.host is None else empty
        if self.costs.threads != settings.threads:
            raise EdgekitError(
                f"measured with {self.costs.threads} thread(s)",
                where=str(self.path),
                rule=f"--threads {settings.threads}",
                way_out="measure them again with as many threads, or compress for as many",
            )

    @property
    def key(self) -> Mapping[str, Any]:
        """What stages that depend on the device are kept under: costs that are added later change none there are."""
        return {"costs": str(self.path.resolve()), "device": list(self.costs.device) if self.costs.conditions else []}

    def ms(self, files: Mapping[str, bytes], feeds: Feeds, *, time_s: float) -> dict[str, float]:
        """Predicted milliseconds of one sample for each file.

        Raises:
            EdgekitError: pieces have no costs, and there is no host to time them on.
        """
        del time_s
        return {name: found.us / 1e3 for name, (_, found) in self._predicted(files, feeds).items()}

    def on_device(self, files: Mapping[str, bytes], feeds: Feeds) -> dict[str, dict[str, Any]]:
        """For each file the predicted milliseconds with their interval, and the method's known median error."""
        return {
            name: {
                "ms": found.us / 1e3,
                "low": found.low / 1e3,
                "high": found.high / 1e3,
                "known_median_error": error_of(parts).median,
            }
            for name, (parts, found) in self._predicted(files, feeds).items()
        }

    def _predicted(self, files: Mapping[str, bytes], feeds: Feeds) -> dict[str, tuple[tuple[Piece, ...], Prediction]]:
        shapes = {name: array.shape for name, array in feeds.items()}
        parts = {name: pieces(onnx.load_from_string(data), shapes) for name, data in files.items()}
        wanted = graphs([piece for found in parts.values() for piece in found])
        self._time([each for each in wanted if each.key not in self.costs.measured])
        return {name: (found, predict(found, self.costs)) for name, found in parts.items()}

    def _time(self, missing: Sequence[Timed]) -> None:
        refused = [each for each in missing if each.key in self.costs.failed]
        if refused:
            raise EdgekitError(
                f"the device could not run {len(refused)} graph(s): {self.costs.failed[refused[0].key]}",
                where=str(self.path),
                rule="every operator of the network runs on the device",
                way_out="a newer onnxruntime there, or another network",
            )
        if not missing:
            return
        if self.settings.host is None:
            write_request(self.request, missing)
            raise EdgekitError(
                f"{len(missing)} pieces of the network and its pruned forms have no costs",
                where=str(self.path),
                rule="costs of every piece that is compared",
                way_out=f"on the device: python -m edgekit.device profile {self.request.name} --out {self.path.name}; "
                f"bring that file back and start the same command again (the request is {self.request})",
            )
        self.costs = time_graphs_on(
            self.settings.host,
            missing,
            keep=lambda costs: costs.save(self.path),
            known=self.costs if self.costs.measured else None,
            python=self.settings.python,
            threads=self.settings.threads,
            time_s=max(LEAST_S, S_PER_GRAPH * len(missing)),
            progress=self.progress,
        )


Speed = Here | Elsewhere


def speed_of(settings: Settings, root: Path, progress: Progress) -> Speed:
    """How latencies of a run in `root` are found out."""
    if settings.costs is None:
        return Here(settings, progress)
    return Elsewhere(settings, root / "missing.request", progress)
