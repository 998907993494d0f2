from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional import cosine_similarity, mean_absolute_error, mean_squared_error
from torchmetrics.functional.image import peak_signal_noise_ratio

from edgekit import tasks
from edgekit.errors import DataError

RNG = np.random.default_rng(1)
OUTPUT, TARGET = RNG.normal(size=(30, 4)).astype("float32"), RNG.normal(size=(30, 4)).astype("float32")
TORCH = torch.from_numpy(OUTPUT), torch.from_numpy(TARGET)


def test_regression_is_that_of_torchmetrics():
    task = tasks.regression()
    assert task.value((OUTPUT,), TARGET) == pytest.approx(mean_absolute_error(*TORCH).item(), rel=1e-5)
    assert task.loss(*TORCH).item() == pytest.approx(mean_squared_error(*TORCH).item(), rel=1e-5)
    assert task.distillation(*TORCH, 4.0).item() == pytest.approx(mean_squared_error(*TORCH).item(), rel=1e-5)
    assert not task.higher_is_better


def test_reconstruction_is_the_psnr_of_torchmetrics():
    expected = peak_signal_noise_ratio(*TORCH, data_range=2.0, dim=1, reduction="elementwise_mean")
    assert tasks.reconstruction(data_range=2.0).value((OUTPUT,), TARGET) == pytest.approx(expected.item(), rel=1e-5)
    assert tasks.reconstruction().value((OUTPUT,), OUTPUT) == 100.0


def test_imitation_is_the_cosine_of_torchmetrics():
    task = tasks.imitation()
    expected = cosine_similarity(*TORCH, reduction="mean")
    assert task.value((OUTPUT,), TARGET) == pytest.approx(100 * expected.item(), rel=1e-5)
    assert task.target_is_reference
    zero = np.zeros((1, 3))
    assert task.per_sample((zero,), zero).tolist() == [1.0]
    assert task.per_sample((zero,), zero + 1).tolist() == [0.0]


def test_answers_agree_within_a_share_of_the_references_spread():
    reference = np.array([[0.0], [10.0]])  # standard deviation 5
    task = tasks.regression(tolerance=0.1)
    assert task.agreement((np.array([[0.4], [10.6]]),), (reference,)).tolist() == [1.0, 0.0]


def test_a_column_of_outputs_fits_a_row_of_targets():
    task = tasks.regression()
    task.check((np.zeros((5, 1)),), np.zeros(5))
    assert task.loss(torch.zeros(5, 1), torch.ones(5)).item() == 1.0


def test_shapes_that_differ_are_named():
    with pytest.raises(DataError, match=r"shape \[5, 2\], the target \[5, 3\]"):
        tasks.regression().check((np.zeros((5, 2)),), np.zeros((5, 3)))


def test_custom_takes_the_users_functions():
    task = tasks.custom(
        loss=lambda out, y: (out - y).abs().mean(),
        per_sample=lambda out, y: np.abs(out[0] - y).max(axis=1),
        metric="largest error",
        unit="mm",
        higher_is_better=False,
    )
    assert task.loss(*TORCH).item() == pytest.approx(np.abs(OUTPUT - TARGET).mean(), rel=1e-5)
    assert task.value((OUTPUT,), TARGET) == pytest.approx(np.abs(OUTPUT - TARGET).max(axis=1).mean(), rel=1e-5)
    pair = (TORCH[0], torch.zeros(3, dtype=torch.int64))
    assert task.distillation(pair, (TORCH[1], pair[1]), 1.0).item() == pytest.approx(
        ((OUTPUT - TARGET) ** 2).mean(), rel=1e-5
    )
    assert task.drop(1.0, 3.0) == 2.0


def test_a_custom_metric_gives_one_number_per_sample():
    task = tasks.custom(loss=lambda out, _y: out.mean(), per_sample=lambda out, _y: out[0].mean())
    with pytest.raises(DataError, match=r"returned shape \[\] for 30 samples"):
        task.per_sample((OUTPUT,), TARGET)
