from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from edgekit import validate
from edgekit.errors import DataError, ProviderError, StoreError
from edgekit.export import export
from edgekit.spec import IOSpec, TensorSpec
from edgekit.stats import Estimate
from edgekit.tasks import classification, regression
from edgekit.validate import Score, compare, score, score_torch, scoring
from edgekit.workload import Batch


def by_hand(net, data) -> np.ndarray:
    """0 or 100 for each sample, from PyTorch."""
    with torch.no_grad():
        return 100.0 * (net(data.tensors[0]).argmax(1) == data.tensors[1]).double().numpy()


def test_every_sample_is_scored_as_by_hand(net, data, exported):
    found = score(exported.path, data, classification(), spec=exported.spec, batch_size=10)
    np.testing.assert_array_equal(found.per_sample, by_hand(net, data))
    assert found.n == found.metric.n == 37
    assert found.metric.value == pytest.approx(by_hand(net, data).mean())
    assert found.metric.low < found.metric.value < found.metric.high
    assert (found.name, found.unit, found.higher_is_better) == ("top-1 accuracy", "points", True)
    with torch.no_grad():
        np.testing.assert_allclose(found.outputs[0], net(data.tensors[0]).numpy(), rtol=1e-3, atol=1e-5)


def test_torch_scores_the_same_and_is_left_in_training(net, data):
    twin = type(net)()
    twin.load_state_dict(net.state_dict())
    twin.train()
    found = score_torch(twin, data, classification(), batch_size=10)
    np.testing.assert_array_equal(found.per_sample, by_hand(net, data))
    assert twin.training


def test_limit_takes_so_many(data, exported):
    assert score(exported.path, data, classification(), spec=exported.spec, limit=9).n == 9


def test_progress_ends_at_the_end(data, exported):
    steps = []
    score(exported.path, data, classification(), spec=exported.spec, batch_size=10, progress=steps.append)
    assert [step.done for step in steps] == [1, 2, 3, 4]
    assert steps[-1].total == 4
    assert "top-1 accuracy" in steps[-1].figures


def test_a_file_of_a_fixed_batch_is_fed_full_batches(net, data, tmp_path):
    fixed = export(net, Batch((data.tensors[0][:8],), {}, None), tmp_path / "fixed.onnx", dynamic="none")
    found = score(fixed.path, data, classification(), spec=fixed.spec)
    np.testing.assert_array_equal(found.per_sample, by_hand(net, data))


def test_several_inputs_by_name_and_lower_is_better(tmp_path):
    class Two(nn.Module):
        def forward(self, left, right):
            return left - right

    left, right = torch.randn(6, 3), torch.randn(6, 3)
    items = [({"right": r, "left": l}, l - r + 0.5) for l, r in zip(left, right, strict=True)]  # noqa: E741 - l and r
    done = export(Two(), Batch((left, right), {}, None), tmp_path / "two.onnx")
    found = score(done.path, items, regression(), spec=done.spec)
    assert not found.higher_is_better
    np.testing.assert_allclose(found.per_sample, np.full(6, found.metric.value), rtol=1e-5)
    assert compare(found, found, regression()).drop.value == 0


def test_labels_out_of_range_are_refused(data, exported):
    wrong = TensorDataset(data.tensors[0], data.tensors[1] + 3)
    with pytest.raises(DataError):
        score(exported.path, wrong, classification(), spec=exported.spec)


def test_outputs_that_are_not_finite_name_their_samples(data, exported):
    images = data.tensors[0].clone()
    images[23] = float("nan")
    with pytest.raises(DataError, match="4 of 40 values are NaN or infinite") as caught:
        score(
            exported.path, TensorDataset(images, data.tensors[1]), classification(), spec=exported.spec, batch_size=10
        )
    assert "samples 20 to 29" in caught.value.where


def test_data_without_targets_and_of_other_shapes(data, exported):
    with pytest.raises(DataError, match="no targets"):
        score(exported.path, [image for image, _ in data], classification(), spec=exported.spec)
    with pytest.raises(DataError, match=r"got float32 \[37, 3, 9, 9\]"):
        score(
            exported.path,
            TensorDataset(torch.randn(37, 3, 9, 9), data.tensors[1]),
            classification(),
            spec=exported.spec,
        )
    two = IOSpec(inputs=(*exported.spec.inputs, TensorSpec(name="y", dtype="float32", shape=("n",))), outputs=())
    with pytest.raises(DataError, match="1 inputs"):
        validate.feeds_of(Batch((data.tensors[0],), {}, None), two)


def test_unknown_and_absent_providers(data, exported):
    with pytest.raises(ProviderError, match="unknown provider 'gpu'"):
        score(exported.path, data, classification(), spec=exported.spec, provider="gpu")


def test_saved_and_loaded(data, exported, tmp_path):
    found = score(exported.path, data, classification(), spec=exported.spec)
    found.save(tmp_path / "score")
    again = Score.load(tmp_path / "score")
    assert again.to_dict() == found.to_dict()
    np.testing.assert_array_equal(again.per_sample, found.per_sample)
    np.testing.assert_array_equal(again.outputs[0], found.outputs[0])
    whole = (tmp_path / "score" / "score.npz").read_bytes()
    (tmp_path / "score" / "score.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match="no whole score"):
        Score.load(tmp_path / "score")


def made(per_sample, answers, *, higher=True) -> Score:
    """A score of these values; `answers` are the classes that the model says."""
    values = np.array(per_sample, dtype=np.float64)
    estimate = Estimate(value=float(values.mean()), low=0, high=100, n=len(values))
    return Score(
        metric=estimate,
        name="m",
        unit="points",
        higher_is_better=higher,
        per_sample=values,
        outputs=(np.eye(4)[answers],),
    )


def test_drop_agreement_fixed_and_broken_by_hand():
    reference = made([100, 100, 100, 0, 0], [0, 1, 2, 3, 0])
    candidate = made([100, 0, 0, 100, 0], [0, 0, 0, 2, 0])
    found = compare(candidate, reference, classification())
    assert found.drop.value == pytest.approx(60 - 40)
    assert (found.fixed, found.broken) == (1, 2)
    assert found.agreement.value == pytest.approx(100 * 2 / 5)
    assert found.drop.n == found.agreement.n == 5


def test_the_drop_is_paired():
    # Two models that fail on the same half differ in nothing, however uncertain each metric is.
    values = [0, 100] * 50
    found = compare(made(values, [0] * 100), made(values, [0] * 100), classification())
    assert (found.drop.low, found.drop.value, found.drop.high) == (0, 0, 0)


def test_where_lower_is_better_a_rise_is_a_drop():
    found = compare(made([3.0, 1.0], [0, 0], higher=False), made([1.0, 1.0], [0, 0], higher=False), classification())
    assert found.drop.value == 1.0
    assert (found.fixed, found.broken) == (0, 1)


def test_scores_of_other_samples_are_refused():
    with pytest.raises(DataError, match="2 samples against m of 3"):
        compare(made([1, 2], [0, 0]), made([1, 2, 3], [0, 0, 0]), classification())


def test_outputs_are_kept_within_bounds_and_agreement_uses_what_both_have(data, exported, monkeypatch):
    monkeypatch.setattr(scoring, "KEPT_BYTES", 10 * 4 * 4 + 1)
    found = score(exported.path, data, classification(), spec=exported.spec, batch_size=10)
    assert len(found.outputs[0]) == 20
    assert found.n == 37
    assert compare(found, found, classification()).agreement.n == 20
