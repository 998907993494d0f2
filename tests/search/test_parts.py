"""The small parts of a search, each against another way to the same answer."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.errors import EdgekitError
from edgekit.report import Mark, scatter
from edgekit.search import Front, Member, Point, SearchSettings, front, warm_start
from edgekit.search.computing import Computing
from edgekit.search.finalists import finalists_of
from edgekit.search.study import storage_at
from edgekit.search.trial import goes_on
from edgekit.stats import Estimate
from edgekit.store import file_sha256
from edgekit.training import Choice
from edgekit.validate.behaviour import Gates
from edgekit.workload import Batch


def point(name, ms, drop, size=1):
    return Point(name=name, latency_ms=ms, drop=Estimate(value=drop, low=drop - 1, high=drop + 1, n=9), size_bytes=size)


def test_finalists_are_of_the_front_and_hold_its_ends():
    rng = np.random.default_rng(0)
    points = [point(str(i), *rng.uniform(1, 9, 2), int(rng.integers(1, 9))) for i in range(60)]
    best = front(points)
    assert finalists_of(points, len(best)) == best
    for count in range(2, len(best)):
        taken = finalists_of(points, count)
        assert len({each.name for each in taken}) == count
        assert (taken[0], taken[-1]) == (best[0], best[-1])
        assert set(taken) <= set(best)
    assert finalists_of(points, 1)[0].drop.value == min(each.drop.value for each in best)


def test_with_one_aim_the_best_share_goes_on():
    values = np.random.default_rng(1).permutation(30).astype(float)
    for count, factor in itertools.product((1, 2, 5, 30), (2, 3)):
        seen = values[:count]
        go_on = [goes_on((v,), [(o,) for o in np.delete(seen, i)], factor) for i, v in enumerate(seen)]
        best = np.sort(seen)[: max(1, count // factor)]
        assert [v in best for v in seen] == go_on


def test_with_several_aims_those_that_few_beat_go_on():
    points = np.random.default_rng(2).integers(0, 6, (40, 2)).astype(float)
    for i, mine in enumerate(points):
        others = np.delete(points, i, axis=0)
        beaten_by = sum((o <= mine).all() and (o < mine).any() for o in others)
        assert goes_on(tuple(mine), [tuple(o) for o in others], 3) == (beaten_by < 13)


def net(width):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width * 4, 5))


def test_equal_shapes_are_taken_narrower_ones_cut_and_larger_ones_left():
    given = net(8)
    for tensor in given.state_dict().values():
        tensor.copy_(torch.arange(tensor.numel()).reshape(tensor.shape))
    state = given.state_dict()
    narrow = net(6)
    before = {name: tensor.clone() for name, tensor in narrow.state_dict().items()}
    warmed = warm_start(narrow, state)
    mine = warmed.model.state_dict()
    for name, tensor in mine.items():
        cut = tuple(slice(size) for size in tensor.shape)
        np.testing.assert_array_equal(tensor.numpy(), state[name][cut].numpy())
    assert set(warmed.whole) == {"3.bias", "1.num_batches_tracked"}
    assert set(warmed.sliced) == set(mine) - set(warmed.whole)
    # What was given stays as it is.
    assert all(torch.equal(tensor, before[name]) for name, tensor in narrow.state_dict().items())
    wider = net(9)
    assert set(warm_start(wider, state).fresh) == set(mine) - set(warmed.whole)
    assert torch.equal(warm_start(wider, state).model[0].weight, wider[0].weight)


def test_tensors_of_another_name_or_rank_are_left():
    warmed = warm_start(nn.Linear(2, 2), {"weight": torch.zeros(4), "other": torch.zeros(2)})
    assert warmed.fresh == ("weight", "bias")


def test_a_url_of_another_kind_is_refused():
    with pytest.raises(EdgekitError, match="got 'mysql://x/y'"), storage_at("mysql://x/y"):
        pass


def test_a_database_that_is_not_there_is_a_fault_of_the_user_and_keeps_the_password_to_itself():
    url = "postgresql://me:secret@/none?host=/nowhere"
    with pytest.raises(EdgekitError, match="the database does not answer") as caught, storage_at(url):
        pass
    assert "secret" not in str(caught.value)


def test_the_scatter_has_every_point_and_its_ends():
    lines = scatter(
        [Mark(x=0.5, y=1, label="1"), Mark(x=2.5, y=-3, label="12"), Mark(x=1, y=1)], x="ms", y="drop", width=20
    )
    assert lines[0].strip() == "drop"
    assert lines[1].startswith(" 1 │1    ·")
    assert lines[-3].startswith("-3 │")
    assert lines[-3].endswith("12")
    assert lines[-1].strip() == "0.5 … 2.5 ms"


def test_points_at_one_place_stay_legible():
    lines = scatter([Mark(x=1, y=1, label=str(n)) for n in range(1, 5)] + [Mark(x=1, y=1)], x="", y="", width=8)
    assert sorted("".join(lines[1:-2]).translate({ord(c): None for c in " │·"})[-4:]) == ["1", "2", "3", "4"]
    assert scatter([], x="", y="") == []


@pytest.fixture
def a_front(tmp_path, config_for):
    (tmp_path / "a.onnx").write_bytes(b"a")
    member = Member(
        point=point("a", 1.0, 0.4),
        file="a.onnx",
        source="a.onnx",
        sha256=file_sha256(tmp_path / "a.onnx"),
        precision="fp32",
        target="any",
        choices={"width": 4},
        test={"x": 1},
        rungs=({"name": "mixed precision", "drop": 0.4, "kept": True},),
    )
    slower = point("b", 2.0, -0.5)
    other = Member(**{**{n: getattr(member, n) for n in Member.__slots__}, "point": slower})
    made = Front(
        name="n", metric="m", unit="points", workload=config_for(), members=(member, other), others=(point("c", 3, 3),)
    )
    made.save(tmp_path)
    return made


def test_a_front_is_kept_and_read(a_front, tmp_path):
    loaded = Front.load(tmp_path)
    assert loaded.members == a_front.members
    assert loaded.others == a_front.others
    assert loaded.workload.to_dict() == a_front.workload.to_dict()


def test_the_chosen_point_is_the_fastest_within_the_drop_or_the_most_accurate(a_front):
    assert a_front.chosen(max_latency_ms=None, max_drop=0.5) == 1
    assert a_front.chosen(max_latency_ms=None, max_drop=0.0) == 2
    assert a_front.chosen(max_latency_ms=None, max_drop=None) == 2
    assert a_front.chosen(max_latency_ms=1.5, max_drop=None) == 1
    assert a_front.chosen(max_latency_ms=0.5, max_drop=None) is None


def test_a_margin_asks_for_so_many_standard_errors_where_any_point_has_them(a_front):
    # Intervals reach 1 to each side: a standard error is 0.51.
    assert a_front.chosen(max_latency_ms=None, max_drop=0.5, margin=0.1) == 1
    assert a_front.chosen(max_latency_ms=None, max_drop=0.5, margin=1.0) == 2
    assert a_front.chosen(max_latency_ms=None, max_drop=0.5, margin=9.0) == 1
    assert a_front.chosen(max_latency_ms=None, max_drop=-0.6, margin=1.0) is None


@pytest.mark.parametrize("confidence", [0.49, 1.0, float("nan")])
def test_a_confidence_that_is_none_is_refused(confidence):
    with pytest.raises(EdgekitError, match="--confidence"):
        SearchSettings(confidence=confidence)


def test_a_point_that_breaks_a_gate_is_not_chosen(a_front, tmp_path):
    first, second = a_front.members
    broken = replace(a_front, members=(replace(first, broken=("churn 3.00 % > 2.00 %",)), second))
    assert broken.chosen(max_latency_ms=None, max_drop=0.5) == 2
    broken.save(tmp_path)
    assert Front.load(tmp_path).members == broken.members


def test_a_search_takes_no_gate_on_perturbed_inputs():
    with pytest.raises(EdgekitError, match="a search perturbs no inputs"):
        SearchSettings(gates=Gates(max_robustness_drop=1.0))


def test_a_changed_file_is_not_bundled(a_front, tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"b")
    with pytest.raises(EdgekitError, match="not the one that was measured"):
        a_front.file(tmp_path, a_front.members[0])


@pytest.mark.parametrize("content", ["", "{}", '{"format": "edgekit-front", "version": "2.0"}', "[]"])
def test_what_is_no_front_is_refused(content, tmp_path):
    with pytest.raises(EdgekitError, match=r"no front.json here"):
        Front.load(tmp_path)
    (tmp_path / "front.json").write_text(content)
    with pytest.raises(EdgekitError, match="cannot read it"):
        Front.load(tmp_path)


def test_networks_of_the_same_kinds_of_layers_compute_alike():
    choice = Choice(precision="bf16", channels_last=True, workers=1, step_s=2.0, threads=3)
    pictures = Batch((torch.ones(2, 3, 6, 6),), {}, None)
    narrow, wide, pointwise, grouped = (
        nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(conv.out_channels, 5))
        for conv in (nn.Conv2d(3, 6, 3), nn.Conv2d(3, 24, 3), nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 3, groups=3))
    )
    known = Computing(pictures)
    assert known.like(narrow) is None
    known.keep(narrow, choice)
    # Every product of either network has one side that is four times as wide.
    assert known.like(wide) == replace(choice, step_s=8.0)
    assert known.like(pointwise) is None
    assert known.like(grouped) is None
    # The first that is known stays.
    known.keep(wide, replace(choice, threads=1))
    assert known.like(narrow) == choice
