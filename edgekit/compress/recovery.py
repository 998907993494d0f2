"""Pruning by a plan and winning the accuracy back: one stage of a run, short or long."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from edgekit.compress.run import Run
from edgekit.compress.settings import Settings
from edgekit.distill import DistillConfig, distill, reestimate_batchnorm
from edgekit.progress import Progress
from edgekit.prune import PrunePlan, lift, prune, replay, save
from edgekit.quantize.learning.training import Trainable
from edgekit.store import write_json
from edgekit.training import Choice, FitConfig, augmented
from edgekit.workload import Workload, digest_of, loader

NORM_BATCH, NORM_SAMPLES = 128, 512
QUANTIZED_RATE = 0.02
"""Share of the learning rate for training with quantized weights, which has only to undo what rounding did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """A plan, and the folder with the weights that were recovered under it."""

    plan: PrunePlan
    folder: Path

    def model(self, run: Run) -> nn.Module:
        """The pruned network with these weights."""
        return replay(run.workload.factory, self.folder)


def recover(
    run: Run,
    stage: str,
    plan: PrunePlan,
    start: Recovered | None,
    *,
    deadline_s: float,
    seed: int,
    rate: float = 1.0,
) -> Recovered:
    """Prune by `plan`, with proof, and distill from the original for `deadline_s`.

    Args:
        run: of which this is a stage.
        stage: its name.
        plan: what goes, made for the original.
        start: weights to start from: of the same plan, or of a milder one. The original's without it.
        deadline_s: seconds for the training.
        seed: added to the run's, so that no two trainings see the same batches.
        rate: share of the settings' learning rate.
    """
    workload, settings, teacher = run.workload, run.settings, run.model
    origin = lift(teacher, start.model(run), start.plan) if start else teacher
    key = {
        "plan": plan.to_dict(),
        "start": digest_of(origin),
        "settings": _recovery_key(settings),
        "time": round(deadline_s),
        "rate": rate,
    }

    def make(folder: Path) -> float:
        pruned = prune(origin, workload.example(2), plan)
        norms = loader(
            workload.splits.calibration,
            NORM_BATCH,
            model=teacher,
            seed=settings.seed,
            limit=NORM_SAMPLES,
            drop_last=True,
        )
        result = distill(
            reestimate_batchnorm(pruned.model, norms),
            teacher,
            _augmented(workload, settings),
            workload.task,
            DistillConfig(fit=_fitting(settings, rate=rate, seed=seed)),
            checkpoint=folder / "checkpoint.pt",
            progress=lambda step: run.progress(
                type(step)(stage.replace("-", " "), step.done, step.total, step.figures)
            ),
            deadline_s=deadline_s,
            like=run.trains_like,
        )
        save(folder, plan, result.model)
        write_json(folder / "fit.json", {**result.to_dict(), "proof": pruned.proof.to_dict()})
        (folder / "checkpoint.pt").unlink(missing_ok=True)
        return result.seconds

    folder = run.stage(stage, key, make)
    if run.trains_like is None:
        run.trains_like = Choice(**json.loads((folder / "fit.json").read_text())["choice"])
    return Recovered(plan=plan, folder=folder)


def train_quantized(
    network: Trainable, workload: Workload, settings: Settings, *, deadline_s: float, progress: Progress
) -> Trainable:
    """Distill a network with quantized weights and activations from the workload's own for `deadline_s`."""
    teacher = workload.model()
    suited = settings.suited_to(teacher).suited_to_data(workload, teacher)
    result = distill(
        network,
        teacher,
        _augmented(workload, suited),
        workload.task,
        # bf16 has 8 bits: the integers would be rounded again.
        DistillConfig(fit=replace(_fitting(suited, rate=QUANTIZED_RATE), precision="fp32")),
        progress=progress,
        deadline_s=deadline_s,
    )
    assert isinstance(result.model, Trainable)
    return result.model


def _augmented(workload: Workload, settings: Settings) -> Dataset[Any]:
    assert settings.augment != "auto"
    return augmented(workload.splits.train, settings.augment)


def _fitting(settings: Settings, *, rate: float, seed: int = 0) -> FitConfig:
    assert settings.learning_rate is not None
    assert settings.optimizer != "auto"
    return FitConfig(
        epochs=settings.recovery_epochs,
        learning_rate=rate * settings.learning_rate,
        optimizer=settings.optimizer,
        batch_size=settings.batch_size,
        seed=settings.seed + seed,
    )


def _recovery_key(settings: Settings) -> dict[str, Any]:
    names = ("recovery_epochs", "learning_rate", "optimizer", "batch_size", "augment", "seed")
    return {name: getattr(settings, name) for name in names}
