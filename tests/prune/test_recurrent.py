"""Recurrent units that go: against the recurrences written out in numpy, and against smaller layers sliced by hand."""

from __future__ import annotations

import copy
import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from edgekit import prune as room
from edgekit.errors import PruneError
from edgekit.workload import Batch, digest_of

KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class Reader(nn.Module):
    """A recurrent layer between linear ones; `reads` says what of its outputs counts."""

    def __init__(self, layer, reads="last"):
        super().__init__()
        width = (layer.proj_size or layer.hidden_size) * (2 if layer.bidirectional else 1)
        self.before, self.layer, self.reads = nn.Linear(5, layer.input_size), layer, reads
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        x = torch.tanh(self.before(x))
        if not self.layer.batch_first:
            x = x.transpose(0, 1)
        out, state = self.layer(x)
        if self.reads == "state":
            hidden = state[0] if isinstance(state, tuple) else state
            pair = hidden[-2:] if self.layer.bidirectional else hidden[-1:]
            return self.head(pair.transpose(0, 1).flatten(1))
        return self.head(out.mean(1 if self.layer.batch_first else 0))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def one_way(kind, x, weights, gone):
    """The states [time, n, units] of one layer and direction over x [time, n, in]; units in `gone` answer zero."""
    reads, recurs, bias_reads, bias_recurs, projection = weights
    units = len(reads) // {"lstm": 4, "gru": 3, "rnn": 1}[kind]
    hidden = np.zeros((x.shape[1], recurs.shape[1]))
    cell = np.zeros((x.shape[1], units))
    states = []
    for step in x:
        into, own = step @ reads.T + bias_reads, hidden @ recurs.T + bias_recurs
        if kind == "lstm":
            i, f, g, o = np.split(into + own, 4, axis=1)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            cell[:, gone] = 0
            hidden = sigmoid(o) * np.tanh(cell)
        elif kind == "gru":
            (ri, zi, ni), (rh, zh, nh) = np.split(into, 3, axis=1), np.split(own, 3, axis=1)
            z = sigmoid(zi + zh)
            hidden = (1 - z) * np.tanh(ni + sigmoid(ri + rh) * nh) + z * hidden
        else:
            hidden = np.tanh(into + own)
        hidden[:, gone] = 0
        if projection is not None:
            hidden = hidden @ projection.T
        states.append(hidden.copy())
    return np.stack(states)


def recurrence(kind, layer, x, gone=()):
    """The output [time, n, ..] of a whole module in numpy; the units in `gone` of every layer answer zero."""
    state = {name: value.detach().double().numpy() for name, value in layer.state_dict().items()}
    for index in range(layer.num_layers):
        ways = []
        for suffix in ("", "_reverse") if layer.bidirectional else ("",):
            names = [f"{n}_l{index}{suffix}" for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")]
            reads, recurs, *biases, projection = (state.get(name) for name in names)
            biases = [np.zeros(len(reads)) if bias is None else bias for bias in biases]
            turned = x[::-1] if suffix else x
            answer = one_way(kind, turned, [reads, recurs, *biases, projection], list(gone))
            ways.append(answer[::-1] if suffix else answer)
        x = np.concatenate(ways, axis=2)
    return x


def expected(kind, net, x, gone):
    """`Reader` in numpy for the mean over time."""
    before, head = ([p.detach().double().numpy() for p in part.parameters()] for part in (net.before, net.head))
    into = np.tanh(x.double().numpy() @ before[0].T + before[1]).transpose(1, 0, 2)
    return recurrence(kind, net.layer, into, gone).mean(0) @ head[0].T + head[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "bias": False}, {"batch_first": True}])
def test_units_that_go_are_units_that_answer_zero(kit, kind, layers, options):
    net = kit.settle(Reader(KINDS[kind](6, 8, layers, **options)))
    before = digest_of(net)
    coupling = room.analyse(net, kit.batch(4, 5))
    assert {group.name: len(group) for group in coupling.groups} == {"before": 6, "layer": 8}
    gone = [1, 4, 7]
    plan = room.make_plan(coupling, {"layer": [unit for unit in range(8) if unit not in gone]})
    outcome = room.prune(net, kit.batch(4, 5), plan)
    assert digest_of(net) == before
    assert outcome.proof.max_relative_difference < 1e-12
    x = torch.randn(3, 7, 5)
    have = outcome.model.double()(x.double())
    np.testing.assert_allclose(have.detach().numpy(), expected(kind, net, x, gone), rtol=1e-9, atol=1e-11)
    layer = outcome.model.layer
    assert (layer.hidden_size, layer.input_size, layer.num_layers) == (5, 6, layers)
    assert layer.weight_ih_l0.shape == ({"lstm": 20, "gru": 15, "rnn": 5}[kind], 6)
    assert [tuple(w.shape) for w in layer._flat_weights] == [tuple(w.shape) for w in layer.parameters()]


