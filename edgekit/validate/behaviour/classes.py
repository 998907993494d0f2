"""Which classes pay: the metric of each class before and after, and the class that lost most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.stats import Estimate, paired_loss, resampled_sums, share, simultaneous_z
from edgekit.validate.behaviour.answers import Answers, Kind, Pair

CHANCES = 1000
"""Random assignments of the changed answers to samples that the worst class is held against."""
COLUMNS = 64
"""Classes that are resampled at once: bounds the memory."""

_METRICS: dict[Kind, tuple[str, str]] = {
    "classes": ("accuracy", "Wilson; of the drop Agresti and Min for matched pairs"),
    "positions": ("IoU", "bootstrap over samples"),
    "labels": ("F1", "bootstrap over samples"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """One class before and after, in points of 100; None where no sample is of that class.

    Args:
        index: of the class in the outputs.
        name: of the class.
        n: samples (or positions) of that class.
        reference: the original's metric.
        candidate: the compressed file's.
        drop: how much it lost, paired by sample; negative where it won.
    """

    index: int
    name: str
    n: int
    reference: Estimate | None
    candidate: Estimate | None
    drop: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "index": self.index,
            "name": self.name,
            "n": self.n,
            "reference": None if self.reference is None else self.reference.to_dict(),
            "candidate": None if self.candidate is None else self.candidate.to_dict(),
            "drop": None if self.drop is None else self.drop.to_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstClass:
    """The class with the largest drop.

    It was picked because its drop is the largest, so the drop flatters no one: it overstates what this class really
    lost. The interval is therefore widened so that those of all classes hold together with 95 % (Šidák), and `chance`
    says what the largest drop would be if the same answers had changed on samples drawn at random (a permutation of
    the largest statistic: P. Westfall and S. Young, *Resampling-Based Multiple Testing*, 1993).

    Args:
        index: of the class.
        name: of the class.
        drop: in points of 100, with the widened interval.
        compared: among how many classes with samples it was picked.
        chance: median of the largest drop over such draws, in points; None where no class is singled out so.
        p_value: share of the draws whose largest drop is at least this one.
    """

    index: int
    name: str
    drop: Estimate
    compared: int
    chance: float | None
    p_value: float | None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "index": self.index,
            "name": self.name,
            "drop": self.drop.to_dict(),
            "compared": self.compared,
            "chance": self.chance,
            "p_value": self.p_value,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassChange:
    """All classes before and after.

    Args:
        metric: `accuracy` (of the samples of a class), `IoU` (positions), or `F1` (labels).
        interval: how the intervals were made.
        rows: by index.
        worst: None where no class has a sample.
    """

    metric: str
    interval: str
    rows: tuple[ClassRow, ...]
    worst: WorstClass | None

    @property
    def largest_drop(self) -> Estimate | None:
        """The worst class's drop with its own interval, as if it had not been picked: what a margin is taken from."""
        return None if self.worst is None else self.rows[self.worst.index].drop

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "metric": self.metric,
            "unit": "points",
            "interval": self.interval,
            "rows": [row.to_dict() for row in self.rows],
            "worst": None if self.worst is None else self.worst.to_dict(),
        }


def class_change(pair: Pair, names: Sequence[str] = (), *, seed: int = 0) -> ClassChange:
    """The metric of each class in both models' answers.

    For classes it is the share of a class's samples that are answered with it; for positions the intersection over the
    union; for labels F1, since a label that few samples have hides in a label's accuracy.

    Args:
        pair: the answers.
        names: of the classes, in their order; their numbers where there are not as many.
        seed: of the resampling.
    """
    classes, kind = pair.reference.classes, pair.reference.kind
    named = list(names) if len(names) == classes else [str(index) for index in range(classes)]
    if kind == "classes":
        rows, widened, chance = _shares(pair, named, seed)
    else:
        rows, widened, chance = _ratios(pair, named, seed)
    metric, interval = _METRICS[kind]
    worst = max((row for row in rows if row.drop is not None), key=_drop, default=None)
    return ClassChange(
        metric=metric,
        interval=interval,
        rows=tuple(rows),
        worst=None
        if worst is None
        else WorstClass(
            index=worst.index,
            name=worst.name,
            drop=widened[worst.index],
            compared=len(widened),
            chance=None if chance is None else float(np.median(chance)),
            p_value=None if chance is None else float((1 + (chance >= _drop(worst) - 1e-9).sum()) / (1 + len(chance))),
        ),
    )


def _drop(row: ClassRow) -> float:
    assert row.drop is not None
    return row.drop.value


Found = tuple[list[ClassRow], dict[int, Estimate], np.ndarray | None]
"""Rows, the widened drops of the classes that have samples, and the largest drops by chance."""


