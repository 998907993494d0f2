"""Losses against their formulas, written in numpy sample by sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekit import tasks
from edgekit.distill import DistillConfig, decoupled, distillation_objective, mixed, standardized, target_and_rest
from edgekit.errors import TrainingError
from edgekit.training import FitConfig
from edgekit.workload import Batch

FIT = FitConfig(epochs=1)
CLASSES = 5


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def divergence(p, q):
    return float((p * np.log(p / q)).sum())


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (3 * torch.randn(7, CLASSES, generator=generator) for _ in range(2))
    return ours, theirs, torch.tensor([0, 1, 2, 3, 4, 0, 1])


def by_hand(ours, theirs, target, temperature):
    """Both parts of the decoupled loss, by the paper's equations 4 to 7."""
    parts = []
    for s, t, label in zip(ours.double().numpy(), theirs.double().numpy(), target.tolist(), strict=True):
        p, q = softmax(t / temperature), softmax(s / temperature)
        others = [index for index in range(CLASSES) if index != label]
        two_p, two_q = np.array([p[label], 1 - p[label]]), np.array([q[label], 1 - q[label]])
        rest_p, rest_q = p[others] / p[others].sum(), q[others] / q[others].sum()
        parts.append((divergence(two_p, two_q), divergence(rest_p, rest_q), p[label], divergence(p, q)))
    return np.array(parts).T


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_two_parts_are_those_of_the_paper_and_make_up_the_divergence(logits, temperature):
    about_target, about_rest = target_and_rest(*logits, temperature)
    first, second, right, whole = by_hand(*logits, temperature)
    np.testing.assert_allclose(about_target, first, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(about_rest, second, rtol=1e-4, atol=1e-6)
    # Equation 7: with 1 and 1 - p of the target for weights the sum is the usual loss.
    np.testing.assert_allclose(about_target + torch.tensor(1 - right) * about_rest, whole, rtol=1e-4)


def test_dkd_is_the_weighted_mean_times_the_squared_temperature(logits):
    first, second, *_ = by_hand(*logits, 2.0)
    value = decoupled(*logits, 2.0, target_weight=0.5, rest_weight=3.0)
    assert value.item() == pytest.approx(4 * (0.5 * first + 3.0 * second).mean(), rel=1e-4)


def test_without_a_label_the_teachers_answer_is_the_target(logits):
    ours, theirs, target = logits
    unlabelled, answered = target.clone(), target.clone()
    unlabelled[2:5] = -100
    answered[2:5] = theirs[2:5].argmax(1)
    weights = {"target_weight": 1.0, "rest_weight": 8.0}
    assert torch.equal(
        decoupled(ours, theirs, unlabelled, 4.0, **weights), decoupled(ours, theirs, answered, 4.0, **weights)
    )


def test_dkd_over_positions_is_dkd_over_as_many_samples(logits):
    ours, theirs, target = (torch.cat([x, x.flip(0)]) for x in logits)
    weights = {"target_weight": 1.0, "rest_weight": 2.0}
    flat = decoupled(ours, theirs, target, 3.0, **weights)
    maps = [z.reshape(2, 7, CLASSES).permute(0, 2, 1) for z in (ours, theirs)]
    assert decoupled(*maps, target.reshape(2, 7), 3.0, **weights).item() == pytest.approx(flat.item(), rel=1e-5)


def test_standardized_logits_do_not_know_scale_and_shift(logits):
    ours, theirs, _ = logits
    z = standardized(ours)
    expected = (ours.numpy() - ours.numpy().mean(1, keepdims=True)) / ours.numpy().std(1, ddof=1, keepdims=True)
    np.testing.assert_allclose(z, expected, rtol=1e-4, atol=1e-6)
    scale, shift = torch.rand(7, 1) + 0.5, torch.randn(7, 1)
    torch.testing.assert_close(standardized(scale * ours + shift), z, rtol=1e-4, atol=1e-5)
    config = DistillConfig(fit=FIT, hard=0.0, soft=1.0, standardize=True, temperature=2.0)

    def loss(said):
        objective = distillation_objective(lambda _batch: theirs, tasks.classification(), config)
        return objective(torch.nn.Identity(), Batch((said,), {}, None)).item()

    p, q = softmax(standardized(theirs).numpy() / 2), softmax(z.numpy() / 2)
    assert loss(ours) == pytest.approx(4 * (p * np.log(p / q)).sum(1).mean(), rel=1e-4)
    assert loss(5 * ours + 3) == pytest.approx(loss(ours), rel=1e-4)


def test_equal_logits_have_a_finite_standard_form_and_gradient():
    flat = torch.zeros(2, 3, requires_grad=True)
    standardized(flat + torch.tensor([[0.0, 0.0, 1e-3]])).sum().backward()
    assert torch.isfinite(flat.grad).all()
    assert standardized(torch.ones(1, 4)).tolist() == [[0.0] * 4]


def test_several_teachers_are_the_average_of_their_softened_probabilities(logits):
    ours, theirs, _ = logits
    expected = (3 * softmax(ours.numpy() / 2) + softmax(theirs.numpy() / 2)) / 4
    np.testing.assert_allclose(softmax(mixed([ours, theirs], [3, 1], 2.0).numpy() / 2), expected, rtol=1e-4)
    student = torch.randn(7, CLASSES)
    config = DistillConfig(fit=FIT, hard=0.0, soft=1.0, temperature=2.0)
    teachers = [lambda _batch: ours, lambda _batch: (theirs,)]
    objective = distillation_objective(teachers, tasks.classification(), config, teacher_weights=[0.75, 0.25])
    q = softmax(student.numpy() / 2)
    value = objective(torch.nn.Identity(), Batch((student,), {}, None)).item()
    assert value == pytest.approx(4 * (expected * np.log(expected / q)).sum(1).mean(), rel=1e-4)


def test_what_is_for_classification_alone_is_refused_elsewhere():
    def objective(teacher, **changes):
        distillation_objective(teacher, tasks.regression(), DistillConfig(fit=FIT, **changes))

    with pytest.raises(TrainingError, match="dkd with the task regression"):
        objective(torch.nn.Identity(), loss="dkd")
    with pytest.raises(TrainingError, match="standardize with the task regression"):
        objective(torch.nn.Identity(), standardize=True)
    with pytest.raises(TrainingError, match="teachers with the task regression"):
        objective([torch.nn.Identity(), torch.nn.Identity()])


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0]])
def test_wrong_weights_of_teachers_are_named(weights):
    with pytest.raises(TrainingError, match="for 2 teachers"):
        distillation_objective(
            [torch.nn.Identity()] * 2, tasks.classification(), DistillConfig(fit=FIT), teacher_weights=weights
        )
