"""Plans: what they refuse, that they print, save and replay."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgekit import prune as room
from edgekit.errors import PruneError
from edgekit.workload import digest_of


def fresh(width=16):
    return nn.Sequential(
        nn.Conv2d(3, width, 3),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 24, 3),
        nn.ReLU(),
        nn.Conv2d(24, 2, 1),
    )


@pytest.fixture
def net(kit):
    return kit.settle(fresh())


@pytest.fixture
def coupling(net, kit):
    return room.analyse(net, kit.batch(3, 6, 6))


@pytest.fixture
def ranks():
    # Group "0" matters less than group "3" throughout, and channel 0 of each least.
    return room.Importance(method="l2", channels={"0": np.arange(16.0), "3": 100 + np.arange(24.0)})


GROUPS = "`edgekit prune --dry-run` prints what can be pruned and what is frozen, and why"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": 0}, "grid is 0\n  where: --grid\n  rule: a positive number of channels\n  way out: try 8 or 16"),
        ({"keep": 0}, "keep is 0\n  where: --keep\n  rule: a share above 0 and at most 1\n  way out: try 0.5"),
        (
            {"keep": float("nan")},
            "keep is nan\n  where: --keep\n  rule: a share above 0 and at most 1\n  way out: try 0.5",
        ),
        ({"scope": "local"}, "unknown 'local'\n  where: --scope\n  rule: uniform or global"),
        ({"keep": {"7": 4}}, f"no channel group '7'\n  where: prune\n  rule: one of 0, 3\n  way out: {GROUPS}"),
        ({"keep": {"0": 0}}, "width 0\n  where: 0\n  rule: 1 to 16"),
        ({"drop_blocks": ["x"]}, f"no residual block 'x'\n  where: prune\n  rule: one of (none)\n  way out: {GROUPS}"),
    ],
)
def test_bad_options(coupling, ranks, options, message):
    with pytest.raises(PruneError) as caught:
        room.plan(coupling, ranks, **options)
    assert str(caught.value) == message


def test_a_plan_that_would_empty_a_group(coupling):
    with pytest.raises(PruneError, match=r"keeps \[\]\n  where: 0\n  rule: at least one of channels 0 to 15"):
        room.make_plan(coupling, {"0": []})


def test_scopes_and_the_grid(coupling, ranks):
    uniform = room.plan(coupling, ranks, keep=0.5, grid=8)
    assert {n.group: len(n.kept) for n in uniform.narrowings} == {"0": 8, "3": 8}
    assert uniform.narrowings[0].kept == tuple(range(8, 16))
    # 40 channels, 20 to go: two units of 4 less than all of the cheap group, then the other.
    whole = room.plan(coupling, ranks, keep=0.5, grid=4, scope="global")
    assert {n.group: len(n.kept) for n in whole.narrowings} == {"0": 4, "3": 16}
    assert room.plan(coupling, ranks, keep={"3": 5}).narrowings[0].kept == tuple(range(19, 24))
    assert str(room.plan(coupling, ranks, keep=1.0)) == "nothing to remove"
    assert room.plan(coupling, ranks, keep=0.5, grid=7).narrowings == ()


def test_a_plan_survives_json(coupling, ranks):
    plan = room.plan(coupling, ranks, keep=0.5, grid=8)
    assert room.PrunePlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 4}, "version 4\n  where: here\n  rule: a plan of version 3 or before\n  way out: prune again"),
        ({"slices": []}, "AttributeError: 'list' object has no attribute 'items'\n  where: here"),
        ({"narrowings": [{}]}, "KeyError: 'group'\n  where: here\n  rule: what PrunePlan.to_dict writes"),
    ],
)
def test_a_plan_that_is_none(coupling, change, message):
    with pytest.raises(PruneError) as caught:
        room.PrunePlan.from_dict({**room.make_plan(coupling).to_dict(), **change}, "here")
    assert str(caught.value).startswith(message)


def test_the_model_stays_as_it_was(net, coupling, kit, ranks):
    before = digest_of(net)
    plan = room.plan(coupling, ranks, grid=8)
    room.analyse(net, kit.batch(3, 6, 6))
    room.apply(net, plan)
    room.masked(net, plan)
    room.prune(net, kit.batch(3, 6, 6), plan)
    assert digest_of(net) == before
    net.train()
    room.analyse(net, kit.batch(3, 6, 6))
    assert digest_of(net) == before
    assert net.training


def test_a_plan_fits_one_model_only(coupling):
    plan = room.make_plan(coupling, {"0": range(8)})
    with pytest.raises(
        PruneError, match=r"fingerprint [0-9a-f]{12}\n  where: Sequential\n  rule: the plan was made for"
    ):
        room.apply(fresh(32), plan)


def test_the_proof_finds_a_model_that_is_not_the_pruned_one(net, coupling, kit):
    plan = room.make_plan(coupling, {"0": range(8)})
    pruned = room.apply(net, plan)
    with torch.no_grad():
        pruned[3].weight[0, 0, 0, 0] += 1e-3
    with pytest.raises(PruneError, match="the pruned model differs from the masked original by"):
        room.prove(net, pruned, plan, kit.batch(3, 6, 6))


@pytest.fixture
def saved(net, coupling, kit, tmp_path):
    outcome = room.prune(net, kit.batch(3, 6, 6), room.make_plan(coupling, {"0": range(8), "3": range(0, 24, 3)}))
    room.save(tmp_path, outcome.plan, outcome.model)
    return outcome


def test_replay_gives_the_same_model(saved, tmp_path):
    again = room.replay(fresh, tmp_path)
    assert digest_of(again) == digest_of(saved.model)
    assert [m.weight.shape for m in again if hasattr(m, "weight")] == [(8, 3, 3, 3), (8,), (8, 8, 3, 3), (2, 8, 1, 1)]
    assert room.load_plan(tmp_path) == saved.plan
    assert not again.training


def test_replay_refuses_another_model(saved, tmp_path):
    del saved
    with pytest.raises(PruneError, match="the plan was made for"):
        room.replay(lambda: fresh(32), tmp_path)


@pytest.mark.parametrize("name", ["plan.json", "weights.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_replay_refuses_damaged_files(saved, tmp_path, name, damage):
    del saved
    path = tmp_path / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    with pytest.raises(PruneError) as caught:
        room.replay(fresh, tmp_path)
    start = "cannot read: " if name == "plan.json" else "the weights do not fit: "
    assert caught.value.problem.startswith(start)
    assert caught.value.where == str(path)
    assert caught.value.way_out == "prune again"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"version": 9}, "version 9"),
        ({"slices": {"nobody.weight": {"0": [1]}}}, "the plan removes from 'nobody.weight' dim 0"),
        ({"slices": {"0.weight": {"0": [99]}}}, "the plan removes from '0.weight' dim 0"),
        ({"slices": {"0.weight": {"5": [0]}}}, "the plan removes from '0.weight' dim 5"),
        ({"blocks": [{"name": "b", "last": "nobody", "modules": [], "shape": [1]}]}, "the plan removes 'nobody'"),
    ],
)
def test_replay_refuses_a_plan_that_was_edited(saved, tmp_path, change, problem):
    room.save(tmp_path, saved.plan, saved.model)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(PruneError) as caught:
        room.replay(fresh, tmp_path)
    assert caught.value.problem == problem


def test_weights_of_another_plan(saved, net, coupling, kit, tmp_path):
    del saved
    other = room.prune(net, kit.batch(3, 6, 6), room.make_plan(coupling, {"0": range(8)}))
    plan = (tmp_path / "plan.json").read_text()
    room.save(tmp_path, other.plan, other.model)
    (tmp_path / "plan.json").write_text(plan)
    with pytest.raises(PruneError, match="the weights do not fit: Error"):
        room.replay(fresh, tmp_path)


def test_the_coupling_prints(coupling):
    assert str(coupling).splitlines()[:5] == [
        "2 channel groups",
        "  0: 16 channels",
        "  3: 24 channels",
        "0 residual blocks",
        "2 frozen",
    ]
    listed = coupling.to_dict()
    assert listed["groups"] == [{"name": "0", "channels": 16}, {"name": "3", "channels": 24}]
    json.dumps(listed)


def test_a_plan_includes_what_it_can_go_on_from(coupling):
    def plan(first, second=range(24)):
        return room.make_plan(coupling, {"0": first, "3": second})

    assert plan(range(4)).includes(plan(range(8)))
    assert plan(range(4), range(9)).includes(plan(range(4)))
    assert not plan(range(8)).includes(plan(range(4)))
    assert not plan(range(4)).includes(plan(range(8, 16)))
    assert not plan(range(4)).includes(plan(range(8), range(9)))
    block = room.ResidualBlock(name="b", last="3", modules=("0", "1"), shape=(24, 6, 6))
    assert replace(plan(range(16)), blocks=(block,)).includes(plan(range(4)))
    assert not plan(range(4)).includes(replace(plan(range(16)), blocks=(block,)))
