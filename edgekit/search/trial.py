"""One trial: a network is proposed, and goes up the rungs for as long as it is worth it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from edgekit.choices import Choice, Option, SearchSpace, choosing
from edgekit.errors import EdgekitError, UnreachableError
from edgekit.search.asked import Values
from edgekit.search.settings import SearchSettings
from edgekit.search.site import Site
from edgekit.search.speeds import Speed
from edgekit.validate import Comparison, Score, compare

CHOICES, REASON, TWIN, DROP, SPEED, SPACE = "choices", "reason", "same as trial", "drop", "speed", "space"
"""User attributes of a trial; `SPACE` is the study's: what builders have asked for so far."""


def objective_of(site: Site, study: optuna.Study) -> Callable[[Trial], Sequence[float]]:
    """What a worker runs for each trial: from the choices to the aims."""

    def objective(trial: Trial) -> Sequence[float]:
        try:
            values = _proposed(site, study, trial)
            trial.set_user_attr(CHOICES, values)
            twin = _twin(study, trial, values)
            if twin is not None:
                return _again(trial, twin)
            with site.claimed(values) as is_free:
                if not is_free:
                    raise _pruned(trial, "another worker is at work on this network")
                return _climbed(site, study, trial, values)
        except UnreachableError:
            # No fault of this network: every other one would meet it, too. The trial is run again later.
            raise
        except EdgekitError as error:
            # A network that cannot be built, exported or trained is an answer, too.
            raise _pruned(trial, str(error)) from error

    return objective


def goes_on(mine: Sequence[float], others: Sequence[Sequence[float]], factor: int) -> bool:
    """Whether a network is among the best 1/`factor` of those that reached its rung.

    Its rank is the number of others that beat it: better in one aim, worse in none. With one aim this is asynchronous
    successive halving; with several, those nearest to the front go on.

    >>> [goes_on(mine, [(1, 9), (2, 8), (5, 5)], 2) for mine in [(3, 3), (1.5, 9), (9, 9)]]
    [True, True, False]
    """
    beaten_by = sum(
        tuple(other) != tuple(mine) and all(a <= b for a, b in zip(other, mine, strict=True)) for other in others
    )
    return beaten_by < max(1, (len(others) + 1) // factor)


def suggesting(trial: Trial) -> Callable[[Choice], int]:
    """A `Pick` that lets Optuna decide: on a scale where options are in order, among kinds where they are not."""

    def pick(asked: Choice) -> int:
        if asked.is_ordered:
            return trial.suggest_int(asked.name, 0, len(asked.options) - 1)
        taken = trial.suggest_categorical(asked.name, asked.options)
        assert taken is not None
        return asked.index(taken)

    return pick


def _proposed(site: Site, study: optuna.Study, trial: Trial) -> dict[str, Option]:
    with choosing(suggesting(trial)) as made:
        site.build()
    known = SearchSpace.from_dict(study.user_attrs.get(SPACE, {"choices": []}))
    joined = known.joined(made.space)
    if joined != known:
        study.set_user_attr(SPACE, joined.to_dict())
    return made.values


def _twin(study: optuna.Study, trial: Trial, values: Values) -> FrozenTrial | None:
    """A trial of the same network that is finished, or was begun before."""
    for other in study.get_trials(deepcopy=False):
        done = other.state in (TrialState.COMPLETE, TrialState.PRUNED)
        earlier = other.state == TrialState.RUNNING and other.number < trial.number
        if other.number != trial.number and (done or earlier) and other.user_attrs.get(CHOICES) == values:
            return other
    return None


def _again(trial: Trial, twin: FrozenTrial) -> Sequence[float]:
    """End as the twin did, without training."""
    trial.set_user_attr(TWIN, twin.number)
    if twin.state != TrialState.COMPLETE:
        raise _pruned(trial, f"the same network as trial {twin.number}")
    for name in (SPEED, DROP):
        trial.set_user_attr(name, twin.user_attrs[name])
    return list(twin.values)


def _climbed(site: Site, study: optuna.Study, trial: Trial, values: Values) -> Sequence[float]:
    settings = site.settings
    speed = site.speeds.of(values)
    trial.set_user_attr(SPEED, {name: getattr(speed, name) for name in Speed.__slots__})
    limit = settings.max_latency_ms
    if limit is not None:
        trial.set_constraint("latency", speed.latency_ms - limit)
        if speed.latency_ms > limit:
            raise _pruned(trial, f"latency {speed.latency_ms:.3f} ms > {limit} ms")
    found: tuple[float, ...] = ()
    last = len(settings.short) - 1
    for rung in range(last + 1):
        drop = drop_at(site, values, rung).drop
        trial.set_user_attr(DROP, drop.to_dict())
        found = _aims(settings, speed, drop.value)
        trial.set_user_attr(_reached(rung), found)
        if rung < last and not _is_promoted(study, trial, settings, rung, found):
            raise _pruned(trial, f"not among the best 1/{settings.factor} after {settings.short[rung]:g} epochs")
    return found


def drop_at(site: Site, values: Values, rung: int | str, *, deadline_s: float | None = None) -> Comparison:
    """The network against the reference after as much training, both in PyTorch on the selection split."""
    score = Score.load(site.trainings.trained(values, rung, deadline_s=deadline_s))
    return compare(score, site.trainings.reference(rung), site.workload.task)


def _is_promoted(
    study: optuna.Study, trial: Trial, settings: SearchSettings, rung: int, found: tuple[float, ...]
) -> bool:
    if len(found) == 1:
        trial.report(found[0], settings.factor**rung)
        return not trial.should_prune()
    others = [
        other.user_attrs[_reached(rung)]
        for other in study.get_trials(deepcopy=False)
        if other.number != trial.number and _reached(rung) in other.user_attrs
    ]
    return goes_on(found, others, settings.factor)


def pruner_of(settings: SearchSettings) -> optuna.pruners.BasePruner:
    """Asynchronous successive halving over the rungs; for one aim, since Optuna prunes by one value."""
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=settings.factor)


def _aims(settings: SearchSettings, speed: Speed, drop: float) -> tuple[float, ...]:
    values: dict[str, Any] = {"latency": speed.latency_ms, "drop": drop, "size": float(speed.size_bytes)}
    return tuple(values[aim] for aim in settings.aims)


def _reached(rung: int) -> str:
    return f"rung {rung}"


def _pruned(trial: Trial, reason: str) -> optuna.TrialPruned:
    trial.set_user_attr(REASON, reason)
    return optuna.TrialPruned(reason)