def _shares(pair: Pair, names: Sequence[str], seed: int) -> Found:
    truth = pair.reference.truth[:, 0]
    ours, theirs = pair.reference.correct[:, 0], pair.candidate.correct[:, 0]

    def count(where: np.ndarray) -> np.ndarray:
        return np.bincount(truth[where], minlength=len(names))

    sizes = np.bincount(truth, minlength=len(names))
    kept, new = count(ours), count(theirs)
    lost, won = count(ours & ~theirs), count(~ours & theirs)
    filled = np.flatnonzero(sizes)
    z = simultaneous_z(len(filled))
    rows = [
        ClassRow(
            index=index,
            name=name,
            n=n,
            reference=share(int(kept[index]), n) if n else None,
            candidate=share(int(new[index]), n) if n else None,
            drop=paired_loss(int(lost[index]), int(won[index]), n) if n else None,
        )
        for index, (name, n) in enumerate(zip(names, sizes.tolist(), strict=True))
    ]
    widened = {int(i): paired_loss(int(lost[i]), int(won[i]), int(sizes[i]), z=z) for i in filled}
    return rows, widened, _by_chance(truth, int(lost.sum()), int(won.sum()), seed)


def _by_chance(truth: np.ndarray, lost: int, won: int, seed: int) -> np.ndarray | None:
    """The largest drop of a class, in points, for each of `CHANCES` draws of the samples that changed."""
    filled, place = np.unique(truth, return_inverse=True)
    if not lost + won or len(filled) < 2:
        return None
    rng = np.random.default_rng(seed)
    sizes = np.bincount(place)
    change = np.concatenate([np.ones(lost), -np.ones(won)])
    largest = np.empty(CHANCES)
    for index in range(CHANCES):
        # Drawn in random order, so the first of them are as random as the last.
        drawn = place[rng.choice(len(truth), lost + won, replace=False)]
        largest[index] = (np.bincount(drawn, weights=change, minlength=len(filled)) / sizes).max()
    return 100 * largest


def _ratios(pair: Pair, names: Sequence[str], seed: int) -> Found:
    rows: list[ClassRow] = []
    widened: dict[int, Estimate] = {}
    sizes = _sizes(pair.reference)
    z = simultaneous_z(int((sizes > 0).sum()))
    for start in range(0, len(names), COLUMNS):
        span = range(start, min(start + COLUMNS, len(names)))
        counted = [_counts(answers, span) for answers in (pair.reference, pair.candidate)]
        # Both models' columns in one draw: the drop is paired.
        columns = np.concatenate([np.concatenate(each, axis=1) for each in counted], axis=1)
        whole, drawn = columns.sum(axis=0)[None], resampled_sums(columns, seed=seed)
        for offset, index in enumerate(span):
            n = int(sizes[index])
            if not n:
                rows.append(ClassRow(index=index, name=names[index], n=0, reference=None, candidate=None, drop=None))
                continue
            values = [_ratio(whole, None, len(span), side, offset) for side in (0, 1)]
            spread = [_ratio(drawn, values[side], len(span), side, offset) for side in (0, 1)]
            drop, drops = values[0] - values[1], spread[0] - spread[1]
            rows.append(
                ClassRow(
                    index=index,
                    name=names[index],
                    n=n,
                    reference=_between(values[0], spread[0], n),
                    candidate=_between(values[1], spread[1], n),
                    drop=_between(drop, drops, n),
                )
            )
            half = z * float(drops.std())
            widened[index] = Estimate(value=float(drop[0]), low=float(drop[0]) - half, high=float(drop[0]) + half, n=n)
    return rows, widened, None


def _sizes(answers: Answers) -> np.ndarray:
    """How many samples or positions are of each class."""
    if answers.kind == "labels":
        return np.asarray(answers.truth.sum(axis=0))
    return np.bincount(answers.truth.reshape(-1), minlength=answers.classes)


def _counts(answers: Answers, classes: range) -> tuple[np.ndarray, np.ndarray]:
    """For each sample and class the numerator and the denominator of its metric: float64 [n, classes] both."""
    inside, wrong = [], []
    for index in classes:
        if answers.kind == "labels":
            said, true = answers.predicted[:, index, None] == 1, answers.truth[:, index, None] == 1
        else:
            said, true = answers.predicted == index, answers.truth == index
        inside.append((said & true).sum(axis=1))
        wrong.append((said ^ true).sum(axis=1))
    both, one = np.stack(inside, axis=1).astype(np.float64), np.stack(wrong, axis=1).astype(np.float64)
    # F1 = 2 TP / (2 TP + FP + FN), and IoU = TP / (TP + FP + FN).
    weight = 2.0 if answers.kind == "labels" else 1.0
    return weight * both, weight * both + one


def _ratio(sums: np.ndarray, otherwise: np.ndarray | None, span: int, side: int, offset: int) -> np.ndarray:
    """The metric in points for each row of sums; `otherwise` where a draw holds nothing of the class."""
    top, bottom = sums[:, 2 * side * span + offset], sums[:, (2 * side + 1) * span + offset]
    empty = 0.0 if otherwise is None else otherwise[0]
    return np.where(bottom > 0, 100 * top / np.where(bottom > 0, bottom, 1), empty)


def _between(value: np.ndarray, drawn: np.ndarray, n: int) -> Estimate:
    low, high = np.quantile(drawn, [0.025, 0.975])
    at = float(value[0])
    return Estimate(value=at, low=min(float(low), at), high=max(float(high), at), n=n)
