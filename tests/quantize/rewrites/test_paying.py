"""Conditional rewrites are applied where they pay: behind int8 operators, and where the profile says so."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from edgekit.device.profile import Cost, DeviceProfile, Pattern
from edgekit.quantize.costs import Costs
from edgekit.quantize.paying import paying


def profile(**us):
    """Patterns that cost so much, whatever their work."""
    free = Cost(base_us=0.0, rate_us=0.0)
    patterns = {
        name: Pattern(unit="elements", fp32=free, int8=Cost(base_us=cost, rate_us=0.0), fused={}, kernels=())
        for name, cost in us.items()
    }
    return DeviceProfile(target="x86-vnni", threads=1, environment={}, patterns=patterns)


@pytest.fixture
def graph(built, random):
    nodes = [
        ("Conv", ["x", "w1"], ["c1"], {"kernel_shape": [1, 1]}),
        ("HardSwish", ["c1"], ["h1"], {}),
        ("Conv", ["h1", "w2"], ["c2"], {"kernel_shape": [1, 1]}),
        ("HardSwish", ["c2"], ["h2"], {}),
        ("HardSwish", ["h2"], ["y"], {}),
    ]
    return ir.from_proto(built(nodes, {"w1": random(64, 4, 1, 1), "w2": random(8, 64, 1, 1)})).graph


def asked(graph, instead, **options):
    pays = paying(Costs(profile(HardSwish=3.0, Add=1.0, Mul=1.0)), "x86-vnni", **options)
    return [pays(node, instead) for node in graph if node.op_type == "HardSwish"]


def test_it_pays_only_behind_int8_operators(graph):
    # The first convolution sums over 4 numbers, and stays in fp32; the last HardSwish follows one in fp32.
    assert asked(graph, {"Add": 1.0, "Mul": 1.0}) == [False, True, False]


def test_it_does_not_pay_to_be_slower_or_what_is_not_known(graph):
    assert not any(asked(graph, {"Add": 1.0, "Mul": 1.0, "HardSwish": 1.0}))
    assert not any(asked(graph, {"Add": 1.0, "Sub": 1.0}))


def test_it_does_not_pay_for_what_stays_in_fp32(graph):
    assert not any(asked(graph, {"Add": 1.0}, keep_float=["HardSwish_3"]))
    assert not any(asked(graph, {"Add": 1.0}, keep_float=["Conv_2"]))
