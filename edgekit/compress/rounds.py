"""Rounds of pruning and recovery: aim at the rung that should just hold the budget, then go where the result points."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from edgekit.compress.budget import Budget
from edgekit.compress.chances import screened_drops, surest
from edgekit.compress.ladder import Rung
from edgekit.compress.recovery import Recovered, recover
from edgekit.compress.run import Run
from edgekit.compress.screening import Screened, left_after
from edgekit.prune import Action, Coupling, PrunePlan, combine
from edgekit.stats import Estimate
from edgekit.transfer import Teaching
from edgekit.validate.behaviour import Figures
from edgekit.workload import digest_of

ROUND_SHARE = 0.55
"""Of the time that is left, for one recovery."""
LAST_SHARE = 0.2
"""What a round would leave below this share of the time budget it takes as well."""
MIN_ROUND_SHARE = 0.08
"""A round with less than this share of the time budget would end before it recovers anything."""
JUDGED_SHARE = 0.5
"""Of the reserve: so much has to be left for a network to be exported, quantized and judged that is not recovered."""
NEAR, FAR = 1.5, 3.0
"""A drop of at most this many times the allowed one is worth another round of recovery: twice the training leaves some
0.7 of it (`RECOVERY_EXPONENT`). After a larger one a milder rung is; where there is none to try, a drop up to the
second figure is still worth the time."""
REACH = 0.7
"""Share of the allowed drop up to which a rung that was not recovered is skipped on the way to a bolder one."""
AGAIN_RATE = 0.3
"""Share of the learning rate for going on with a rung: most of the way is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a round led to, judged on the selection split."""

    stage: str
    drop: Estimate
    latency_ms: float
    size_bytes: int
    changes: Figures = field(default_factory=Figures)


Judge = Callable[[int, nn.Module, dict[str, Any]], Outcome]
"""Takes a round's number, its model, and what the model was made from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A finished round: its rung, its weights, and what it led to."""

    number: int
    rung: int
    predicted_ratio: float
    recovered: Recovered
    outcome: Outcome
    holds: bool

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "round": self.number,
            "rung": self.rung,
            "predicted_ratio_to_int8": self.predicted_ratio,
            "decisions": str(self.recovered.plan).splitlines(),
            "selection": {
                "file": self.outcome.stage,
                "drop": self.outcome.drop.to_dict(),
                "latency_ms": self.outcome.latency_ms,
                "size_bytes": self.outcome.size_bytes,
            },
            "holds_with_margin": self.holds,
            "weights": str(self.recovered.folder),
            "fit": json.loads((self.recovered.folder / "fit.json").read_text()),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """What to do next: a rung, and whether it is the last round's again."""

    rung: int
    again: bool = False


def rounds(
    run: Run,
    rungs: Sequence[Rung[Action]],
    screened: Sequence[Screened],
    coupling: Coupling,
    judge: Judge,
    *,
    taught: Teaching,
    reserve_s: float,
) -> list[Round]:
    """Recover the rung that `screened` promises, then a bolder one while the budget holds on selection.

    How much of a screened drop the last recovery left tells how bold. After a near miss the same rung is recovered once
    more, more gently; after a far one, or a second one, a milder rung has its turn if there is one that is bolder than
    what holds already. If nothing holds when the last round begins, it goes for what is surest to save latency; if
    nothing holds in the end, a screened network that holds the budget as it is becomes the last one. `judge` exports,
    quantizes and scores a recovered model on the selection split. `reserve_s` is kept for the final measurements.
    """
    done: list[Round] = []
    spent_s: dict[int, float] = {}
    budget = run.budget
    usable = run.left_s - reserve_s
    following = Next(rung=first_rung(rungs, screened, budget)) if rungs else None
    while following is not None and len(done) < run.settings.max_rounds:
        if usable < MIN_ROUND_SHARE * budget.time_s:
            break
        deadline_s = _round_s(usable, budget)
        rung, number = following.rung, len(done) + 1
        plan = combine(coupling, [choice.action for choice in rungs[rung].choices])
        recovered = recover(
            run,
            f"recovering-round-{number}",
            plan,
            _start(rung, plan, done, screened),
            taught,
            deadline_s=deadline_s,
            seed=number,
            rate=AGAIN_RATE if following.again else 1.0,
        )
        done.append(_judged(run, judge, recovered, number=number, rung=rung, promised=rungs[rung]))
        spent_s[rung] = spent_s.get(rung, 0.0) + deadline_s
        usable = run.left_s - reserve_s
        next_s = _round_s(usable, budget)
        more = 1 / left_after(next_s, max(deadline_s - next_s, 0.0)) if next_s > 0 else math.inf
        following = next_step(done, len(rungs), budget, screened, more=more)
        is_last = next_s == usable or len(done) + 1 == run.settings.max_rounds
        if following is not None and is_last and next_s > 0:
            again = left_after(spent_s[rung], next_s)
            following = last_step(following, done, rungs, budget, screened, more=more, again=again)
    has_time = run.left_s > JUDGED_SHARE * reserve_s
    if has_time and len(done) < run.settings.max_rounds and not any(each.holds for each in done):
        done += _as_screened(run, rungs, screened, judge, number=len(done) + 1)
    return done


def _judged(run: Run, judge: Judge, recovered: Recovered, *, number: int, rung: int, promised: Rung[Action]) -> Round:
    model = recovered.model(run)
    outcome = judge(number, model, {"weights": digest_of(model), "plan": recovered.plan.to_dict()})
    return Round(
        number=number,
        rung=rung,
        predicted_ratio=promised.predicted_ratio,
        recovered=recovered,
        outcome=outcome,
        holds=run.judge.holds(run.judge.of(outcome.drop, outcome.changes)),
    )


