"""Running the probes on this machine: what fuses, and what each operator costs in fp32 and in int8."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from edgekit.device.environment import describe
from edgekit.device.latency import measure
from edgekit.device.profile import Cost, DeviceProfile, Pattern
from edgekit.device.session import open_session
from edgekit.progress import Progress, silent
from edgekit.quantize.kernels import is_int8, kernels_of
from edgekit.quantize.placement import wired
from edgekit.quantize.probe.patterns import HOST_NAME, PROBES, REPEATS, SIDES, Builder, Probe, graph_of
from edgekit.quantize.qdq import insert
from edgekit.quantize.sketch import SCALE, made_up
from edgekit.quantize.targets import ACTIVATION

BOUNDARIES = ("QuantizeLinear", "DequantizeLinear")
DTYPES = ("uint8", "int8")
HOST_PROBE = next(each for each in PROBES if each.name == HOST_NAME)


def probe(
    target: str,
    *,
    threads: int = 1,
    time_s: float = 60.0,
    probes: Sequence[Probe] = PROBES,
    progress: Progress = silent,
) -> DeviceProfile:
    """Measure every pattern here, in one interleaved run.

    Args:
        target: the kind of device that this machine is.
        threads: intra-op threads.
        time_s: seconds to measure.
        probes: what is measured; hosted ones need their host among them.
        progress: told now and then.
    """
    fused = {each.name: {dtype: fuses(each, dtype) for dtype in DTYPES} for each in probes}
    dtype = ACTIVATION[target]
    calls: dict[str, Callable[[], object]] = {}
    for side in SIDES:
        for kind in ("float32", dtype):
            calls[f"call {kind} {side}"] = _call(_copy(kind, side), threads)
        for boundary in BOUNDARIES:
            calls[f"{boundary} {side}"] = _call(_boundary(boundary, side, dtype), threads)
    for each in probes:
        for side in SIDES if each.costed else ():
            for repeats in REPEATS if each.chained else REPEATS[:1]:
                model, _ = graph_of(each, side, repeats)
                calls[f"{each.name} fp32 {side} {repeats}"] = _call(model, threads)
                calls[f"{each.name} int8 {side} {repeats}"] = _call(quantized(model, dtype, target), threads)
    measured = measure(calls, time_s=time_s, width=0, progress=progress)
    us = {name: 1e3 * latency.p50.value for name, latency in measured.items()}
    patterns = {each.name: _pattern(each, fused[each.name], us, dtype) for each in probes}
    for boundary in BOUNDARIES:
        works = [float(np.prod(_shape(side))) for side in SIDES]
        # One side of the call is fp32 and the other int8.
        idle = [(us[f"call float32 {side}"] + us[f"call {dtype} {side}"]) / 2 for side in SIDES]
        times = [us[f"{boundary} {side}"] - rest for side, rest in zip(SIDES, idle, strict=True)]
        cost = _fitted(works, times)
        patterns[boundary] = Pattern(unit="elements", fp32=cost, int8=cost, fused={}, kernels=(boundary,))
    return DeviceProfile(target=target, threads=threads, environment=describe(), patterns=patterns)


def fuses(probe: Probe, dtype: str) -> bool:
    """Whether ONNX Runtime computes a pattern on integers, between a Q and a DQ."""
    return all(is_int8(node) for node in _kernels(probe, dtype) if node.op_type not in BOUNDARIES)


def quantized(model: onnx.ModelProto, dtype: str, target: str = "x86-vnni", *, bare: bool = True) -> onnx.ModelProto:
    """The int8 form of a probe's graph, from 8-bit integers to 8-bit integers if `bare`, else from fp32 to fp32."""
    twin = ir.from_proto(model)
    placement = wired(twin.graph, {str(node.name) for node in twin.graph})
    insert(twin, placement, made_up(placement, dtype, target))
    if bare:
        _bare(twin.graph)
    return ir.to_proto(twin)


