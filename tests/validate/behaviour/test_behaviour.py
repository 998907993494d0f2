import json
import math
from dataclasses import replace

import numpy as np
import pytest

from edgekit.errors import EdgekitError
from edgekit.stats import Estimate
from edgekit.tasks import classification, imitation, multilabel, regression
from edgekit.validate import Score
from edgekit.validate.behaviour import Figures, Gates, compare_behaviour, figures_of
from edgekit.validate.behaviour.quantities import output_change, quantiles

TASK = classification()


def estimate(value, error=0.0):
    return Estimate(value=value, low=value - 1.96 * error, high=value + 1.96 * error, n=100)


def plain(value):
    return json.loads(json.dumps(value, allow_nan=False))


def test_what_changed_is_json_and_has_every_part(score, logits):
    target, before, after = logits
    found = compare_behaviour(score(before, target), score(after, target), TASK, names=("fp32", "int8"))
    said = found.to_dict()
    assert plain(said) == said
    assert (said["reference"], said["candidate"], said["kind"], said["n"]) == ("fp32", "int8", "classes", 400)
    assert said["missing"] == {
        "robustness": "not measured: no time was given for it",
        "outputs": "the task classification answers with classes, not with quantities",
    }
    assert [name for name, part in said.items() if part is None] == ["outputs", "robustness"]
    assert found.figures == figures_of(score(before, target), score(after, target), TASK)


def test_labels_and_positions_have_every_part_too(score):
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, (20, 3))
    outputs = rng.normal(size=(20, 3))
    found = compare_behaviour(*(score(each, target, multilabel()) for each in (outputs, -outputs)), multilabel())
    assert (found.kind, found.classes.metric, found.churn.of) == ("labels", "F1", "samples")
    assert plain(found.to_dict())
    outputs = rng.normal(size=(20, 2, 3))
    found = compare_behaviour(*(score(each, target) for each in (outputs, -outputs)), TASK)
    assert (found.kind, found.classes.metric, found.churn.of) == ("positions", "IoU", "positions")
    assert plain(found.to_dict())


@pytest.mark.parametrize("task", [regression(), imitation()])
def test_quantities_say_in_words_what_they_have_not(score, task):
    rng = np.random.default_rng(1)
    target = rng.normal(size=(40, 3))
    before = target + 0.1 * rng.normal(size=target.shape)
    after = before + 0.05 * rng.normal(size=target.shape)
    reference, candidate = score(before, target, task), score(after, target, task)
    found = compare_behaviour(reference, candidate, task)
    assert plain(found.to_dict())
    assert (found.kind, found.classes, found.calibration) == ("quantities", None, None)
    assert found.missing["classes"].startswith(f"none for the task {task.name}: ")
    moved = np.abs(after - before).mean(axis=1)
    assert found.outputs.change.p50.value == pytest.approx(np.median(moved))
    assert found.outputs.change.p90.value == pytest.approx(np.percentile(moved, 90))
    assert found.outputs.change.p99 is None  # 40 samples say nothing of the 99th percentile
    assert found.outputs.largest == pytest.approx(np.abs(after - before).max())
    assert found.outputs.spread == pytest.approx(before.std())
    alike = task.agreement((after,), (before,))
    assert found.churn.changed.value == pytest.approx(100 * (1 - alike.mean()))
    assert figures_of(reference, candidate, task) == Figures(churn=found.churn.changed)


def test_quantile_intervals_cover_what_they_say():
    rng = np.random.default_rng(2)
    drawn = [quantiles(rng.exponential(size=300)) for _ in range(400)]
    for name, true in (("p50", np.log(2)), ("p90", np.log(10))):
        inside = [getattr(each, name).low <= true <= getattr(each, name).high for each in drawn]
        assert 0.92 <= np.mean(inside) <= 0.99


def test_output_change_keeps_to_the_samples_that_both_have(score):
    target = np.arange(12.0)
    reference, candidate = score(target, target, regression()), score(target[:7] + 1, target[:7], regression())
    found = output_change(reference, candidate)
    assert (found.change.p50.n, found.largest) == (7, 1.0)


def test_fewer_outputs_than_samples_are_said(score, logits):
    target, before, after = logits
    scores = [score(each, target) for each in (before, after)]
    cut = [
        Score(**{name: getattr(each, name) for name in each.__slots__} | {"outputs": (each.outputs[0][:50],)})
        for each in scores
    ]
    found = compare_behaviour(*cut, TASK)
    assert (found.n, found.scored, found.churn.counts["n"]) == (50, 400, 50)
    assert found.notes == ("the outputs of the first 50 of 400 samples were kept",)


def test_gates_say_what_they_break():
    gates = Gates(max_churn=2, max_worst_class_drop=5, max_ece_rise=1, max_robustness_drop=0)
    found = Figures(churn=estimate(2.0), worst_class_drop=estimate(6.25), ece_rise=estimate(-1.0))
    assert gates.broken(found) == (
        "worst class's drop 6.25 points > 5.00 points",
        "robustness drop not measured, so not known to be within 0.00 points",
    )
    assert [row["holds"] for row in gates.rows(found)] == [True, False, True, False]
    assert gates.unmeasured(found) == ("robustness drop",)
    assert gates.before_the_end.broken(found) == ("worst class's drop 6.25 points > 5.00 points",)
    assert gates.before_the_end.excess(found) == pytest.approx(0.25)
    unknown = replace(found, churn=estimate(math.nan))
    assert gates.before_the_end.excess(unknown) == math.inf
    assert len(gates.before_the_end.broken(unknown)) == 2


def test_a_margin_is_half_a_standard_error_where_it_is_asked_for():
    gates, touching = Gates(max_churn=2.0), Figures(churn=estimate(1.9, error=0.3))
    assert gates.broken(touching) == ()
    assert gates.broken(touching, margin=0.5) == ("churn 2.05 % > 2.00 %",)
    assert gates.broken(Figures(churn=estimate(float("nan"))))


def test_without_gates_all_is_allowed_and_nothing_breaks_a_file_against_itself():
    assert not Gates()
    assert Gates().broken(Figures()) == ()
    all_zero = Gates(max_churn=0, max_worst_class_drop=0, max_ece_rise=0, max_robustness_drop=0)
    assert all_zero
    assert all_zero.broken(Figures.unchanged(), margin=0.5) == ()


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_a_limit_is_a_number(value):
    with pytest.raises(EdgekitError, match="got") as caught:
        Gates(max_ece_rise=value)
    assert caught.value.where == "--max-ece-rise"
