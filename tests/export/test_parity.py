from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.errors import ExportError
from edgekit.export.parity import BATCHES, DRAWS, check_parity

OPEN = ({0: "batch"},)


class Affine(nn.Module):
    def forward(self, x):
        return (2 * x + 1,)


def affine(arrays):
    return [2 * arrays[0] + 1]


def test_every_batch_and_seed_is_checked_and_the_difference_recorded():
    x = torch.randn(3, 4)
    seen = []

    def off(arrays):
        seen.append(arrays[0])
        return [2 * arrays[0] + 1 + np.float32(1e-6)]

    parity = check_parity(Affine(), off, [x], OPEN)
    assert parity.batches == tuple(sorted({*BATCHES, 3}))
    assert parity.seeds == tuple(range(4 * DRAWS))
    assert parity.checks == len(seen) == 4 * (1 + DRAWS)
    want = max(np.abs((2 * a + 1 + np.float32(1e-6)) - (2 * torch.from_numpy(a) + 1).numpy()).max() for a in seen)
    assert parity.max_abs_diff == pytest.approx(want)
    # Nothing is fed beyond the example's range, and the random inputs do differ.
    assert max(a.max() for a in seen) <= x.max()
    assert min(a.min() for a in seen) >= x.min()
    assert len({a.tobytes() for a in seen}) == len(seen)


def test_integers_and_masks_are_drawn_from_the_example_alone():
    tokens, mask = torch.tensor([[3, 7], [11, 5]]), torch.tensor([[0.0, 1.0], [1.0, 1.0]])

    class Add(nn.Module):
        def forward(self, tokens, mask):
            return (tokens + mask,)

    def run(arrays):
        assert set(np.unique(arrays[0])) <= {3, 5, 7, 11}
        assert set(np.unique(arrays[1])) <= {0.0, 1.0}
        # The rows of all inputs are drawn together: a sequence keeps its mask.
        assert all((mask == 0).any() == (3 in row) for row, mask in zip(*arrays, strict=True))
        return [(arrays[0] + arrays[1]).astype(np.float32)]

    check_parity(Add(), run, [tokens, mask], ({0: "batch"}, {0: "batch"}))


def test_an_example_of_zeros_still_shows_a_wrong_weight():
    with pytest.raises(ExportError, match="differs"):
        check_parity(Affine(), lambda arrays: [3 * arrays[0] + 1], [torch.zeros(2, 3)], OPEN)


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (lambda arrays: [2 * arrays[0] + 1.01], "output 0 differs by 0.01"),
        (lambda arrays: [affine(arrays)[0][:, :1]], "PyTorch gives float32 [2, 3]"),
        (lambda arrays: [affine(arrays)[0].astype(np.float64)], "output 0 is float64"),
        (lambda arrays: [affine(arrays)[0] * np.float32(np.nan)], "of the ONNX file are NaN or infinite"),
        (lambda arrays: affine(arrays) * 2, "the file has 2 outputs, the model 1"),
        (lambda _arrays: [1 / 0], "ONNX Runtime fails: division by zero"),
    ],
)
def test_each_way_to_be_wrong_is_named(run, said):
    with pytest.raises(ExportError) as caught:
        check_parity(Affine(), run, [torch.randn(2, 3)], OPEN)
    assert said in str(caught.value)
    assert "parity gate" in str(caught.value)


def test_wrong_at_one_batch_size_only():
    def run(arrays):
        return [affine(arrays)[0] * (2 if len(arrays[0]) == 5 else 1)]

    with pytest.raises(ExportError, match="at batch 5"):
        check_parity(Affine(), run, [torch.randn(2, 3)], OPEN)


def test_tolerance_is_relative_to_the_largest_output():
    x = torch.tensor([[100.0, 1e-7], [50.0, 2e-7]])
    noise = np.float32(5e-4)  # Less than 1e-5 of the largest output, more than all of the smallest.

    class Same(nn.Module):
        def forward(self, x):
            return (x * 1,)

    assert check_parity(Same(), lambda arrays: [arrays[0] + noise], [x], ({},)).max_abs_diff == pytest.approx(
        5e-4, rel=0.02
    )
    with pytest.raises(ExportError):
        check_parity(Same(), lambda arrays: [arrays[0] + 5 * noise], [x], ({},))


class Cancelling(nn.Module):
    """Loses all but three digits of what it is given, as networks do that subtract large numbers."""

    def forward(self, x):
        return ((x + 1e4) - 1e4,)


def test_a_file_may_differ_by_what_rounding_does_in_the_model_itself():
    x = torch.randn(64, 3)
    net, off = Cancelling(), 0.0
    own = float((net(x)[0] - x).abs().max())

    def run(arrays):
        return [arrays[0] + np.float32(off)]  # exact where the model rounds

    parity = check_parity(net, run, [x], ({},))
    assert own / 2 < parity.max_abs_diff < 2 * own
    off = 8 * own
    with pytest.raises(ExportError, match="output 0 differs by"):
        check_parity(net, run, [x], ({},))


def test_rounding_excuses_no_difference_that_is_large():
    x = torch.randn(64, 3)

    class Worse(nn.Module):
        def forward(self, x):
            return ((x + 1e7) - 1e7,)

    with pytest.raises(ExportError, match="output 0 differs by"):
        check_parity(Worse(), lambda arrays: [arrays[0]], [x], ({},))