def _as_screened(
    run: Run, rungs: Sequence[Rung[Action]], screened: Sequence[Screened], judge: Judge, *, number: int
) -> list[Round]:
    """Where no recovery led to anything: the boldest rung whose short one left a drop that the budget allows."""
    budget = run.budget
    holding = [each for each in screened if budget.allows(budget.cautious(each.drop))]
    if not holding:
        return []
    best = max(holding, key=lambda each: each.rung)
    return [_judged(run, judge, best.recovered, number=number, rung=best.rung, promised=rungs[best.rung])]


def _round_s(usable_s: float, budget: Budget) -> float:
    """Seconds for a recovery out of those that are left for recoveries and what follows each."""
    spare = (1 - ROUND_SHARE) * usable_s
    return usable_s if spare < LAST_SHARE * budget.time_s else ROUND_SHARE * usable_s


def next_step(
    done: Sequence[Round], rungs: int, budget: Budget, screened: Sequence[Screened] = (), *, more: float = 1.0
) -> Next | None:
    """Where the last round points; None where nothing is left that could be better than what holds.

    `more` is how many times as large a drop the next recovery leaves, because there is less time for it.
    """
    last = done[-1]
    held = max((each.rung for each in done if each.holds), default=-1)
    missed = [each.rung for each in done if not each.holds and each.rung > held]
    if last.holds:
        bolder = min(within_reach(last, rungs, budget, screened, more), min(missed, default=rungs) - 1)
        return Next(rung=bolder) if bolder > last.rung else None
    milder = last.rung - 1 if held < 0 else (held + last.rung) // 2
    worth = NEAR if milder > held else FAR
    near = budget.max_drop is not None and last.outcome.drop.value <= worth * max(budget.max_drop, 0.1)
    if near and missed.count(last.rung) == 1:
        return Next(rung=last.rung, again=True)
    return Next(rung=milder) if milder > held else None


def last_step(
    following: Next,
    done: Sequence[Round],
    rungs: Sequence[Rung[Action]],
    budget: Budget,
    screened: Sequence[Screened],
    *,
    more: float,
    again: float,
) -> Next:
    """Where a round goes that will be the last, if none holds so far: a near miss may well be missed again.

    Args:
        following: where it would go if another could follow.
        done: the rounds so far.
        rungs: the ladder.
        budget: the limits.
        screened: what the short recoveries left.
        more: as for `next_step`.
        again: the share of the last round's drop that the same rung is expected to keep.
    """
    last = done[-1]
    drop = last.outcome.drop
    if budget.max_drop is None or not screened or any(each.holds for each in done):
        return following
    drops = screened_drops(rungs, screened)
    if budget.allows(budget.cautious(drop)) or drops[last.rung] <= 0:
        return following  # It is not the drop that is missed, or nothing tells how drops rise.
    tried = {each.rung for each in done}
    wanted_ms = math.inf if budget.max_latency_ms is None else budget.max_latency_ms
    milder = [rung for rung in range(last.rung) if rung not in tried and rungs[rung].predicted_ms <= wanted_ms]
    expected = {rung: more * drop.value * float(drops[rung] / drops[last.rung]) for rung in milder}
    rung = surest(rungs, {**expected, last.rung: again * drop.value}, drop, budget)
    return Next(rung=rung, again=rung == last.rung)


def within_reach(last: Round, rungs: int, budget: Budget, screened: Sequence[Screened], more: float) -> int:
    """The boldest rung that is expected to hold after one that held, and the next one at least.

    A recovery is expected to leave the share of a screened drop that the last one left, times `more`. Between screened
    rungs drops are taken to grow by the same factor from each rung to the next.
    """
    drops = {each.rung: each.drop.value for each in screened if each.drop.value > 0}
    known = sorted(drops)
    following = last.rung + 1
    if budget.max_drop is None or not known or not known[0] <= last.rung < known[-1]:
        return following
    rising = range(last.rung, min(rungs, known[-1] + 1))
    own, *others = np.exp(np.interp(rising, known, np.log([drops[rung] for rung in known])))
    left = more * max(budget.cautious(last.outcome.drop), 0.0) / own
    holding = [rung for rung, drop in enumerate(others, following) if left * drop <= REACH * budget.max_drop]
    return max(holding, default=following)


def first_rung(rungs: Sequence[Rung[Action]], screened: Sequence[Screened], budget: Budget) -> int:
    """The rung of which the most can be expected of those up to the boldest screened one.

    No slower one than the latency asks for. The boldest that might just hold is not aimed at: a ResNet-56 that was to
    lose 1.5 points lost 1.9 and 1.6 at 3.8 times the speed in two recoveries, and there was no time for a third.
    """
    rung = 0
    if screened and budget.max_drop is not None:
        boldest = max(screened, key=lambda each: each.rung)
        left = dict(enumerate(boldest.left * screened_drops(rungs, screened)[: boldest.rung + 1]))
        rung = surest(rungs, left, boldest.drop, budget)
    if budget.max_latency_ms is None:
        return rung
    fast = [index for index, each in enumerate(rungs) if each.predicted_ms <= budget.max_latency_ms]
    return max(rung, fast[0]) if fast else len(rungs) - 1


def _start(rung: int, plan: PrunePlan, done: Sequence[Round], screened: Sequence[Screened]) -> Recovered | None:
    """The weights of the boldest rung up to `rung` that `plan` goes on from; a round's rather than a screening's."""
    known = [(each.rung, True, each.number, each.recovered) for each in done if each.rung <= rung]
    known += [(each.rung, False, 0, each.recovered) for each in screened if each.rung <= rung]
    fitting = [each for each in known if plan.includes(each[3].plan)]
    return max(fitting, key=lambda each: each[:3])[3] if fitting else None
