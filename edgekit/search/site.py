"""A search as one process sees it: what was asked, and the stages of its networks in the run's folder."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from edgekit.choices import Option, choosing, replaying
from edgekit.device.environment import processor
from edgekit.distill import DistillConfig, Teacher, distill, reestimate_batchnorm
from edgekit.errors import EdgekitError, QuantizeError, TrainingError, WorkloadError
from edgekit.export import Exported, export, mac_count, parameter_count
from edgekit.export.flat import name_inputs
from edgekit.profiling.book import CostBook
from edgekit.progress import Progress, Step, silent
from edgekit.quantize import quantize
from edgekit.search.computing import Computing
from edgekit.search.settings import SearchSettings
from edgekit.search.teaching import files_in, make_files
from edgekit.search.warm import warm_start
from edgekit.spec import IOSpec
from edgekit.store import Store, code_digest, key_digest, locking, write_json
from edgekit.training import FitConfig, FitResult, augmentation_for, augmented, fit, suited
from edgekit.transfer import Teaching, fastest_teacher, files_may_teach
from edgekit.validate import Score, SelectionJudge, Timing, calibration_feeds, latency_table, score_torch
from edgekit.workload import (
    Batch,
    Workload,
    WorkloadConfig,
    derive,
    digest_of,
    isolated,
    load_callable,
    load_model,
    load_workload,
    loader,
    try_out,
)

WEIGHTS, TEACHING = "weights.safetensors", "teaching.json"
SPEED_CALIBRATION = 32
MEASURE_S = 1.5
"""Seconds of timing for a network before it is trained, beside the baseline in the same rounds."""
PRICED_SAMPLE = 24
"""Networks at most that are looked at for pieces which have no costs."""
NORM_BATCH, NORM_SAMPLES = 128, 512
FULL = "full"
Values = Mapping[str, Option]


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


class Site:
    """The stages of a search on this host.

    Args:
        config: the builder (its `model`), the data and the task, as text.
        settings: the search's.
        root: the run's folder; workers that share it share what they have made.
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
        self.config, self.settings, self.root, self.progress = config, settings, root, progress
        with isolated(settings.seed):
            self.workload = load_workload(config)
        if self.workload.task.target_is_reference:
            raise WorkloadError(
                f"the task {self.workload.task.name} takes the original model's answers for targets",
                where="task",
                rule="a search trains new networks: there is no original model",
                way_out="give data with labels",
            )
        self.teacher = self._given(settings.teacher)
        if settings.teacher is not None:
            try_out(self._as_model(settings.teacher))
        given = self._given(settings.weights)
        self.weights = None if given is None else given.state_dict()
        self.default = self._default_values()
        self.augment = augmentation_for(
            settings.augment,
            self.workload.splits.train,
            task=self.workload.task,
            model=self.network(self.default),
            seed=settings.seed,
        )
        self.book = self._opened_book()
        self._store = Store(root / "stages")
        self._taught: Teacher | None = None
        self._computing = Computing(self.workload.example(2))
        self._baseline_ms = baseline_ms
        self._identity = {
            "code": code_digest(),
            "settings": settings.of_a_network(),
            "builder": self._source(config.model),
            "splits": self.workload.splits.digests(),
            "task": self.workload.task.name,
            "teacher": None if self.teacher is None else digest_of(self.teacher),
            "weights": None if given is None else digest_of(given),
        }

    @property
    def identity(self) -> str:
        """A digest of all that decides what a trial comes to."""
        return key_digest({**self._identity, "settings": self.settings.of_a_trial()})

    @property
    def judge(self) -> SelectionJudge:
        """What says of a file whether it is within the limits on drop and behaviour."""
        settings = self.settings
        return SelectionJudge(
            workload=self.workload,
            max_drop=settings.max_drop,
            gates=settings.gates,
            threads=settings.threads,
            seed=settings.seed,
            progress=self.progress,
        )

    def network(self, values: Values) -> nn.Module:
        """The untrained network of these choices, the same in every process, with given weights where they fit."""
        with choosing(replaying(values)):
            return self.build()

    def build(self) -> nn.Module:
        """What the builder makes under the choices in force, seeded."""
        with isolated(derive(self.settings.seed, 7)):
            made = self.workload.model()
        return made if self.weights is None else warm_start(made, self.weights).model

    def stage(self, name: str, key: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """The folder of a stage, made unless it is there."""
        return self._store.build(name, {**self._identity, "stage": name, "inputs": dict(key)}, make)

    def common_stage(self, name: str, key: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """As `stage`, for what all workers need: those that share this folder wait for the one that makes it."""
        with locking(self.root / "claims" / f"{name}.lock", wait=True):
            return self.stage(name, key, make)

    def claimed(self, values: Values) -> AbstractContextManager[bool]:
        """Whether no other worker that shares this folder is at work on the network; it is claimed within this."""
        return locking(self.root / "claims" / f"{key_digest(dict(values))[:16]}.lock")

    @functools.cached_property
    def input_names(self) -> list[str]:
        """The inputs of all files are called as the default network calls them, so that all can be fed alike."""
        return list(name_inputs(self.network(self.default), self.workload.example(2)))

    # Speed

    def baseline(self) -> tuple[Path, float]:
        """The fp32 file that latencies are measured against (the teacher's, or the default network's), and its ms."""

        def make(folder: Path) -> None:
            exported = self._exported(self._baseline_model(), folder / "baseline.onnx")
            if self.book is not None:
                found = self.predicted_ms({"baseline": exported.path}, exported.spec)["baseline"]
            else:
                found = self._timed({"baseline": exported.path}, exported.spec)["baseline"].latency.p50.value
            write_json(folder / "baseline.json", found)

        folder = self.common_stage("baseline", self._device_key, make)
        measured = float(json.loads((folder / "baseline.json").read_text()))
        return folder / "baseline.onnx", self._baseline_ms or measured

    def speed(self, values: Values) -> Speed:
        """Latency and size of a network, found before any training."""
        settings = self.settings
        if settings.latency is not None:
            network = self.network(values)
            parameters = parameter_count(network)
            return Speed(
                latency_ms=float(load_callable(self.config.resolved(settings.latency))(network)),
                size_bytes=parameters,  # one byte for each, in int8
                parameters=parameters,
                macs=mac_count(network, self.workload.example(2)),
            )
        baseline, baseline_ms = self.baseline()

        def make(folder: Path) -> None:
            with tempfile.TemporaryDirectory(prefix="edgekit-search-") as temporary:
                exported = self._exported(self.network(values), Path(temporary) / "float.onnx")
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

        folder = self.stage("speed", {"choices": dict(values), "baseline_ms": baseline_ms, **self._device_key}, make)
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

        self.stage("price", {"sample": sample, **self._device_key}, make)

    def _price(self, sample: Sequence[Values], folder: Path) -> None:
        exported = self._exported(self._baseline_model(), folder / "baseline.onnx")
        files, spec = {"baseline": exported.path}, exported.spec
        for done, values in enumerate(sample):
            self.progress(Step("networks to be priced", done, len(sample)))
            # A network that cannot be built or exported is a trial's answer.
            with suppress(EdgekitError):
                exported = self._exported(self.network(values), folder / f"{done}-float.onnx")
                files[f"{done}-float"] = exported.path
                files[f"{done}"] = self._quickly_quantized(exported.path, exported.spec, folder / f"{done}.onnx")
        self.progress(Step("networks to be priced", len(sample), len(sample)))
        self.predicted_ms(files, spec)

    def _sample(self, count: int) -> list[Values]:
        """The default network's choices and others that are drawn, each once."""
        draw, found = np.random.default_rng(self.settings.seed), list[Values]([self.default])
        for _ in range(count):
            with choosing(lambda asked: int(draw.integers(len(asked.options)))) as made, isolated(self.settings.seed):
                self.workload.model()
            if made.values not in found:
                found.append(made.values)
        return found

    # Accuracy

    def trained(self, values: Values, rung: int | str, *, deadline_s: float | None = None) -> Path:
        """The folder with a network's weights and selection score after a rung, or after its full training.

        Each rung goes on from the weights of the one before. `deadline_s` shortens a full training.
        """
        last = len(self.settings.short) - 1
        before: Path | None = None
        if rung == FULL:
            before = self.trained(values, last)
        elif isinstance(rung, int) and rung:
            before = self.trained(values, rung - 1)

        def make(folder: Path) -> None:
            if self.settings.ranks > 1 and self._epochs(rung) > 0:
                self._on_ranks(values, rung, before, folder, deadline_s)
            else:
                self.train(values, rung, before, folder, deadline_s=deadline_s)

        rungs = list(range(last + 1)) if rung == FULL else list(range(int(rung)))
        key = {"choices": dict(values), "rung": rung, "epochs": [self._epochs(each) for each in (*rungs, rung)]}
        return self.stage(f"train-{rung}", key, make)

    def train(
        self, values: Values, rung: int | str, before: Path | None, folder: Path, *, deadline_s: float | None = None
    ) -> None:
        """Make the content of a `trained` folder in this process, or as one of the ranks of torchrun."""
        network = self.network(values) if before is None else self.with_weights(values, before)
        epochs = self._epochs(rung)
        seconds = 0.0
        if epochs:
            result = self._fitted(network, rung, epochs, folder, deadline_s)
            network, seconds = result.model, result.seconds
        else:
            norms = loader(
                self.workload.splits.calibration,
                NORM_BATCH,
                model=network,
                seed=self.settings.seed,
                limit=NORM_SAMPLES,
                drop_last=True,
            )
            network = reestimate_batchnorm(network, norms)
        if torch.distributed.is_initialized() and torch.distributed.get_rank():
            return
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / WEIGHTS)
        self.scored(network).save(folder)
        write_json(folder / "trained.json", {"choices": dict(values), "epochs": epochs, "seconds": seconds})
        (folder / "checkpoint.pt").unlink(missing_ok=True)

    def with_weights(self, values: Values, folder: Path) -> nn.Module:
        """The network of these choices with the weights that `trained` left in `folder`."""
        network = self.network(values)
        network.load_state_dict(load_file(folder / WEIGHTS))
        return network.eval()

    def scored(self, network: nn.Module) -> Score:
        """Score a network in PyTorch on the selection split."""
        return score_torch(
            network,
            self.workload.splits.selection,
            self.workload.task,
            seed=self.settings.seed,
            progress=self.progress,
        )

    def reference(self, rung: int | str) -> Score:
        """What drops refer to: the teacher's score, or the default network's after as much training."""
        if self.teacher is None:
            return Score.load(self.trained(self.default, rung))
        teacher = self.teacher
        return Score.load(self.common_stage("teacher-score", {}, lambda folder: self.scored(teacher).save(folder)))

    def who_teaches(self) -> Teacher:
        """The teacher, or a file of it that answers its trainings faster and as well; measured once on a processor.

        Ranks of torchrun, and GPUs, ask the teacher itself.
        """
        assert self.teacher is not None
        if self._taught is None:
            self._taught = self.teacher
            if self.settings.ranks == 1 and files_may_teach():
                self._taught = self._fastest(self.teacher)
        return self._taught

    def _fastest(self, teacher: nn.Module) -> Teacher:
        example, settings = self.workload.example(2), self.settings

        def make(folder: Path) -> None:
            make_files(folder, lambda path: self._exported(teacher, path), self.workload, settings)
            files, student = files_in(folder, settings), self.network(self.default)
            if not files:
                return
            found = fastest_teacher(
                teacher,
                files,
                student=student,
                train=augmented(self.workload.splits.train, self.augment),
                task=self.workload.task,
                config=DistillConfig(fit=self._fit_config(student, 0)),
                example=example,
            )
            write_json(folder / TEACHING, found.to_dict())

        folder = self.common_stage("teaching", {"processor": processor()}, make)
        if not (folder / TEACHING).is_file():
            return teacher
        about = json.loads((folder / TEACHING).read_text())
        return Teaching.from_dict(about, teacher, files_in(folder, settings), example).teacher

    def _fitted(
        self, network: nn.Module, rung: int | str, epochs: float, folder: Path, deadline_s: float | None
    ) -> FitResult:
        task, config = self.workload.task, replace(self._fit_config(network, rung), epochs=epochs)

        def objective(model: nn.Module, batch: Batch) -> torch.Tensor:
            return task.loss(batch.call(model), batch.target)

        def told(step: Step) -> None:
            self.progress(replace(step, work="full training" if rung == FULL else f"short training {int(rung) + 1}"))

        common: dict[str, Any] = {
            "checkpoint": folder / "checkpoint.pt",
            "progress": told,
            "deadline_s": deadline_s,
            "like": self._computing.like(network),
        }
        train = augmented(self.workload.splits.train, self.augment)
        if self.teacher is None:
            result = fit(network, train, objective, config, **common)
        else:
            result = distill(network, self.who_teaches(), train, task, DistillConfig(fit=config), **common)
        self._computing.keep(network, result.choice)
        return result

    def _fit_config(self, network: nn.Module, rung: int | str) -> FitConfig:
        """How a rung trains; for how long is its own matter."""
        settings = self.settings
        optimizer, rate = suited(network, settings.optimizer, settings.learning_rate)
        return FitConfig(
            epochs=1,
            learning_rate=rate,
            optimizer=optimizer,
            batch_size=settings.batch_size,
            seed=derive(settings.seed, 8, 99 if rung == FULL else int(rung)) % 2**31,
        )

    def _on_ranks(
        self, values: Values, rung: int | str, before: Path | None, folder: Path, deadline_s: float | None
    ) -> None:
        """Have torchrun's processes do what `train` does."""
        job = {
            "workload": self.config.to_dict(),
            "settings": self.settings.to_dict(),
            "root": str(self.root.resolve()),
            "choices": dict(values),
            "rung": rung,
            "before": None if before is None else str(before.resolve()),
            "folder": str(folder.resolve()),
            "deadline_s": deadline_s,
        }
        with tempfile.TemporaryDirectory(prefix="edgekit-ranks-") as temporary:
            path = Path(temporary) / "job.json"
            write_json(path, job)
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
            words = [*torchrun, "--nproc-per-node", str(self.settings.ranks), "-m", "edgekit.search.ranks", str(path)]
            done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 - words of our own
        if done.returncode:
            raise TrainingError(
                f"torchrun ended with {done.returncode}: {_last_line(done.stderr)}",
                where=f"--ranks {self.settings.ranks}",
                rule="all ranks train to the end",
                way_out="run the search with --ranks 1 to see the fault in one process",
            )

    def _epochs(self, rung: int | str) -> float:
        """Epochs that this rung itself adds."""
        if rung == FULL:
            return self.settings.epochs
        done = self.settings.short
        return done[int(rung)] - (done[int(rung) - 1] if rung else 0.0)

    # Small things

    def _baseline_model(self) -> nn.Module:
        return self.teacher if self.teacher is not None else self.network(self.default)

    def _opened_book(self) -> CostBook | None:
        settings = self.settings
        if settings.costs is None:
            return None
        return CostBook(
            Path(settings.costs),
            threads=settings.threads,
            request=self.root / "missing.request",
            host=settings.host,
            python=settings.python,
            progress=self.progress,
        )

    @property
    def _device_key(self) -> dict[str, Any]:
        return {"processor": processor()} if self.book is None else dict(self.book.key)

    def _exported(self, model: nn.Module, path: Path) -> Exported:
        return export(
            model,
            self.workload.example(2),
            path,
            dynamic=self.workload.dynamic or "batch",
            input_names=self.input_names,
        )

    def _timed(self, files: Mapping[str, Path], spec: IOSpec) -> dict[str, Timing]:
        (feeds,) = calibration_feeds(self.workload, spec, 1)
        return latency_table(
            files,
            feeds,
            baseline="baseline",
            threads=self.settings.threads,
            time_s=MEASURE_S,
            seed=self.settings.seed,
            progress=self.progress,
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

    def _default_values(self) -> dict[str, Option]:
        with choosing(replaying({})) as made:
            self.workload.model()
        if not made.space.choices:
            raise EdgekitError(
                "the builder asks for no choice",
                where=self.config.model,
                rule="edgekit.choice(name, options) wherever the search may decide",
                way_out='write for instance width = edgekit.choice("width", [16, 32, 64])',
            )
        return made.values

    def _as_model(self, reference: str) -> Workload:
        """The workload with another model than the builder's."""
        factory = load_model(self.config.resolved(reference)).factory
        return replace(self.workload, factory=factory, model_reference=reference)

    def _given(self, reference: str | None) -> nn.Module | None:
        return None if reference is None else self._as_model(reference).model()

    def _source(self, reference: str) -> str:
        """What tells one builder from another: the file's bytes, or the name of the module's function."""
        resolved = self.config.resolved(reference)
        path = Path(resolved.rpartition(":")[0])
        return f"{reference} {key_digest({'text': path.read_text()})}" if path.suffix == ".py" else resolved


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if "Error" in line]
    return (lines or text.splitlines() or ["no output"])[-1][:300]
