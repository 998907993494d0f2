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
from edgekit.distill import DistillConfig, distill
from edgekit.prune import Action, Coupling, PrunePlan, combine, prune, replay, save
from edgekit.stats import Estimate
from edgekit.store import write_json
from edgekit.training import FitConfig
from edgekit.workload import Workload

MIN_ROUND_SHARE = 0.10
"""A round with less than this share of the time budget left would end before it recovers anything."""
PLANNED_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a round led to, judged on the selection split."""

    drop: Estimate
    latency_ms: float
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A finished round: its plan, the folder with the recovered weights, and what it led to."""

    number: int
    rung: int
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
            "plan": self.plan.to_dict(),
            "selection_drop": self.outcome.drop.to_dict(),
            "selection_latency_ms": self.outcome.latency_ms,
            "size_bytes": self.outcome.size_bytes,
            "holds_with_margin": self.holds,
            "fit": self.fit,
        }


def rounds(
    run: Run,
    rungs: Sequence[Rung[Action]],
    coupling: Coupling,
    workload: Workload,
    budget: Budget,
    settings: Settings,
    judge: Callable[[int, nn.Module], Outcome],
    *,
    reserve_s: float,
) -> list[Round]:
    """Go up the ladder while the budget holds on the selection split; stay on a rung once to recover longer if not.

    Each round starts from the weights of the best round before it, so that the recovery adds up. `judge` exports,
    quantizes and scores a recovered model on the selection split. `reserve_s` is kept for the final measurements.
    """
    done: list[Round] = []
    rung, start = _first_rung(rungs, budget), None
    while rung < len(rungs) and len(done) < settings.max_rounds:
        usable = run.left_s - reserve_s
        if usable < MIN_ROUND_SHARE * budget.time_s:
            break
        planned = max(1, min(PLANNED_ROUNDS, settings.max_rounds) - len(done))
        again = bool(done) and done[-1].rung == rung
        finished = _round(
            run,
            len(done) + 1,
            rung,
            combine(coupling, [choice.action for choice in rungs[rung].choices]),
            start,
            workload,
            budget,
            settings,
            judge,
            deadline_s=usable if again else usable / planned,
        )
        done.append(finished)
        if finished.holds:
            rung, start = rung + 1, finished
        elif again:
            break
        else:
            start = finished
    return done


def _first_rung(rungs: Sequence[Rung[Action]], budget: Budget) -> int:
    del budget
    return 0 if rungs else len(rungs)
