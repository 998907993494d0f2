"""Weights, head, stages, classes: what a fine-tuning is put together from."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import TensorDataset

from edgekit.errors import DataError, TrainingError
from edgekit.tasks import classification, regression
from edgekit.transfer import (
    Classes,
    Stage,
    few,
    find_head,
    fit_weights,
    rates_of,
    stages_of,
    with_head,
)
from edgekit.workload import Batch, digest_of
from edgekit.workload.weights import read_weights


def changed(net):
    return {name: value + 1 for name, value in net.state_dict().items()}


@pytest.mark.parametrize("kind", ["safetensors", "pt", "lightning", "parallel"])
def test_weights_are_read_from_what_people_have(net, tmp_path, kind):
    state = changed(net)
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pt")
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "pt":
        torch.save(state, path)
    elif kind == "lightning":
        torch.save({"epoch": 3, "state_dict": {f"model.{name}": value for name, value in state.items()}}, path)
    else:
        torch.save({f"module.{name}": value for name, value in state.items()}, path)
    found = read_weights(path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_what_does_not_fit_is_named_and_left_as_it_is(net):
    state = changed(net)
    del state["norm.bias"]
    state["head.weight"], state["extra"] = torch.ones(9, 8), torch.ones(2)
    before = net.head.weight.detach().clone()
    fitting = fit_weights(net, state)
    assert str(fitting) == (
        f"{len(state) - 2} weights taken; 1 not in the file: norm.bias; 1 not in the network: extra; "
        "1 of another shape: head.weight ([9, 8], here [3, 8])"
    )
    assert torch.equal(net.head.weight, before)
    assert torch.equal(net.stem.weight, state["stem.weight"])


def test_a_file_of_another_network_is_refused(net):
    with pytest.raises(TrainingError, match="at least half of the network's weights"):
        fit_weights(net, {"stem.weight": net.stem.weight.detach()})


def test_the_head_is_the_last_layer_with_weights(net, example):
    before = digest_of(net)
    head = find_head(net, example)
    assert (head.name, head.width, head.outputs, head.last) == ("head", 8, 3, True)
    new = with_head(net, head, 7, example)
    assert new(example.args[0]).shape == (2, 7)
    assert digest_of(net) == before
    assert digest_of(with_head(net, head, 7)) == digest_of(new)
    assert digest_of(with_head(net, head, 7, seed=1)) != digest_of(new)
    assert all(torch.equal(a, b) for a, b in zip(net.second.parameters(), new.second.parameters(), strict=True))


def test_a_convolution_may_be_the_head_and_is_no_last_word():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    example = Batch((torch.randn(2, 3, 8, 8),), {}, None)
    head = find_head(net, example)
    assert (head.name, head.width, head.outputs, head.last) == ("2", 4, 5, False)
    assert with_head(net, head, 9, example)(example.args[0]).shape == (2, 9)


def test_a_head_that_cannot_be_is_named(net, example):
    def fails(message, model=net, **options):
        with pytest.raises(TrainingError, match=message) as caught:
            find_head(model, example, **options)
        return str(caught.value)

    assert "did you mean head?" in fails("no module 'haed'", name="haed")
    fails("'norm', is a BatchNorm2d", name="norm")
    scaled = nn.Sequential(net, nn.LayerNorm(3))
    assert "--head" in fails("'1', is a LayerNorm", scaled)
    head = find_head(net, example, name="stem")
    with pytest.raises(TrainingError, match="with 4 outputs of 'stem' the network raises RuntimeError"):
        with_head(net, head, 4, example)


def test_stages_are_read_off_the_tree_in_the_order_of_calls(net, example):
    head = find_head(net, example)
    stages = stages_of(net, example, head)
    assert [stage.name for stage in stages] == ["stem … norm", "first", "second"]
    names = [name for stage in stages for name in stage.parameters]
    assert sorted([*names, "head.weight", "head.bias"]) == sorted(name for name, _ in net.named_parameters())
    assert stages[1].values == 8 * 8 * 9 + 16
    assert rates_of(stages, 0.5)["stem.weight"] == 0.125
    assert rates_of(stages, 0.5)["second.0.norm.bias"] == 0.5
    assert "head.weight" not in rates_of(stages, 0.5)


def test_deep_networks_have_five_stages_and_tokens_are_in_the_first():
    class Vision(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1, 1, 4))
            self.embed = nn.Linear(3, 4)
            self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True) for _ in range(9))
            self.norm = nn.LayerNorm(4)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            x = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)], 1)
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x)[:, 0])

    net, example = Vision(), Batch((torch.randn(2, 5, 3),), {}, None)
    stages = stages_of(net, example, find_head(net, example))
    assert len(stages) == 5
    assert stages[0].parameters[0] == "token"
    assert stages[0].name.startswith("embed")
    assert "norm.weight" in stages[-1].parameters
    names = [name for stage in stages for name in stage.parameters]
    assert sorted([*names, "head.weight", "head.bias"]) == sorted(name for name, _ in net.named_parameters())
    assert names.index("blocks.3.linear1.weight") < names.index("blocks.4.linear1.weight")


def test_rates_fall_towards_the_input():
    stages = [Stage(name=name, parameters=(name,), values=1) for name in "abc"]
    assert rates_of(stages, 0.7) == pytest.approx({"a": 0.7**3, "b": 0.7**2, "c": 0.7})


def test_classes_without_samples_and_too_few_are_named():
    def data(labels):
        return TensorDataset(torch.zeros(len(labels), 2), torch.tensor(labels))

    def classes(labels, names=(), task=None):
        return Classes.of(data(labels), task or classification(), model=nn.Linear(2, 2), names=names)

    assert classes([0, 1, 1, 2]).counts == (1, 2, 1)
    with pytest.raises(DataError, match=r"no sample of 1, 3\n"):
        classes([0, 2, 4])
    with pytest.raises(DataError, match="no sample of owl"):
        classes([0, 1], names=("ant", "bee", "owl"))
    with pytest.raises(DataError, match="2 labels: ant, bee"):
        classes([0, 1, 2], names=("ant", "bee"))
    with pytest.raises(DataError, match="1 class"):
        classes([0, 0])
    with pytest.raises(DataError, match=r"too few samples of ant \(1\), owl \(2\)") as caught:
        classes([0, 1, 1, 1, 2, 2], names=("ant", "bee", "owl")).need(3)
    assert "--shots 1" in str(caught.value)
    with pytest.raises(DataError, match="samples have no single class"):
        classes([0, 1], task=regression()).need(1)
    with pytest.raises(DataError, match="the data carry no target"):
        Classes.of([torch.zeros(2)] * 4, classification(), model=nn.Linear(2, 2))


def test_few_are_drawn_from_each_class_by_the_seed():
    data = TensorDataset(torch.arange(60.0)[:, None], torch.arange(60) % 3)
    chosen = few(data, 5, model=nn.Linear(1, 1), seed=1)
    labels = [int(chosen[index][1]) for index in range(len(chosen))]
    assert sorted(labels) == [0] * 5 + [1] * 5 + [2] * 5
    first = [few(data, 5, model=nn.Linear(1, 1), seed=seed).indices for seed in (1, 1, 2)]
    assert first[0] == first[1] != first[2]
