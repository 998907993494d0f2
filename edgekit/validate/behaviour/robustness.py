"""Whether the compressed file bears less than the original: both on the same perturbed inputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import stats
from edgekit.errors import EdgekitError
from edgekit.progress import Progress, Step, silent
from edgekit.spec import Feeds
from edgekit.stats import Estimate
from edgekit.tasks import Arrays, Task
from edgekit.validate.behaviour.perturbations import Perturbation, suite
from edgekit.validate.behaviour.pixels import Inputs
from edgekit.validate.feeds import feeds_of, fixed_batch, signature_of
from edgekit.validate.scoring import answers_of, target_of
from edgekit.workload import loader, size_of

SAMPLES, BATCH = 1000, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Both files under one perturbation, in the metric's unit; None where no sample could be scored.

    Args:
        perturbation: such as `gaussian noise`; `none` for the inputs as they are.
        severity: 1 to 5; 0 for none.
        setting: the strength in words.
        reference: the original's metric.
        candidate: the compressed file's.
        drop: how much worse the compressed file is, paired by sample; negative where it is better.
        added: by how much that is more than without perturbation, on the same samples.
        not_finite: samples for which a file gave NaN or infinity: wrong answers in tasks with labels, else left out.
    """

    perturbation: str
    severity: int
    setting: str
    reference: Estimate | None
    candidate: Estimate | None
    drop: Estimate | None
    added: Estimate | None
    not_finite: int

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        measured = {name: getattr(self, name) for name in ("reference", "candidate", "drop", "added")}
        return {
            "perturbation": self.perturbation,
            "severity": self.severity,
            "setting": self.setting,
            **{name: None if value is None else value.to_dict() for name, value in measured.items()},
            "not_finite": self.not_finite,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Robustness:
    """Both files under all perturbations.

    Args:
        n: samples; fewer than were asked for where the time ended.
        asked: samples that were asked for.
        unit: of the metric.
        scale: whose strengths the perturbations have.
        source: how inputs became pixels and back.
        clean: the inputs as they are, of the same samples.
        slices: one for each perturbation and severity.
        drop: mean of the drops over all slices, by sample; None where no sample could be scored.
    """

    n: int
    asked: int
    unit: str
    scale: str
    source: str
    clean: Slice
    slices: tuple[Slice, ...]
    drop: Estimate | None

    @property
    def worst(self) -> Slice | None:
        """The slice with the largest drop."""
        known = [each for each in self.slices if each.drop is not None]
        return max(known, key=lambda each: each.drop.value if each.drop else 0.0, default=None)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        worst = self.worst
        return {
            "n": self.n,
            "asked": self.asked,
            "unit": self.unit,
            "scale": self.scale,
            "source": self.source,
            "interval": "bootstrap over samples",
            "clean": self.clean.to_dict(),
            "slices": [each.to_dict() for each in self.slices],
            "drop": None if self.drop is None else self.drop.to_dict(),
            "worst": None if worst is None else worst.to_dict(),
        }


def robustness(
    reference: Path,
    candidate: Path,
    task: Task,
    inputs: Inputs,
    *,
    time_s: float,
    samples: int = SAMPLES,
    target: str = "any",
    provider: str = "cpu",
    threads: int = 1,
    progress: Progress = silent,
    clock: Callable[[], float] = time.monotonic,
) -> Robustness | str:
    """Score both files on the same perturbed inputs, for at most about `time_s`.

    Batch by batch, each under all perturbations, in random order: whenever the time ends, all slices have the same
    samples. The first batch is always finished.

    Args:
        reference: the original file.
        candidate: the compressed one.
        task: the metric. Where its target is what the original says, that is what it says of the perturbed input.
        inputs: the data; their limit is not exceeded.
        time_s: seconds.
        samples: how many at most.
        target: the kind of CPU that the candidate is for, as for `validate`.
        provider: `cpu`, `cuda` or `tensorrt`.
        threads: intra-op threads.
        progress: told after each batch.
        clock: seconds that pass.

    Returns:
        What was found, or in words why these inputs cannot be perturbed.

    Raises:
        DataError: the data carry no targets.
        ProviderError: a file does not run on the provider.
    """
    if not time_s > 0:
        raise EdgekitError(f"got {time_s}", where="robustness", rule="more than 0 seconds")
    begin = clock()
    perturbed = suite(inputs)
    if isinstance(perturbed, str):
        return perturbed
    answers = [
        answers_of(path, spec=inputs.spec, target=target, provider=provider, threads=threads)
        for path in (reference, candidate)
    ]
    size = fixed_batch(inputs.spec) or BATCH
    limit = samples if inputs.limit is None else min(samples, inputs.limit)
    batches = loader(inputs.data, size, model=signature_of(inputs.spec), limit=limit, seed=inputs.seed, shuffle=True)
    columns: tuple[Perturbation | None, ...] = (None, *perturbed.perturbations)
    found: list[list[_Pairs]] = [[] for _ in columns]
    n = 0
    for number, batch in enumerate(batches):
        feeds = feeds_of(batch, inputs.spec)
        target = target_of(batch, f"robustness, samples {n} to {n + len(batch) - 1}")
        for index, perturbation in enumerate(columns):
            rng = np.random.default_rng((inputs.seed, number, index))
            given = feeds if perturbation is None else perturbation.apply(feeds, rng)
            found[index].append(_pairs(task, answers, given, target))
        n += len(batch)
        progress(Step("perturbing", number + 1, len(batches)))
        if clock() - begin >= time_s:
            break
    together = [_joined(each) for each in found]
    clean = together[0]
    drops = np.stack([_worse(each, task) for each in together[1:]])
    usable = np.isfinite(drops).all(axis=0)
    return Robustness(
        n=n,
        asked=min(limit, size_of(inputs.data)),
        unit=task.unit,
        scale=perturbed.scale,
        source=perturbed.source,
        clean=_slice(None, clean, clean, task, inputs.seed),
        slices=tuple(
            _slice(perturbation, each, clean, task, inputs.seed)
            for perturbation, each in zip(perturbed.perturbations, together[1:], strict=True)
        ),
        drop=_mean(drops.mean(axis=0)[usable], inputs.seed),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pairs:
    """What both files score on the same inputs [n], NaN where that cannot be said, and where outputs are not finite."""

    reference: np.ndarray
    candidate: np.ndarray
    not_finite: np.ndarray


def _pairs(task: Task, answers: Sequence[Callable[[Feeds], Arrays]], feeds: Feeds, target: Any) -> _Pairs:
    outputs = [answer(feeds) for answer in answers]
    if task.target_is_reference:
        target = np.nan_to_num(outputs[0][0])
    finite = [_finite(each) for each in outputs]
    values = []
    for each, whole in zip(outputs, finite, strict=True):
        known = tuple(np.nan_to_num(array) if array.dtype.kind == "f" else array for array in each)
        found = np.asarray(task.per_sample(known, target), dtype=np.float64) * task.scale
        # An answer that is no number is a wrong one; how wrong a quantity is then, nobody can say.
        values.append(np.where(whole, found, 0.0 if task.name in ("classification", "multilabel") else np.nan))
    return _Pairs(reference=values[0], candidate=values[1], not_finite=~(finite[0] & finite[1]))


def _finite(outputs: Arrays) -> np.ndarray:
    """Bool [n]: for which samples all outputs are finite."""
    whole = [np.isfinite(array.reshape(len(array), -1)).all(axis=1) for array in outputs]
    return np.asarray(np.all(whole, axis=0))


def _joined(parts: Sequence[_Pairs]) -> _Pairs:
    return _Pairs(
        reference=np.concatenate([each.reference for each in parts]),
        candidate=np.concatenate([each.candidate for each in parts]),
        not_finite=np.concatenate([each.not_finite for each in parts]),
    )


def _worse(pairs: _Pairs, task: Task) -> np.ndarray:
    """How much worse the compressed file is, sample by sample."""
    difference = pairs.reference - pairs.candidate
    return np.asarray(difference if task.higher_is_better else -difference)


def _slice(perturbation: Perturbation | None, pairs: _Pairs, clean: _Pairs, task: Task, seed: int) -> Slice:
    worse = _worse(pairs, task)
    added = worse - _worse(clean, task)
    return Slice(
        perturbation="none" if perturbation is None else perturbation.name,
        severity=0 if perturbation is None else perturbation.severity,
        setting="" if perturbation is None else perturbation.setting,
        reference=_mean(pairs.reference[np.isfinite(worse)], seed),
        candidate=_mean(pairs.candidate[np.isfinite(worse)], seed),
        drop=_mean(worse[np.isfinite(worse)], seed),
        added=None if perturbation is None else _mean(added[np.isfinite(added)], seed),
        not_finite=int(pairs.not_finite.sum()),
    )


def _mean(values: np.ndarray, seed: int) -> Estimate | None:
    return stats.mean(values, seed=seed) if len(values) else None
