"""Pruning by a plan and winning the accuracy back: one stage of a run, short or long."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from edgekit.compress.fitting import fit_config, training_data
from edgekit.compress.run import Run
from edgekit.compress.settings import Settings
from edgekit.distill import DistillConfig, distill, reestimate_batchnorm
from edgekit.prune import PrunePlan, lift, prune, replay, save
from edgekit.store import write_json
from edgekit.transfer import Teaching
from edgekit.workload import digest_of, loader

NORM_BATCH, NORM_SAMPLES = 128, 512


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
    taught: Teaching,
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
        taught: who teaches, and how it computes.
        deadline_s: seconds for the training.
        seed: added to the run's, so that no two trainings see the same batches.
        rate: share of the settings' learning rate.
    """
    workload, settings, original = run.workload, run.settings, run.model
    origin = lift(original, start.model(run), start.plan) if start else original
    key = {
        "plan": plan.to_dict(),
        "start": digest_of(origin),
        "settings": _recovery_key(settings),
        "taught": {"by": taught.taught_by, **asdict(taught.choice)},
        "time": round(deadline_s),
        "rate": rate,
    }

    def make(folder: Path) -> float:
        pruned = prune(origin, workload.example(2), plan)
        norms = loader(
            workload.splits.calibration,
            NORM_BATCH,
            model=original,
            seed=settings.seed,
            limit=NORM_SAMPLES,
            drop_last=True,
        )
        result = distill(
            reestimate_batchnorm(pruned.model, norms),
            taught.teacher,
            training_data(workload, settings),
            workload.task,
            DistillConfig(fit=fit_config(settings, rate=rate, seed=seed)),
            about={"taught_by": taught.taught_by},
            checkpoint=folder / "checkpoint.pt",
            progress=lambda step: run.progress(
                type(step)(stage.replace("-", " "), step.done, step.total, step.figures)
            ),
            deadline_s=deadline_s,
            like=taught.choice,
        )
        save(folder, plan, result.model)
        about = {"proof": pruned.proof.to_dict(), "taught_by": taught.taught_by}
        write_json(folder / "fit.json", {**result.to_dict(), **about})
        (folder / "checkpoint.pt").unlink(missing_ok=True)
        return result.seconds

    return Recovered(plan=plan, folder=run.stage(stage, key, make))


def _recovery_key(settings: Settings) -> dict[str, Any]:
    names = ("recovery_epochs", "learning_rate", "optimizer", "batch_size", "augment", "seed")
    return {name: getattr(settings, name) for name in names}
