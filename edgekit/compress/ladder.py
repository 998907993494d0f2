"""Which decisions to take together: a ladder of plans, each faster than the one before.

Every single decision (remove this block, narrow that group) has a damage, the rise of the loss that it causes alone,
and a gain, the measured latency that it saves alone in int8. Decisions are collected by damage per microsecond gained,
step by step, with the joint damage measured at each; beside these plans stand those that a knapsack proposes from the
single damages, in milliseconds. The rungs are one plan for each step in speed: what does less damage for it is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from edgekit.compress.choice import Choice
from edgekit.compress.knapsack import knapsack

A = TypeVar("A")

FIRST_RATIO = 1.15
"""A rung that promises less is not worth a training of its own."""
NEXT_RATIO = 1.12
"""How much faster the next rung must promise to be: fourteen rungs reach five times the speed. A wider gap is filled
where a knapsack finds a plan for it: a single decision may take more than one such step, and the budget may end within
it."""
LEAST_LEFT = 0.2
"""Share of the latency below which gains no longer add up, so that predictions are fiction."""
LEAST_REAL = 0.1
"""Of summed gains at least this part is taken for real: a plan that was measured as no faster can still grow."""
MOST_RUNGS = 14
FASTEST_RATIO = FIRST_RATIO * NEXT_RATIO**MOST_RUNGS
"""The last rung is MOST_RUNGS - 1 steps above the first at most; plans beyond this ratio would be thrown away."""
TRIED_TOGETHER = 4
"""Choices at most of which the joint damage is measured at each step."""
CLEARLY = 0.9
"""A plan of the knapsack takes the place of one that grew step by step if its damage is less than this share of that
one's: those have the advantage that each goes on from the weights of the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung(Generic[A]):
    """Choices taken together: their joint damage, and the speed that they promise against the unpruned int8 file."""

    choices: tuple[Choice[A], ...]
    damage: float
    predicted_ratio: float
    predicted_ms: float
    predicted_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; the choices by their text."""
        return {
            "choices": [choice.text for choice in self.choices],
            "damage": self.damage,
            "predicted_ratio": self.predicted_ratio,
            "predicted_ms": self.predicted_ms,
            "predicted_bytes": self.predicted_bytes,
        }


def ladder(
    choices: Sequence[Choice[A]],
    *,
    baseline_ms: float,
    baseline_bytes: int,
    max_bytes: int | None = None,
    within: Mapping[str, str],
    joint_damage: Callable[[Sequence[Choice[A]]], float],
    joint_ms: Callable[[Sequence[Choice[A]]], float] | None = None,
) -> list[Rung[A]]:
    """Rungs of rising speed, cheapest damage per gain first.

    Damages do not add up: a second block of the same stage hurts more than the first. So at each step the few choices
    that look cheapest are tried together with what is taken already, and the one whose joint damage is the least for
    its gain is taken. What a choice was seen to add to fewer others, it adds at least: once one is measured to be
    cheaper than that says of the others, they are not tried (M. Minoux, *Accelerated Greedy Algorithms for Maximizing
    Submodular Set Functions*, 1978). The gain is latency; as long as the file is larger than `max_bytes`, it is size.

    Args:
        choices: what can be decided; those that gain nothing are left out.
        baseline_ms: latency without any of them.
        baseline_bytes: size without any of them.
        max_bytes: the size that is asked for; no rung is predicted to be larger.
        within: for a subject that lies inside another one, that other one: with a block gone, its widths no longer
            matter.
        joint_damage: measures the rise of the loss with several choices taken together.
        joint_ms: measures the latency with several choices taken together.

    Predictions add the gains up, and the sum overstates: a ResNet-56 that should have been 4.8 times as fast was 3.2
    times as fast. So at each step in speed `joint_ms` tells what part of the sum is real, which holds until the next;
    without it the sum stands.

    >>> both = [Choice(action=i, subject=s, text=s, damage=d, gain_ms=g, gain_bytes=1) for i, (s, d, g) in
    ...         enumerate([("a", 0.1, 0.2), ("b", 0.5, 0.2)])]
    >>> rungs = ladder(both, baseline_ms=1.0, baseline_bytes=9, within={},
    ...                joint_damage=lambda taken: sum(c.damage for c in taken))
    >>> [[choice.subject for choice in rung.choices] for rung in rungs]
    [['a'], ['a', 'b']]
    """
    book = _Book(
        choices=tuple(choices),
        ms=baseline_ms,
        size=baseline_bytes,
        within=within,
        joint_damage=joint_damage,
        joint_ms=joint_ms,
    )
    limit = math.inf if max_bytes is None or max_bytes >= baseline_bytes else max_bytes
    return book.filled(book.grown(limit), limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Try(Generic[A]):
    """One more choice: what is taken with it, what that gains, and the least damage for it that it may cost."""

    price: float
    gain: float
    choice: Choice[A]
    together: tuple[Choice[A], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken(Generic[A]):
    """A choice whose joint damage is measured."""

    price: float
    choice: Choice[A]
    together: tuple[Choice[A], ...]
    damage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Book(Generic[A]):
    """The choices, and what is known of the network without them."""

    choices: tuple[Choice[A], ...]
    ms: float
    size: int
    within: Mapping[str, str]
    joint_damage: Callable[[Sequence[Choice[A]]], float]
    joint_ms: Callable[[Sequence[Choice[A]]], float] | None

    def rung(self, taken: tuple[Choice[A], ...], damage: float, real: float) -> Rung[A]:
        """A plan, of whose summed gains the part `real` is so."""
        left_ms = self.ms - real * _saved_ms(taken)
        return Rung(
            choices=taken,
            damage=damage,
            predicted_ratio=self.ms / left_ms,
            predicted_ms=left_ms,
            predicted_bytes=self.size - _saved_bytes(taken),
        )

    def grown(self, limit: float) -> list[Rung[A]]:
        """Choice by choice, a plan after each; none before the size is within `limit`."""
        taken: tuple[Choice[A], ...] = ()
        plans: list[Rung[A]] = []
        damage, real, due = 0.0, 1.0, self.ms * (1 - 1 / FIRST_RATIO)
        seen: dict[str, float] = {}
        while not plans or plans[-1].predicted_ratio < FASTEST_RATIO:
            worth = _saved_ms if self.size - _saved_bytes(taken) <= limit else _saved_bytes
            step = self._cheapest(_promising(self.choices, taken, self.within, worth, seen), damage, seen)
            if step is None:
                break
            damage, taken = step.damage, step.together
            self._forget(seen, step.choice)
            if self.joint_ms is not None and _saved_ms(taken) >= due:
                real = max((self.ms - self.joint_ms(taken)) / _saved_ms(taken), LEAST_REAL)
                due = _saved_ms(taken) + (self.ms - real * _saved_ms(taken)) * (1 - 1 / NEXT_RATIO)
            if not self._leaves_enough(taken, real):
                break
            if self.size - _saved_bytes(taken) <= limit and _saved_ms(taken) > 0:
                plans.append(self.rung(taken, damage, real))
        return plans

    def _cheapest(self, tries: Sequence[_Try[A]], damage: float, seen: dict[str, float]) -> _Taken[A] | None:
        """The try that adds the least damage for its gain; `seen` is told what each adds."""
        best: _Taken[A] | None = None
        for each in tries[:TRIED_TOGETHER]:
            if best is not None and best.price <= each.price:
                break
            found = self.joint_damage(each.together)
            seen[each.choice.text] = found - damage
            price = _price(found - damage, each.gain)
            if best is None or price < best.price:
                best = _Taken(price=price, choice=each.choice, together=each.together, damage=found)
        return best

    def _forget(self, seen: dict[str, float], taken: Choice[A]) -> None:
        """What choices about the same place add was seen without the one that is taken now, whose place they take."""
        place = {taken.subject, self.within.get(taken.subject)}
        for choice in self.choices:
            if place & {choice.subject, self.within.get(choice.subject)} - {None}:
                seen.pop(choice.text, None)

    def filled(self, plans: Sequence[Rung[A]], limit: float) -> list[Rung[A]]:
        """One plan for each step in speed: of `plans`, or what the knapsack finds for that step within `limit` bytes.

        Where the file has to become smaller, the steps begin with what is small enough, however fast it is.
        """
        if not plans:
            return []
        rungs: list[Rung[A]] = []
        ratios = [plan.predicted_ratio for plan in plans]
        fastest, wanted = max(ratios), FIRST_RATIO if limit == math.inf else min(ratios)
        while wanted <= fastest and len(rungs) < MOST_RUNGS:
            within_step = [plan for plan in plans if wanted <= plan.predicted_ratio < wanted * NEXT_RATIO]
            grown = within_step[0] if within_step else None
            slower = [plan for plan in plans if plan.predicted_ratio <= wanted * NEXT_RATIO]
            real = self._real(max(slower, key=lambda plan: plan.predicted_ratio)) if slower else 1.0
            best = self._or_better(grown, wanted if grown is None else grown.predicted_ratio, real, limit)
            if best is None:
                wanted *= NEXT_RATIO
            else:
                rungs.append(best)
                wanted = best.predicted_ratio * NEXT_RATIO
        # A plan with more damage than a faster one has no point.
        useful = [
            rung
            for index, rung in enumerate(rungs)
            if all(rung.damage < faster.damage for faster in rungs[index + 1 :])
        ]
        return useful or [plans[-1]]

    def _or_better(self, grown: Rung[A] | None, ratio: float, real: float, limit: float) -> Rung[A] | None:
        """What grew, or the knapsack's plan for this step if that does clearly less damage or nothing grew there."""
        found = knapsack(self.choices, gain_ms=self.ms * (1 - 1 / ratio) / real, within=self.within)
        if not found or not self._leaves_enough(found, real) or self.size - _saved_bytes(found) > limit:
            return grown
        if grown is None:
            plan = self.rung(found, 0.0, real)
            fits = plan.predicted_ratio < ratio * NEXT_RATIO
            return replace(plan, damage=self.joint_damage(found)) if fits else None
        if {c.text for c in found} == {c.text for c in grown.choices}:
            return grown
        damage = self.joint_damage(found)
        return self.rung(found, damage, real) if damage < CLEARLY * grown.damage else grown

    def _real(self, plan: Rung[A]) -> float:
        """What part of the summed gains of a plan its prediction counts."""
        return (self.ms - plan.predicted_ms) / _saved_ms(plan.choices)

    def _leaves_enough(self, taken: Sequence[Choice[A]], real: float) -> bool:
        return self.ms - real * _saved_ms(taken) > LEAST_LEFT * self.ms


