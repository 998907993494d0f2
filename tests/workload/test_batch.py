from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekit.errors import DataError
from edgekit.workload import Batch, as_batch

X, Z, Y = torch.ones(4, 3), torch.zeros(4, 2), torch.arange(4)


class Forward(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


ONE = Forward(lambda x: x)
TWO = Forward(lambda a, b: (a, b))
OPTIONAL = Forward(lambda a, b=None: (a, b))
MANY = Forward(lambda *xs: xs)
KEYED = Forward(lambda **kw: kw)


@pytest.mark.parametrize(
    ("item", "model", "args", "kwargs", "has_target"),
    [
        ((X, Y), ONE, (X,), {}, True),
        ([X, Y], ONE, (X,), {}, True),
        (X, ONE, (X,), {}, False),
        ((X,), ONE, (X,), {}, False),
        ((X, Z), TWO, (X, Z), {}, False),
        ((X, Z, Y), TWO, (X, Z), {}, True),
        (((X, Z), Y), TWO, (X, Z), {}, True),
        (((X, Z), Y), ONE, ((X, Z),), {}, True),
        ((X, Y), OPTIONAL, (X,), {}, True),
        ((X, Z, Y), OPTIONAL, (X, Z), {}, True),
        ((X, Z, Y), MANY, (X, Z), {}, True),
        (({"b": Z, "a": X}, Y), TWO, (), {"a": X, "b": Z}, True),
        (({"p": X}, Y), ONE, ({"p": X},), {}, True),
        ({"b": Z, "a": X, "labels": Y}, TWO, (), {"a": X, "b": Z}, True),
        ({"q": X, "target": Y}, KEYED, (), {"q": X}, True),
        ({"a": X}, OPTIONAL, (), {"a": X}, False),
    ],
)
def test_the_signature_decides_how_inputs_are_passed(item, model, args, kwargs, has_target):
    batch = as_batch(item, model)
    assert repr((batch.args, batch.kwargs)) == repr((args, kwargs))
    assert (batch.target is Y) == has_target
    assert len(batch) == 4
    batch.call(model)


@pytest.mark.parametrize(
    ("item", "model", "text"),
    [
        ("text", ONE, "is a str"),
        ((X, Z, X, Y), TWO, "has 3 inputs"),
        (({"q": X}, Y), TWO, r"has the inputs \['q'\]"),
    ],
)
def test_an_item_that_does_not_fit_is_named(item, model, text):
    with pytest.raises(DataError, match=text):
        as_batch(item, model)


def test_leaves_come_in_pytree_order_and_to_moves_inputs_only():
    batch = Batch((X, {"k": (Z, Y)}), {"s": torch.ones(4, 3, 2, 2)}, Y)
    assert [tuple(leaf.shape) for leaf in batch.leaves()] == [(4, 3), (4, 2), (4,), (4, 3, 2, 2)]
    moved = batch.to(dtype=torch.float64, memory_format=torch.channels_last)
    assert [leaf.dtype for leaf in moved.leaves()] == [torch.float64, torch.float64, torch.int64, torch.float64]
    assert moved.kwargs["s"].is_contiguous(memory_format=torch.channels_last)
    assert moved.target.dtype == torch.int64
    assert batch.args[0].dtype == torch.float32
