"""What networks take before any training: latency and size of their int8 files, measured here or told by costs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from edgekit.choices import choosing
from edgekit.device.environment import processor
from edgekit.errors import EdgekitError, QuantizeError
from edgekit.export import mac_count, parameter_count
from edgekit.profiling.book import CostBook
from edgekit.progress import Step
from edgekit.quantize import quantize
from edgekit.search.asked import Asked, Values
from edgekit.spec import IOSpec
from edgekit.store import write_json
from edgekit.validate import Timing, calibration_feeds, latency_table
from edgekit.workload import isolated, load_callable

SPEED_CALIBRATION = 32
MEASURE_S = 1.5
"""Seconds of timing for a network before it is trained, beside the baseline in the same rounds."""
PRICED_SAMPLE = 24
"""Networks at most that are looked at for pieces which have no costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What is known of a network before it is trained: latency and size of its int8 file (fp32 if nothing quantizes).

    `latency_ms` is the baseline's on the host where the search began over the ratio that was measured here; or what the
    costs of a device say. Where a function of the user's predicts it, no file is made, and `size_bytes` is a byte for
    each parameter.
    """

    latency_ms: float
    size_bytes: int
    parameters: int
    macs: int


class Speeds:
    """Latencies and sizes of a search's networks.

    Args:
        asked: what the search was asked for.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked, self.settings, self.workload = asked, asked.settings, asked.workload
        self.book = self._opened_book()

    def baseline(self) -> tuple[Path, float]:
        """The fp32 file that latencies are measured against (the teacher's, or the default network's), and its ms."""

        def make(folder: Path) -> None:
            exported = self.asked.exported(self._baseline_model(), folder / "baseline.onnx")
            if self.book is not None:
                found = self.predicted_ms({"baseline": exported.path}, exported.spec)["baseline"]
            else:
                found = self._timed({"baseline": exported.path}, exported.spec)["baseline"].latency.p50.value
            write_json(folder / "baseline.json", found)

        folder = self.asked.common_stage("baseline", self._device_key, make)
        measured = float(json.loads((folder / "baseline.json").read_text()))
        return folder / "baseline.onnx", self.asked.baseline_ms or measured

    def of(self, values: Values) -> Speed:
        """Latency and size of a network, found before any training."""
        settings = self.settings
        if settings.latency is not None:
            network = self.asked.network(values)
            parameters = parameter_count(network)
            return Speed(
                latency_ms=float(load_callable(self.asked.config.resolved(settings.latency))(network)),
                size_bytes=parameters,  # one byte for each, in int8
                parameters=parameters,
                macs=mac_count(network, self.workload.example(2)),
            )
        baseline, baseline_ms = self.baseline()

        def make(folder: Path) -> None:
            with tempfile.TemporaryDirectory(prefix="edgekit-search-") as temporary:
                exported = self.asked.exported(self.asked.network(values), Path(temporary) / "float.onnx")
                path = self._quickly_quantized(exported.path, exported.spec, Path(temporary) / "int8.onnx")
                if self.book is not None:
                    # A finalist's fp32 file may be on the front, too: what it lacks is found out before it is trained.
                    found = self.predicted_ms({"float": exported.path, "network": path}, exported.spec)
                    latency_ms = found["network"]
                else:
                    timings = self._timed({"baseline": baseline, "network": path}, exported.spec)
                    # By the paired ratio: each file's own median drifts with the machine.
                    latency_ms = baseline_ms / timings["network"].ratio.value
                speed = Speed(
                    latency_ms=latency_ms,
                    size_bytes=path.stat().st_size,
                    parameters=exported.parameters,
                    macs=exported.macs,
                )
            write_json(folder / "speed.json", asdict(speed))

        folder = self.asked.stage(
            "speed", {"choices": dict(values), "baseline_ms": baseline_ms, **self._device_key}, make
        )
        return Speed(**json.loads((folder / "speed.json").read_text()))

    def predicted_ms(self, files: Mapping[str, Path], spec: IOSpec) -> dict[str, float]:
        """What each file takes for one sample on the device that `settings.costs` is about.

        Raises:
            EdgekitError: pieces have no costs, and there is no host to time them on.
        """
        assert self.book is not None
        (feeds,) = calibration_feeds(self.workload, spec, 1)
        shapes = {name: array.shape for name, array in feeds.items()}
        found = self.book.predicted({name: path.read_bytes() for name, path in files.items()}, shapes)
        return {name: prediction.us / 1e3 for name, (_, prediction) in found.items()}

    def ask_for_costs(self) -> None:
        """See to it that the costs hold what networks of this space are made of, as far as a sample of them tells.

        Without a host, one request for all is less trouble than one for each trial.

        Raises:
            EdgekitError: pieces have no costs; the text says where the request is.
        """
        if self.book is None or self.settings.host is not None:
            return
        sample = self._sample(min(self.settings.trials, PRICED_SAMPLE))

        def make(to: Path) -> None:
            with tempfile.TemporaryDirectory(prefix="edgekit-search-") as temporary:
                self._price(sample, Path(temporary))
            write_json(to / "priced.json", sample)

        self.asked.stage("price", {"sample": sample, **self._device_key}, make)

    def _price(self, sample: Sequence[Values], folder: Path) -> None:
        exported = self.asked.exported(self._baseline_model(), folder / "baseline.onnx")
        files, spec = {"baseline": exported.path}, exported.spec
        for done, values in enumerate(sample):
            self.asked.progress(Step("networks to be priced", done, len(sample)))
            # A network that cannot be built or exported is a trial's answer.
            with suppress(EdgekitError):
                exported = self.asked.exported(self.asked.network(values), folder / f"{done}-float.onnx")
                files[f"{done}-float"] = exported.path
                files[f"{done}"] = self._quickly_quantized(exported.path, exported.spec, folder / f"{done}.onnx")
        self.asked.progress(Step("networks to be priced", len(sample), len(sample)))
        self.predicted_ms(files, spec)

    def _sample(self, count: int) -> list[Values]:
        """The default network's choices and others that are drawn, each once."""
        draw, found = np.random.default_rng(self.settings.seed), list[Values]([self.asked.default])
        for _ in range(count):
            with (
                choosing(lambda asked: int(draw.integers(len(asked.options)))) as made,
                isolated(self.settings.seed),
            ):
                self.workload.model()
            if made.values not in found:
                found.append(made.values)
        return found

    def _baseline_model(self) -> nn.Module:
        return self.asked.teacher if self.asked.teacher is not None else self.asked.network(self.asked.default)

    def _opened_book(self) -> CostBook | None:
        settings = self.settings
        if settings.costs is None:
            return None
        return CostBook(
            Path(settings.costs),
            threads=settings.threads,
            request=self.asked.root / "missing.request",
            host=settings.host,
            python=settings.python,
            progress=self.asked.progress,
        )

    @property
    def _device_key(self) -> dict[str, Any]:
        return {"processor": processor()} if self.book is None else dict(self.book.key)

    def _timed(self, files: Mapping[str, Path], spec: IOSpec) -> dict[str, Timing]:
        (feeds,) = calibration_feeds(self.workload, spec, 1)
        return latency_table(
            files,
            feeds,
            baseline="baseline",
            threads=self.settings.threads,
            time_s=MEASURE_S,
            seed=self.settings.seed,
            progress=self.asked.progress,
        )

    def _quickly_quantized(self, path: Path, spec: IOSpec, to: Path) -> Path:
        """An int8 file to be timed; ranges do not change the speed, so the cheapest will do."""
        try:
            return quantize(
                path,
                list(calibration_feeds(self.workload, spec, SPEED_CALIBRATION)),
                to,
                spec=spec,
                target=self.settings.target,
                ranges="minmax",
                weights="max",
                equalization=False,
                bias_correction=False,
                placement="rules",
                threads=self.settings.threads,
            ).path
        except QuantizeError:
            return path