def test_a_pruned_layer_is_a_smaller_one_sliced_by_hand(kit):
    net = kit.settle(Reader(nn.LSTM(6, 8, 2, batch_first=True, bidirectional=True)))
    coupling = room.analyse(net, kit.batch(4, 5))
    kept = [0, 3, 5]
    pruned = room.prune(net, kit.batch(4, 5), room.make_plan(coupling, {"layer": kept, "before": [1, 2]})).model
    small = nn.LSTM(2, 3, 2, batch_first=True, bidirectional=True)
    rows = [gate * 8 + unit for gate in range(4) for unit in kept]
    columns = {"weight_hh": kept, "weight_ih_l0": [1, 2], "weight_ih_l1": [*kept, *(8 + unit for unit in kept)]}
    with torch.no_grad():
        for name, value in small.named_parameters():
            sliced = getattr(net.layer, name)[rows]
            for start, indexes in columns.items():
                sliced = sliced[:, indexes] if name.startswith(start) else sliced
            value.copy_(sliced)
    for name, value in small.state_dict().items():
        assert torch.equal(value, pruned.layer.state_dict()[name]), name
    x = torch.randn(2, 9, 2)
    torch.testing.assert_close(pruned.layer(x)[0], small(x)[0])


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_a_projection_has_a_width_of_its_own(kit):
    net = kit.settle(Reader(nn.LSTM(6, 12, 2, batch_first=True, proj_size=4)))
    coupling = room.analyse(net, kit.batch(4, 5))
    assert {group.name: len(group) for group in coupling.groups} == {"before": 6, "layer": 12, "layer#2": 4}
    plan = room.make_plan(coupling, {"layer": range(3, 12), "layer#2": [0, 2]})
    pruned = room.prune(net, kit.batch(4, 5), plan).model
    assert (pruned.layer.hidden_size, pruned.layer.proj_size, pruned.head.in_features) == (9, 2, 2)
    # With the projection whole, numpy's units that answer zero stand for those that go.
    units = room.prune(net, kit.batch(4, 5), room.make_plan(coupling, {"layer": range(3, 12)})).model
    x = torch.randn(3, 7, 5)
    np.testing.assert_allclose(
        units.double()(x.double()).detach().numpy(), expected("lstm", net, x, [0, 1, 2]), rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_readers_of_the_last_state_follow(kit, kind, bidirectional):
    layer = KINDS[kind](5, 8, 2, batch_first=True, bidirectional=bidirectional)
    coupling, outcome = kit.check(kit.settle(Reader(layer, "state")), kit.batch(4, 5), exact=False)
    assert [group.name for group in coupling.groups if "layer" in group.name] == ["layer"]
    assert outcome.model.head.in_features == (8 if bidirectional else 4)


class Started(nn.Module):
    """The first state is learned, made of an input, or an input itself."""

    def __init__(self, kind, start):
        super().__init__()
        self.kind, self.start = kind, start
        self.layer = KINDS[kind](5, 8, batch_first=True)
        self.first = nn.Parameter(torch.ones(1, 1, 8)) if start == "learned" else nn.Linear(5, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x, given=None):
        if self.start == "learned":
            first = self.first.expand(-1, len(x), -1)
        elif self.start == "made":
            first = torch.tanh(self.first(x[:, 0]))[None]
        else:
            first = given
        state = (first.contiguous(), torch.zeros_like(first)) if self.kind == "lstm" else first.contiguous()
        return self.head(self.layer(x, state)[0][:, -1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", ["learned", "made"])
def test_a_first_state_loses_the_same_units(kit, kind, start):
    net = kit.settle(Started(kind, start))
    coupling, outcome = kit.check(net, kit.batch(4, 5), exact=False)
    assert [len(group) for group in coupling.groups] == [8]
    kept = list(outcome.plan.narrowings[0].kept)
    small, x = KINDS[kind](5, 4, batch_first=True), torch.randn(2, 6, 5)
    rows = [gate * 8 + unit for gate in range(len(net.layer.weight_ih_l0) // 8) for unit in kept]
    with torch.no_grad():
        for name, value in small.named_parameters():
            value.copy_(
                getattr(net.layer, name)[rows][:, kept]
                if "hh" in name and "weight" in name
                else getattr(net.layer, name)[rows]
            )
        first = (
            net.first[..., kept].expand(-1, 2, -1)
            if start == "learned"
            else torch.tanh(net.first(x[:, 0]))[None][..., kept]
        )
        state = (first.contiguous(), torch.zeros(1, 2, 4)) if kind == "lstm" else first.contiguous()
        want = small(x, state)[0][:, -1] @ net.head.weight[:, kept].T + net.head.bias
    torch.testing.assert_close(outcome.model(x), want)


def test_a_first_state_that_is_an_input_freezes_the_units(kit):
    net = kit.settle(Started("gru", "given"))
    example = Batch((torch.randn(2, 4, 5), torch.randn(1, 2, 8)), {}, None)
    coupling = room.analyse(net, example)
    assert coupling.groups == ()
    assert "gru starts from a given state" in dict(coupling.frozen).values()


class Unrolled(nn.Module):
    """Cells in a loop of the user's own; the state's width is a number that the code keeps."""

    def __init__(self, asks):
        super().__init__()
        self.cell, self.other, self.head, self.asks = nn.LSTMCell(5, 8), nn.GRUCell(8, 6), nn.Linear(6, 2), asks

    def forward(self, x):
        width = self.cell.hidden_size if self.asks else 8
        h = c = x.new_zeros(len(x), width)
        other = x.new_zeros(len(x), self.other.hidden_size)
        for step in x.unbind(1):
            h, c = self.cell(step, (h, c))
            other = self.other(h, other)
        return self.head(other)


@pytest.mark.parametrize("asks", [True, False])
def test_cells_in_a_loop(kit, asks):
    coupling, outcome = kit.check(kit.settle(Unrolled(asks)), kit.batch(3, 5), exact=False, grid=2)
    names = {group.name: len(group) for group in coupling.groups}
    assert names == ({"cell": 8, "other": 6} if asks else {"other": 6})
    if asks:
        assert (outcome.model.cell.hidden_size, outcome.model.other.input_size) == (4, 4)
    else:
        assert dict(coupling.frozen)["cell"].startswith("the pruned model does not run: RuntimeError")


@pytest.mark.parametrize("method", ["taylor", "l2"])
def test_units_are_ranked_by_the_weights_that_make_them(kit, method):
    net = kit.settle(Reader(nn.GRU(6, 8, 2, batch_first=True)))
    coupling = room.analyse(net, kit.batch(4, 5))
    batches = [Batch((torch.randn(2, 4, 5),), {}, torch.randn(2, 3)) for _ in range(2)]

    def loss(outputs, target):
        return ((outputs - target) ** 2).sum()

    found = room.importance(net, coupling, method=method, batches=batches, loss=loss).channels["layer"]
    want = np.zeros(8)
    rows = [[gate * 8 + unit for gate in range(3)] for unit in range(8)]
    if method == "l2":
        matrices = [value.detach().double().numpy() for value in net.layer.parameters() if value.ndim == 2]
        want = np.sqrt([sum((matrix[own] ** 2).sum() for matrix in matrices) for own in rows])
    else:
        for batch in batches:
            twin = copy.deepcopy(net)
            loss(twin(*batch.args), batch.target).backward()
            change = [(p.grad * p).detach().double().numpy() for p in twin.layer.parameters()]
            want += [sum(part[own].sum() for part in change) ** 2 for own in rows]
    np.testing.assert_allclose(found, want, rtol=1e-5)


def test_a_pruned_layer_replays_and_lifts(kit, tmp_path):
    def fresh():
        return kit.settle(Reader(nn.LSTM(6, 8, 2, batch_first=True)))

    net = fresh()
    coupling, outcome = kit.check(net, kit.batch(4, 5), exact=False)
    with torch.no_grad():
        for value in outcome.model.parameters():
            value.add_(torch.randn_like(value))
    room.save(tmp_path, outcome.plan, outcome.model)
    assert digest_of(room.replay(fresh, tmp_path)) == digest_of(outcome.model)
    lifted = room.lift(net, outcome.model, outcome.plan)
    assert digest_of(room.apply(lifted, outcome.plan)) == digest_of(outcome.model)
    assert {group.name for group in coupling.groups} == {"before", "layer"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("options", "gone"),
    [({}, [1]), ({"bidirectional": True, "batch_first": True}, [1, 2]), ({"bias": False, "dropout": 0.3}, [2])],
)
def test_a_layer_that_goes_passes_its_input_on(kit, kind, options, gone):
    net = kit.settle(Reader(KINDS[kind](6, 8, 4, **options)))
    coupling = room.analyse(net, kit.batch(4, 5))
    assert [block.name for block in coupling.blocks] == ["layer.layer1", "layer.layer2", "layer.layer3"]
    assert "3 recurrent layers\n  layer.layer1\n" in str(coupling)
    plan = room.make_plan(coupling, blocks=[f"layer.layer{index}" for index in gone])
    assert str(plan).splitlines()[0] == f"layer.layer{gone[0]}: removed, its input goes on"
    assert room.PrunePlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    pruned = room.prune(net, kit.batch(4, 5), plan).model
    # In numpy: the weights of the layers that stay, one after the other.
    kept = [index for index in range(4) if index not in gone]
    twin = Reader(KINDS[kind](6, 8, len(kept), **{**options, "dropout": 0.0}))
    state = net.state_dict()
    renamed = {
        name: state[re.sub(r"_l(\d)", lambda found: f"_l{kept[int(found[1])]}", name)] for name in twin.state_dict()
    }
    twin.load_state_dict(renamed)
    x = torch.randn(3, 7, 5)
    have = pruned.double()(x.double()).detach().numpy()
    np.testing.assert_allclose(have, expected(kind, twin, x, []), rtol=1e-9, atol=1e-11)
    assert pruned.layer.num_layers == len(kept)
    assert {name for name, _ in pruned.named_parameters()} == {name for name, _ in twin.named_parameters()}


def replayed_and_lifted(folder, fresh, plan, pruned):
    """A pruned network that was trained further comes back from its folder, and from the unpruned one that it gives."""
    with torch.no_grad():
        for value in pruned.parameters():
            value.add_(torch.randn_like(value))
    room.save(folder, plan, pruned)
    assert digest_of(room.replay(fresh, folder)) == digest_of(pruned)
    lifted = room.lift(fresh(), pruned, plan)
    assert digest_of(room.apply(lifted, plan)) == digest_of(pruned)
    return lifted


def test_layers_and_units_go_together_replay_and_lift(kit, tmp_path):
    def fresh():
        return kit.settle(Reader(nn.LSTM(6, 8, 3, batch_first=True, bidirectional=True), "state"))

    net = fresh()
    coupling = room.analyse(net, kit.batch(4, 5))
    names = [action.text for action in room.actions(coupling, room.importance(net, coupling, method="l1"), grid=4)]
    assert names == ["remove block layer.layer1", "remove block layer.layer2", "layer: 8 -> 4"]
    # Before has 6 units, off the grid.
    assert room.inside(coupling) == {}
    plan = room.make_plan(coupling, {"layer": [0, 2, 5]}, ["layer.layer1"])
    pruned = room.prune(net, kit.batch(4, 5), plan).model
    assert pruned.layer.weight_ih_l1.shape == (12, 6)
    assert "weight_ih_l2" not in dict(pruned.layer.named_parameters())
    lifted = replayed_and_lifted(tmp_path, fresh, plan, pruned)
    rows = [gate * 8 + unit for gate in range(4) for unit in (0, 2, 5)]
    assert torch.equal(lifted.layer.bias_hh_l2_reverse[rows], pruned.layer.bias_hh_l1_reverse)
    assert torch.equal(lifted.layer.weight_hh_l1, net.layer.weight_hh_l1)


class EveryState(nn.Module):
    """Its head reads the last states of all layers, so that their number is part of its width."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.GRU(5, 8, 2, batch_first=True), nn.Linear(16, 2)

    def forward(self, x):
        return self.head(self.layer(x)[1].transpose(0, 1).flatten(1))


def test_layers_whose_states_are_counted_stay_and_units_go(kit):
    coupling, outcome = kit.check(kit.settle(EveryState()), kit.batch(4, 5), exact=False)
    assert coupling.blocks == ()
    assert "block layer.layer1" in dict(coupling.frozen)
    assert outcome.model.head.in_features == 8


class Stack(nn.Module):
    """Recurrent modules of a layer each, one behind the other; the second starts from zeros that it asks the size of.

    Args:
        reads: `sequence`, or `states` where the head reads the second module's last state, too.
        ends: whether the third module's sequence is the answer.
    """

    def __init__(self, reads="sequence", *, ends=False, both=False):
        super().__init__()
        width = 16 if both else 8
        self.one = nn.LSTM(5, 8, batch_first=True, bidirectional=both)
        self.norm, self.drop = nn.LayerNorm(width), nn.Dropout(0.5)
        self.two = nn.LSTM(width, 8, batch_first=True, bidirectional=both)
        self.three = nn.GRU(width, 8, batch_first=True, bidirectional=both)
        self.head, self.reads, self.ends = nn.Linear(width, 3), reads, ends

    def forward(self, x):
        self.two.flatten_parameters()
        x = self.drop(self.norm(self.one(x)[0]))
        start = x.new_zeros(2 if self.two.bidirectional else 1, len(x), self.two.hidden_size)
        x, (hidden, _) = self.two(x, (start, start))
        y, _ = self.three(x)
        if self.ends:
            return y
        return self.head(y[:, -1]) + (self.head(hidden[-1]) if self.reads == "states" else 0)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("gone", [["two"], ["three"], ["two", "three"]])
def test_a_module_of_a_stack_goes_whole(kit, gone, both):
    net = kit.settle(Stack(both=both))
    coupling = room.analyse(net, kit.batch(4, 5))
    assert [block.name for block in coupling.blocks] == ["two", "three"]
    assert "2 recurrent layers" in str(coupling)
    # One that may go has the units of the one it gives way to.
    (group,) = coupling.groups
    assert {"one.weight_hh_l0", "two.weight_hh_l0", "three.weight_hh_l0", "norm.weight"} <= {
        n for n, _ in group.tensors
    }
    whole = room.make_plan(coupling, blocks=gone)
    assert str(whole).splitlines()[0] == f"{gone[0]}: removed, its input goes on"
    assert room.PrunePlan.from_dict(json.loads(json.dumps(whole.to_dict()))) == whole
    pruned = room.prune(net, kit.batch(4, 5), whole).model
    x = torch.randn(3, 7, 5)
    with torch.no_grad():
        y = net.norm(net.one(x)[0])
        for name in ("two", "three"):
            y = y if name in gone else getattr(net, name)(y)[0]
        torch.testing.assert_close(pruned(x), net.head(y[:, -1]))
    assert not any(name.partition(".")[0] in gone for name in pruned.state_dict())
    # With widths, by the proof.
    both_kinds = room.make_plan(coupling, {group.name: [0, 2, 5]}, gone)
    smaller = room.prune(net, kit.batch(4, 5), both_kinds).model
    assert smaller.one.hidden_size == 3
    assert smaller(x).shape == (3, 3)
    assert both_kinds.includes(whole)
    assert both_kinds.includes(room.make_plan(coupling, {group.name: [0, 2, 5, 7]}, gone[:1]))


def test_a_stack_without_a_module_replays_and_lifts(kit, tmp_path):
    def fresh():
        return kit.settle(Stack())

    net = fresh()
    plan = room.make_plan(room.analyse(net, kit.batch(4, 5)), {"norm": [0, 2, 5]}, ["two"])
    pruned = room.prune(net, kit.batch(4, 5), plan).model
    lifted = replayed_and_lifted(tmp_path, fresh, plan, pruned)
    assert torch.equal(lifted.two.weight_ih_l0, net.two.weight_ih_l0)


def test_a_module_whose_states_are_read_stays(kit):
    coupling, _ = kit.check(kit.settle(Stack("states")), kit.batch(4, 5), exact=False)
    assert [block.name for block in coupling.blocks] == ["three"]


def test_units_that_can_go_are_worth_more_than_a_module_that_could(kit):
    # The answer has the third module's units: tied to them, those of the others would have to stay.
    coupling, outcome = kit.check(kit.settle(Stack(ends=True)), kit.batch(4, 5), exact=False)
    assert [block.name for block in coupling.blocks] == ["two"]
    assert outcome.model.one.hidden_size == outcome.model.two.hidden_size == 4
    assert outcome.model.three.hidden_size == 8


def test_a_plan_that_takes_a_layer_that_there_is_not(kit):
    net = kit.settle(Reader(nn.GRU(6, 8, 2)))
    plan = room.make_plan(room.analyse(net, kit.batch(4, 5)), blocks=["layer.layer1"])
    for layer, module in ((0, "layer"), (2, "layer"), (1, "head")):
        data = plan.to_dict()
        data["blocks"] = [{"name": "edited", "module": module, "layer": layer}]
        with pytest.raises(PruneError, match=f"the plan removes layer {layer} of '{module}'"):
            room.apply(net, room.PrunePlan.from_dict(data))