def _saved_ms(taken: Sequence[Choice[A]]) -> float:
    return sum(choice.gain_ms for choice in taken)


def _saved_bytes(taken: Sequence[Choice[A]]) -> int:
    return sum(choice.gain_bytes for choice in taken)


def _price(damage: float, gain: float) -> float:
    return max(damage, 1e-6) / gain


def _promising(
    choices: Sequence[Choice[A]],
    taken: tuple[Choice[A], ...],
    within: Mapping[str, str],
    worth: Callable[[Sequence[Choice[A]]], float],
    seen: Mapping[str, float],
) -> list[_Try[A]]:
    """What is taken with one more choice, the cheapest first by what each does alone or was `seen` to add."""
    subjects = {choice.subject: choice for choice in taken}
    found: list[_Try[A]] = []
    for choice in choices:
        if within.get(choice.subject) in subjects:
            continue
        # It takes the place of a milder choice on its subject, and of choices on what lies inside it.
        rest = tuple(
            each for each in taken if each.subject != choice.subject and within.get(each.subject) != choice.subject
        )
        together = (*rest, choice)
        gain = worth(together) - worth(taken)
        if gain > 0:
            alone = choice.damage - sum(each.damage for each in taken if each not in rest)
            damage = max(alone, seen.get(choice.text, alone))
            found.append(_Try(price=_price(damage, gain), gain=gain, choice=choice, together=together))
    found.sort(key=lambda each: each.price)
    return found
