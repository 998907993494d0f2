"""The trainings of a search: short ones rung by rung, full ones of finalists, and the teacher of all."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from edgekit.device.environment import processor
from edgekit.distill import DistillConfig, Teacher, distill, reestimate_batchnorm
from edgekit.errors import TrainingError
from edgekit.progress import Step
from edgekit.search.asked import Asked, Values
from edgekit.search.computing import Computing
from edgekit.search.teaching import files_in, make_files
from edgekit.store import write_json
from edgekit.training import FitConfig, FitResult, augmented, fit, suited
from edgekit.transfer import Teaching, fastest_teacher, files_may_teach
from edgekit.validate import Score, score_torch
from edgekit.workload import Batch, derive, loader

WEIGHTS, TEACHING = "weights.safetensors", "teaching.json"
NORM_BATCH, NORM_SAMPLES = 128, 512
FULL = "full"


class Trainings:
    """Networks of a search with weights, each trained once.

    Args:
        asked: what the search was asked for.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked, self.settings, self.workload = asked, asked.settings, asked.workload
        self._taught: Teacher | None = None
        self._computing = Computing(asked.workload.example(2))

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
        return self.asked.stage(f"train-{rung}", key, make)

    def train(
        self, values: Values, rung: int | str, before: Path | None, folder: Path, *, deadline_s: float | None = None
    ) -> None:
        """Make the content of a `trained` folder in this process, or as one of the ranks of torchrun."""
        network = self.asked.network(values) if before is None else self.with_weights(values, before)
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
        network = self.asked.network(values)
        network.load_state_dict(load_file(folder / WEIGHTS))
        return network.eval()

    def scored(self, network: nn.Module) -> Score:
        """Score a network in PyTorch on the selection split."""
        return score_torch(
            network,
            self.workload.splits.selection,
            self.workload.task,
            seed=self.settings.seed,
            progress=self.asked.progress,
        )

    def reference(self, rung: int | str) -> Score:
        """What drops refer to: the teacher's score, or the default network's after as much training."""
        if self.asked.teacher is None:
            return Score.load(self.trained(self.asked.default, rung))
        teacher = self.asked.teacher
        return Score.load(
            self.asked.common_stage("teacher-score", {}, lambda folder: self.scored(teacher).save(folder))
        )

    def who_teaches(self) -> Teacher:
        """The teacher, or a file of it that answers its trainings faster and as well; measured once on a processor.

        Ranks of torchrun, and GPUs, ask the teacher itself.
        """
        assert self.asked.teacher is not None
        if self._taught is None:
            self._taught = self.asked.teacher
            if self.settings.ranks == 1 and files_may_teach():
                self._taught = self._fastest(self.asked.teacher)
        return self._taught

    def _fastest(self, teacher: nn.Module) -> Teacher:
        example, settings = self.workload.example(2), self.settings

        def make(folder: Path) -> None:
            make_files(folder, lambda path: self.asked.exported(teacher, path), self.workload, settings)
            files, student = files_in(folder, settings), self.asked.network(self.asked.default)
            if not files:
                return
            found = fastest_teacher(
                teacher,
                files,
                student=student,
                train=augmented(self.workload.splits.train, self.asked.augment),
                task=self.workload.task,
                config=DistillConfig(fit=self._fit_config(student, 0)),
                example=example,
            )
            write_json(folder / TEACHING, found.to_dict())

        folder = self.asked.common_stage("teaching", {"processor": processor()}, make)
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
            self.asked.progress(
                replace(step, work="full training" if rung == FULL else f"short training {int(rung) + 1}")
            )

        common: dict[str, Any] = {
            "checkpoint": folder / "checkpoint.pt",
            "progress": told,
            "deadline_s": deadline_s,
            "like": self._computing.like(network),
        }
        train = augmented(self.workload.splits.train, self.asked.augment)
        if self.asked.teacher is None:
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
            "workload": self.asked.config.to_dict(),
            "settings": self.settings.to_dict(),
            "root": str(self.asked.root.resolve()),
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
            words = [
                *torchrun,
                "--nproc-per-node",
                str(self.settings.ranks),
                "-m",
                "edgekit.search.ranks",
                str(path),
            ]
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


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if "Error" in line]
    return (lines or text.splitlines() or ["no output"])[-1][:300]
