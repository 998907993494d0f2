"""Placements beside that of the rules, and the choice by what was measured."""

import importlib

import numpy as np
import pytest

from edgekit.device.profile import shipped_profile
from edgekit.quantize import apply_plan, quantize
from edgekit.quantize.candidates import CHEAPEST, LAYOUTS, RULES, candidates, fastest
from edgekit.stats import Estimate


class Waits:
    """A latency that was not measured: how much faster than the rules, as an interval."""

    def __init__(self, low, value):
        self.ratio = Estimate(value=value, low=low, high=2 * value - low, n=100)

    def ratio_to(self, _):
        return self.ratio


def test_the_rules_stay_unless_another_is_clearly_faster():
    rules, slightly, unsure = Waits(1.0, 1.0), Waits(1.01, 1.02), Waits(0.9, 1.3)
    faster, fastest_of_all = Waits(1.05, 1.1), Waits(1.1, 1.2)
    assert fastest({"fp32": fastest_of_all, RULES: rules, CHEAPEST: slightly, LAYOUTS: unsure}) == RULES
    assert fastest({"fp32": fastest_of_all, RULES: rules, CHEAPEST: faster, LAYOUTS: unsure}) == CHEAPEST
    assert fastest({RULES: rules, CHEAPEST: faster, LAYOUTS: fastest_of_all}) == LAYOUTS


def test_a_candidate_has_fewer_int8_nodes_and_computes_the_same_network(resnet, int8, draw, run, tmp_path):
    plan = int8(resnet).plan
    found = candidates(resnet.path, plan, shipped_profile("x86-vnni"))
    assert found[RULES] is plan
    (feeds,) = draw(resnet, seed=8, batches=1)
    exact = run(resnet.path, feeds)
    for name, each in found.items():
        apply_plan(resnet.path, each, tmp_path / "candidate.onnx")
        assert set(each.nodes) <= set(plan.nodes)
        assert all(node in each.reasons for node in set(plan.nodes) - set(each.nodes)), name
        noise = ((run(tmp_path / "candidate.onnx", feeds) - exact) ** 2).sum() / (exact**2).sum()
        assert noise < 0.01


@pytest.mark.parametrize("here", ["x86-vnni", "arm64"])
def test_placements_are_timed_where_this_machine_is_of_the_kind(resnet, draw, tmp_path, monkeypatch, here):
    # The package has a function of the module's name.
    monkeypatch.setattr(importlib.import_module("edgekit.quantize.quantize"), "isa_target", lambda: here)
    path = tmp_path / "int8.onnx"
    done = quantize(resnet.path, draw(resnet), path, spec=resnet.spec, target="x86-vnni", placement="measured")
    timed = {"fp32", RULES} <= set(done.measured_us)
    assert timed is (here == "x86-vnni")
    assert all(us > 0 for us in done.measured_us.values())
    assert np.isfinite(done.sqnr_db)
