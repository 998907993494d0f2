from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from edgekit.errors import DataError
from edgekit.workload import Stream, loader

ONE = nn.Linear(3, 1)


class Augmented(Dataset):
    """Draws from all three global generators, as users' data sets do."""

    def __init__(self, n=20):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        noise = torch.rand(3) + float(np.random.rand()) + random.random()  # noqa: NPY002, S311
        return torch.full((3,), float(index)) + noise, index


def flat(batches):
    return [(batch.args[0], batch.target) for batch in batches]


def same(a, b):
    return len(a) == len(b) and all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(workers):
    stream = Stream(Augmented(), ONE, batch_size=4, shuffle=True, seed=3)
    assert same(flat(stream.run(0, 12)), flat(stream.run(0, 12, workers=workers)))


def test_a_later_start_gives_the_rest_of_the_same_sequence():
    stream = Stream(Augmented(), ONE, batch_size=4, shuffle=True, seed=3)
    assert same(flat(stream.run(0, 12))[7:], flat(stream.run(7, 12)))


def test_every_epoch_has_its_own_order_and_augmentations_and_holds_every_sample_once():
    stream = Stream(Augmented(), ONE, batch_size=4, shuffle=True, seed=0)
    epochs = [flat(stream.run(start, start + 5)) for start in (0, 5)]
    orders = [torch.cat([y for _, y in epoch]) for epoch in epochs]
    assert all(sorted(order.tolist()) == list(range(20)) for order in orders)
    assert not torch.equal(*orders)
    other = Stream(Augmented(), ONE, batch_size=4, shuffle=True, seed=1)
    assert not torch.equal(torch.cat([batch.target for batch in other.run(0, 5)]), orders[0])


def test_the_users_generators_are_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(loader(Augmented(), 4, model=ONE))
    list(loader(Augmented(), 4, model=ONE, workers=1))
    assert torch.equal(torch.rand(3), expected)


def test_a_pass_can_be_repeated():
    batches = loader(Augmented(), 6, model=ONE, shuffle=True, seed=1)
    assert len(batches) == 4
    assert same(flat(batches), flat(batches))


def test_ranks_share_every_batch_out():
    whole = Stream(Augmented(), ONE, batch_size=8, shuffle=True, seed=0)
    parts = [Stream(Augmented(), ONE, batch_size=8, shuffle=True, seed=0, rank=r, world=2) for r in (0, 1)]
    for step in range(3):
        shares = [part.indexes(step) for part in parts]
        assert not set(shares[0]) & set(shares[1])
        assert sorted(shares[0] + shares[1]) == sorted(whole.indexes(step))


def test_drop_last_and_limit():
    data = TensorDataset(torch.arange(10.0)[:, None], torch.arange(10))
    assert [len(b) for b in loader(data, 4, model=ONE)] == [4, 4, 2]
    assert [len(b) for b in loader(data, 4, model=ONE, drop_last=True)] == [4, 4]
    assert [b.target.tolist() for b in loader(data, 4, model=ONE, limit=5)] == [[0, 2, 4, 6], [8]]
    assert len(Stream(data, ONE, batch_size=64, drop_last=True)) == 1


class Broken(Augmented):
    def __getitem__(self, index):
        if index == 5:
            raise ValueError("sample five is rotten")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_raises_is_shown_with_its_line(workers):
    with pytest.raises(DataError) as caught:
        list(loader(Broken(), 4, model=ONE, workers=workers))
    assert "ValueError: sample five is rotten" in str(caught.value)
    assert "test_loading.py:" in str(caught.value)


def test_samples_of_different_shapes_are_named():
    data = [(torch.zeros(2), 0), (torch.zeros(3), 1)]
    with pytest.raises(DataError, match="cannot be put together: RuntimeError"):
        list(loader(data, 2, model=ONE))


def test_no_samples():
    with pytest.raises(DataError, match="0 samples"):
        loader([], 4, model=ONE)


class Deadly(Augmented):
    def __getitem__(self, index):
        os._exit(3)


def test_a_worker_that_dies_is_an_error_with_a_way_out():
    with pytest.raises(DataError, match="a process that loads data died"):
        list(loader(Deadly(), 4, model=ONE, workers=1))
