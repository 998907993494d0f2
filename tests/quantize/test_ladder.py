"""The ladder with drops that are made up, and the sensitivities that it stands on against files made by hand."""

from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from edgekit.quantize import apply_plan
from edgekit.quantize.ladder import MIXED, POST_TRAINING, ROUNDING, TRAINING, Judged, climb
from edgekit.quantize.sensitivity import sensitivities


@pytest.fixture
def first(resnet, int8):
    return int8(resnet)


def error(run, reference, path, batches):
    wanted = [run(reference.path, feeds).astype(np.float64) for feeds in batches]
    noise = sum(float(((run(path, feeds) - want) ** 2).sum()) for feeds, want in zip(batches, wanted, strict=True))
    return noise / sum(float((want**2).sum()) for want in wanted)


class Scripted:
    """Drops one after the other, or by how much a gate is broken and the drop; files are kept count of."""

    def __init__(self, *found):
        self.found = [each if isinstance(each, tuple) else (0.0, each) for each in found]
        self.files = []

    def __call__(self, path):
        self.files.append(path.read_bytes())
        return Judged(*self.found[len(self.files) - 1])


@pytest.fixture
def climbed(draw, tmp_path):
    def go(first, source, judge, **options):
        return climb(
            first,
            source.path,
            draw(source),
            tmp_path,
            judge=judge,
            enough=lambda judged: judged <= Judged(0.0, 0.5),
            rounding_steps=3,
            **options,
        )

    return go


def test_nothing_is_tried_where_the_first_file_is_enough(first, resnet, climbed):
    drop = Scripted(0.4)
    done = climbed(first, resnet, drop)
    assert [rung.name for rung in done.rungs] == [POST_TRAINING]
    assert done.quantized.path.read_bytes() == first.path.read_bytes() == drop.files[0]
    assert done.source == resnet.path
    assert done.sensitivity is None


def test_what_is_known_of_the_first_file_is_not_asked_again(first, resnet, climbed):
    judge = Scripted(0.1)
    done = climbed(first, resnet, judge, known=Judged(0.0, 3.0))
    assert [(rung.name, rung.drop) for rung in done.rungs] == [(POST_TRAINING, 3.0), (ROUNDING, 0.1)]
    assert len(judge.files) == 1
    assert judge.files[0] == done.quantized.path.read_bytes() != first.path.read_bytes()


def test_every_rung_runs_once_and_the_best_is_kept(int8, resnet, climbed):
    trained, first = [], int8(resnet, target="x86-vnni")  # How many layers go to fp32 depends on the target.

    def train(network):
        trained.append(network)
        return network

    # Rounding makes it worse, twice; of mixed precision's files the second is the best; training does not help.
    drop = Scripted(3.0, 4.0, 3.5, 2.5, 2.0, 2.2, 2.6)
    done = climbed(first, resnet, drop, train=train)
    assert [rung.name for rung in done.rungs] == [POST_TRAINING, ROUNDING, MIXED, TRAINING]
    assert [rung.kept for rung in done.rungs] == [True, False, True, False]
    assert [rung.drop for rung in done.rungs] == [3.0, 3.5, 2.0, 2.6]
    assert [rung.gain for rung in done.rungs] == [None, -0.5, 1.0, pytest.approx(-0.6)]
    assert done.judged.drop == 2.0
    assert done.quantized.path.read_bytes() == drop.files[4]
    assert len(trained) == 1
    assert done.sensitivity is not None
    # Two layers have gone to fp32, and the plan says which and why.
    gone = set(first.plan.nodes) - set(done.quantized.plan.nodes)
    moved = {name for layer in done.sensitivity.worst_first[:2] for name in layer.moved}
    assert moved <= gone
    assert all("accuracy" in done.quantized.plan.reasons[name] for name in moved)


def test_it_stops_as_soon_as_the_budget_holds(first, resnet, climbed):
    done = climbed(first, resnet, Scripted(3.0, 0.1))
    assert [rung.name for rung in done.rungs] == [POST_TRAINING, ROUNDING]
    assert done.judged.drop == 0.1
    assert done.source != resnet.path


def test_a_file_that_breaks_a_gate_is_not_enough_and_one_that_breaks_it_less_is_better(first, resnet, climbed):
    # The first file loses little and breaks a gate; rounding breaks it less; mixed precision's second file holds it.
    judge = Scripted((0.4, 0.1), (0.4, 0.0), (0.2, 0.3), (0.2, 0.4), (0.0, 0.45))
    done = climbed(first, resnet, judge)
    assert [rung.name for rung in done.rungs] == [POST_TRAINING, ROUNDING, MIXED]
    assert [rung.kept for rung in done.rungs] == [True, True, True]
    assert [rung.drop for rung in done.rungs] == [0.1, 0.3, 0.45]
    assert done.judged == Judged(0.0, 0.45)
    assert done.quantized.path.read_bytes() == judge.files[4]


def test_a_gate_that_nothing_holds_leaves_the_file_that_breaks_it_least(first, resnet, climbed):
    judge = Scripted((0.4, 0.1), (0.2, 0.3), (0.5, 0.0), *[(0.9, 0.0)] * 9)
    done = climbed(first, resnet, judge)
    assert done.judged == Judged(0.2, 0.3)
    assert done.rungs[-1].name == MIXED
    assert not done.rungs[-1].kept


def test_without_time_only_the_first_rung_is_there(first, resnet, climbed):
    assert len(climbed(first, resnet, Scripted(3.0), time_s=0).rungs) == 1


def test_what_torch_cannot_do_is_noted_and_the_next_rung_runs(fp32, int8, climbed):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3)

        def forward(self, x):
            return self.b(nn.functional.mish(self.a(x)))

    odd = fp32(Odd(), 16, 9, 9)
    done = climbed(int8(odd), odd, Scripted(3.0, 0.2))
    rounding, mixed = done.rungs[1:]
    assert (rounding.name, rounding.drop, rounding.kept) == (ROUNDING, None, False)
    assert rounding.note.startswith("not possible: no gradient for ")
    assert mixed.name == MIXED
    assert mixed.kept


def test_sensitivities_are_those_of_files_made_by_hand(first, resnet, draw, run, tmp_path):
    plan = replace(first.plan, bias_shift={})
    batches = draw(resnet, seed=4, batches=2)
    found = sensitivities(resnet.path, plan, batches)
    whole = tmp_path / "whole.onnx"
    apply_plan(resnet.path, plan, whole)
    assert found.error == pytest.approx(error(run, resnet, whole, batches), rel=0.2)
    layers = {layer.node: layer for layer in found.layers}
    assert set(layers) == {name for name in plan.nodes if name in layers}
    assert len(layers) >= 4
    name, moved = found.worst_first[0].node, found.worst_first[0].moved
    nodes = tuple(node for node in plan.nodes if node not in moved)
    without = tmp_path / "without.onnx"
    apply_plan(resnet.path, replace(plan, nodes=nodes), without)
    assert layers[name].without == pytest.approx(error(run, resnet, without, batches), rel=0.5)
    assert layers[name].without < found.error
    assert all(0 < layer.alone < found.error * 1.5 for layer in found.layers)
