"""Rounds of pruning and recovery, from mild to bold, until the budget or the time ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from edgekit.compress.budget import Budget
from edgekit.compress.ladder import Rung
from edgekit.compress.run import Run
from edgekit.compress.settings import Settings
from edgekit.distill import DistillConfig, distill, reestimate_batchnorm
from edgekit.prune import Action, Coupling, PrunePlan, combine, lift, prune, replay, save
from edgekit.stats import Estimate
from edgekit.store import write_json
from edgekit.training import FitConfig
from edgekit.workload import digest_of, loader

MIN_ROUND_SHARE = 0.08
"""A round with less than this share of the time budget would end before it recovers anything."""
PLANNED_ROUNDS = 3
NEAR = 3.0
"""A miss of less than this many times the allowed drop is worth another round of recovery; a larger one is not."""
NORM_BATCH, NORM_SAMPLES = 128, 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a round led to, judged on the selection split."""

    stage: str
    drop: Estimate
    latency_ms: float
    size_bytes: int


Judge = Callable[[int, nn.Module, dict[str, Any]], Outcome]
"""Takes a round's number, its model, and what the model was made from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A finished round: its plan, the folder with the recovered weights, and what it led to."""

    number: int
    rung: int
    predicted_ratio: float
    plan: PrunePlan
    folder: Path
    outcome: Outcome
    holds: bool
    fit: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "round": self.number,
            "rung": self.rung,
            "predicted_ratio_to_int8": self.predicted_ratio,
            "decisions": str(self.plan).splitlines(),
            "selection": {
                "file": self.outcome.stage,
                "drop": self.outcome.drop.to_dict(),
                "latency_ms": self.outcome.latency_ms,
                "size_bytes": self.outcome.size_bytes,
            },
            "holds_with_margin": self.holds,
            "fit": self.fit,
        }


def rounds(
    run: Run,
    rungs: Sequence[Rung[Action]],
    coupling: Coupling,
    judge: Judge,
    *,
    reserve_s: float,
) -> list[Round]:
    """Go up the ladder while the budget holds on the selection split; after a near miss stay, and recover once more.

    Each round starts from the weights of the one before it, so that recovery adds up. `judge` exports, quantizes and
    scores a recovered model on the selection split. `reserve_s` is kept for the final measurements.
    """
    done: list[Round] = []
    budget, settings = run.budget, run.settings
    rung = _first_rung(rungs, budget)
    while rung < len(rungs) and len(done) < settings.max_rounds:
        usable = run.left_s - reserve_s
        if usable < MIN_ROUND_SHARE * budget.time_s:
            break
        again = bool(done) and done[-1].rung == rung
        planned = 1 if again else max(1, min(PLANNED_ROUNDS, settings.max_rounds) - len(done))
        plan = combine(coupling, [choice.action for choice in rungs[rung].choices])
        folder = _recovered(run, plan, done, deadline_s=usable / planned)
        recovered = replay(run.workload.factory, folder)
        outcome = judge(len(done) + 1, recovered, {"weights": digest_of(recovered), "plan": plan.to_dict()})
        finished = Round(
            number=len(done) + 1,
            rung=rung,
            predicted_ratio=rungs[rung].predicted_ratio,
            plan=plan,
            folder=folder,
            outcome=outcome,
            holds=not budget.broken(drop=budget.cautious(outcome.drop), latency_ms=0.0, size_bytes=0),
            fit=json.loads((folder / "fit.json").read_text()),
        )
        done.append(finished)
        if finished.holds:
            rung += 1
        elif again or not _near(finished.outcome, budget):
            break
    return done


def _recovered(run: Run, plan: PrunePlan, done: Sequence[Round], *, deadline_s: float) -> Path:
    """The folder with a pruned and recovered model, which starts from what the last round has recovered."""
    number, workload, settings, teacher = len(done) + 1, run.workload, run.settings, run.model
    before = done[-1] if done else None
    start = lift(teacher, replay(workload.factory, before.folder), before.plan) if before else teacher
    key = {
        "plan": plan.to_dict(),
        "start": digest_of(start),
        "settings": _recovery_key(settings),
        "time": round(deadline_s),
    }

    def make(folder: Path) -> float:
        pruned = prune(start, workload.example(2), plan)
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
            workload.splits.train,
            workload.task,
            DistillConfig(
                fit=FitConfig(
                    epochs=settings.recovery_epochs,
                    learning_rate=settings.learning_rate,
                    optimizer=settings.optimizer,
                    batch_size=settings.batch_size,
                    seed=settings.seed + number,
                )
            ),
            checkpoint=folder / "checkpoint.pt",
            progress=lambda step: run.progress(
                type(step)(f"recovering, round {number}", step.done, step.total, step.figures)
            ),
            deadline_s=deadline_s,
        )
        save(folder, plan, result.model)
        write_json(folder / "fit.json", {**result.to_dict(), "proof": pruned.proof.to_dict()})
        (folder / "checkpoint.pt").unlink(missing_ok=True)
        return result.seconds

    return run.stage(f"recover-{number}", key, make)


def _recovery_key(settings: Settings) -> dict[str, Any]:
    names = ("recovery_epochs", "learning_rate", "optimizer", "batch_size", "seed")
    return {name: getattr(settings, name) for name in names}


def _near(outcome: Outcome, budget: Budget) -> bool:
    return budget.max_drop is not None and outcome.drop.value <= NEAR * max(budget.max_drop, 0.1)


def _first_rung(rungs: Sequence[Rung[Action]], budget: Budget) -> int:
    """The mildest rung, or the mildest that promises the latency asked for."""
    if budget.max_latency_ms is None:
        return 0
    fast = [index for index, rung in enumerate(rungs) if rung.predicted_ms <= budget.max_latency_ms]
    return fast[0] if fast else max(0, len(rungs) - 1)