def _bare(graph: ir.Graph) -> None:
    """Take away the Q that reads an input and the DQ that makes an output."""
    for index, value in enumerate(list(graph.inputs)):
        for node in [use.node for use in value.uses() if use.node.op_type == "QuantizeLinear"]:
            given = ir.Value(name=f"{value.name}_int8", shape=value.shape, type=_integer(node))
            node.outputs[0].name = None
            ir.convenience.replace_all_uses_with(node.outputs[0], given)
            graph.remove(node, safe=True)
            graph.inputs[index] = given
    for index, value in enumerate(list(graph.outputs)):
        last = value.producer()
        if last is not None and last.op_type == "DequantizeLinear" and last.inputs[0] is not None:
            integers = last.inputs[0]
            integers.type, integers.shape = _integer(last), value.shape
            graph.outputs[index] = integers
            graph.remove(last, safe=True)


def _integer(node: ir.Node) -> ir.TypeProtocol | None:
    """The type of the integers that a Q or DQ makes or reads: that of its zero point."""
    assert node.inputs[2] is not None
    return node.inputs[2].type


@cache
def _kernels(probe: Probe, dtype: str) -> tuple[ir.Node, ...]:
    """The optimized graph of a pattern."""
    model, _ = graph_of(probe, SIDES[0], 1)
    with tempfile.TemporaryDirectory(prefix="edgekit-probe-") as folder:
        path = Path(folder) / "probe.onnx"
        onnx.save(quantized(model, dtype, bare=False), path)
        return kernels_of(path, dtype).nodes


def _pattern(probe: Probe, fused: Mapping[str, bool], us: Mapping[str, float], dtype: str) -> Pattern:
    costs = {"fp32": Cost(base_us=0.0, rate_us=0.0), "int8": Cost(base_us=0.0, rate_us=0.0)}
    for precision in costs if probe.costed else ():
        works = [graph_of(probe, side, 1)[1] for side in SIDES]
        idle = "float32" if precision == "fp32" else dtype
        costs[precision] = _fitted(works, [_once(probe, precision, side, us, idle) for side in SIDES])
    host = {node.op_type for node in _kernels(HOST_PROBE, "uint8")} if probe.hosted else set()
    kernels = tuple(sorted({node.op_type for node in _kernels(probe, "uint8")} - host - set(BOUNDARIES)))
    return Pattern(unit=probe.unit, fused=dict(fused), kernels=kernels, **costs)


def _once(probe: Probe, precision: str, side: int, us: Mapping[str, float], idle: str) -> float:
    """What one more of an operator costs; of one that cannot follow itself, what it adds to an empty call."""
    name = f"{probe.name} {precision} {side}"
    if probe.chained:
        first, more = REPEATS
        each = (us[f"{name} {more}"] - us[f"{name} {first}"]) / (more - first)
        return each - _once(HOST_PROBE, precision, side, us, idle) if probe.hosted else each
    return us[f"{name} 1"] - us[f"call {idle} {side}"]


def _fitted(works: Sequence[float], times: Sequence[float]) -> Cost:
    """The line through two measurements; neither its start nor its slope is negative."""
    (small, large), (fast, slow) = works, times
    rate = max((slow - fast) / (large - small), 0.0)
    return Cost(base_us=round(max(fast - rate * small, 0.0), 3), rate_us=round(1000 * rate, 5))


def _shape(side: int) -> tuple[int, ...]:
    return (1, PROBES[0].channels, side, side)


def _copy(kind: str, side: int) -> onnx.ModelProto:
    """A graph that does next to nothing: what a call costs."""
    shape = _shape(side)
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, element, shape) for name in ("x", "y")]
    graph = onnx.helper.make_graph([node], "copy", values[:1], values[1:])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


def _boundary(op: str, side: int, dtype: str) -> onnx.ModelProto:
    builder = Builder(_shape(side))
    scale, zero = builder.constant(SCALE), builder.constant(np.iinfo(dtype).min + 128, dtype)
    if op == "QuantizeLinear":
        return builder.model(builder.node(op, "x", scale, zero), output_type=dtype)
    return builder.model(builder.node(op, "x", scale, zero), input_type=dtype)


def _call(model: onnx.ModelProto, threads: int) -> Callable[[], Any]:
    session = open_session(model.SerializeToString(), threads=threads)
    (given,) = session.get_inputs()
    rng = np.random.default_rng(0)
    if given.type == "tensor(float)":
        feeds = {given.name: rng.standard_normal(given.shape).astype(np.float32)}
    else:
        kind = np.uint8 if given.type == "tensor(uint8)" else np.int8
        feeds = {given.name: rng.integers(np.iinfo(kind).min, np.iinfo(kind).max, given.shape).astype(kind)}
    return lambda: session.run(None, feeds)
