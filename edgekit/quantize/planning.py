"""Deciding what of a graph becomes int8, and on which scales."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from edgekit.device.profile import DeviceProfile, shipped_profile
from edgekit.errors import QuantizeError
from edgekit.progress import Progress, silent
from edgekit.quantize import dynamic
from edgekit.quantize.bias import bias_shifts
from edgekit.quantize.calibration import observe
from edgekit.quantize.costs import Costs
from edgekit.quantize.graph import load
from edgekit.quantize.paying import paying
from edgekit.quantize.placement import ASKED, Placement, place
from edgekit.quantize.plan import QuantPlan, Scale
from edgekit.quantize.ranges import Method, affine, choose
from edgekit.quantize.rewrites import rewrite
from edgekit.quantize.targets import ACTIVATION, TARGETS, WEIGHT_LIMIT, Target
from edgekit.spec import Feeds, IOSpec

Scheme = Literal["auto", "static", "dynamic"]
SCHEMES = ("auto", "static", "dynamic")
RANGES = ("mse", "minmax", "percentile")
SHARED = 0.5
"""A part of a concatenation takes over the whole's scale if its own range is at least this much of the whole's range:
one bit is lost at most, and ONNX Runtime copies bytes instead of rescaling each number."""


def plan_quantization(
    model: Path,
    calibration: Iterable[Feeds],
    *,
    spec: IOSpec,
    target: Target = "x86-vnni",
    scheme: Scheme = "auto",
    ranges: Method = "mse",
    bias_correction: bool = True,
    keep_float: Collection[str] = (),
    profile: DeviceProfile | None = None,
    progress: Progress = silent,
) -> QuantPlan:
    """Decide what of an fp32 file becomes int8, and on which scales; the file is left as it is.

    Args:
        model: fp32 ONNX file.
        calibration: batches of inputs; some hundred samples. Not looked at by dynamic int8 and fp16.
        spec: the file's inputs and outputs.
        target: `x86-vnni` (U8 activations, S8 weights), `x86-avx2` (the same with 7-bit weights, since VPMADDUBSW
            saturates), `arm64` (S8 both) or `cuda` (fp16; the CUDA provider has no int8 convolution).
        scheme: `static` fixes activation ranges ahead of time (LSTMs take them at run time even so), `dynamic` takes
            them all at run time and leaves convolutions in fp32; `auto` is static where most of the arithmetic is in
            convolutions, else dynamic.
        ranges: `mse`, `minmax` or `percentile`.
        bias_correction: add to each bias what quantization shifts the layer's mean output by (see
            `edgekit.quantize.bias`).
        keep_float: names of nodes that stay in fp32.
        profile: what operators cost on the device, for the predictions beside each node; by default the one that comes
            with edgekit.
        progress: told after each batch and each corrected layer.

    Raises:
        QuantizeError: an option is unknown, the file is missing, nothing in it can be int8, calibration data are
            missing or not finite, or `keep_float` names a node that is not there.
        EdgekitError: a batch does not fit `spec`.
    """
    for where, value, known in (("target", target, TARGETS), ("scheme", scheme, SCHEMES), ("ranges", ranges, RANGES)):
        if value not in known:
            raise QuantizeError(f"unknown {value!r}", where=where, rule=f"one of {', '.join(known)}")
    graph = load(model)
    if target == "cuda":
        reasons = {str(node.name): "fp16: the CUDA provider has no int8 convolution" for node in graph.graph}
        return _plan(target, "half", Placement(reasons=reasons))
    if scheme == "auto":
        scheme = "dynamic" if dynamic.is_better(graph.graph) else "static"
    costs = Costs(profile or shipped_profile(target))
    rewrites = rewrite(graph, paying(costs, target, keep_float=keep_float)) if scheme == "static" else ()
    _check_names(graph.graph, keep_float, model)
    refusals = dynamic.refusals(graph.graph) | dict.fromkeys(keep_float, ASKED)
    if scheme == "dynamic":
        names = {str(node.name) for node in graph.graph} - set(refusals)
        _something(names, refusals, model)
        return _plan(target, "dynamic", Placement(nodes=names, reasons=refusals))
    placement = place(graph.graph, target, keep_float=keep_float)
    recurrent = {str(node.name) for node in graph.graph if node.op_type in ("LSTM", "GRU")}
    at_run_time = recurrent - set(refusals)
    reasons = placement.reasons | {name: refusals[name] for name in recurrent & set(refusals)}
    reasons = {name: why for name, why in reasons.items() if name not in at_run_time}
    _something(placement.nodes | at_run_time, reasons, model)
    batches = calibration if isinstance(calibration, Sequence) else list(calibration)
    scales = _scales(graph, placement, batches, spec=spec, ranges=ranges, dtype=ACTIVATION[target], progress=progress)
    plan = replace(_plan(target, "static", placement), ranges=ranges, activations=scales, reasons=placement.reasons)
    shifts = bias_shifts(graph, placement, plan, batches, progress) if bias_correction else {}
    nodes = tuple(sorted(placement.nodes | at_run_time))
    return replace(
        plan,
        nodes=nodes,
        reasons=reasons,
        bias_shift=shifts,
        costs_us=costs.both_ways(graph.graph),
        rewrites=rewrites,
    )


def _scales(
    model: ir.Model,
    placement: Placement,
    batches: Sequence[Feeds],
    *,
    spec: IOSpec,
    ranges: Method,
    dtype: str,
    progress: Progress,
) -> Mapping[str, Scale]:
    """The scale of every quantized value."""
    roots = sorted({placement.root(name) for name in placement.quantized})
    histograms = observe(model, roots, batches, spec=spec, progress=progress)
    chosen = {name: choose(histograms[name], ranges) for name in roots}
    _share_with_concatenations(model.graph, placement, chosen)
    affines = {name: affine(low, high, dtype) for name, (low, high) in chosen.items()}
    return {
        name: Scale(scale=scale, zero_point=zero, dtype=dtype)
        for name in sorted(placement.quantized)
        for scale, zero in [affines[placement.root(name)]]
    }


def _share_with_concatenations(
    graph: ir.Graph, placement: Placement, chosen: Mapping[str, tuple[float, float]]
) -> None:
    """Let the parts of a concatenation have its scale where they lose little by it.

    From the last concatenation on, so that those which feed another one (DenseNet) take over the final scale.
    """
    clipped = {v.name for node in placement.fused.values() if node.op_type == "Clip" for v in node.outputs}
    for node in reversed([n for n in graph if n.op_type == "Concat" and n.name in placement.nodes]):
        follower = placement.fused.get(str(node.name), node)
        whole = placement.root(str(follower.outputs[0].name))
        low, high = chosen[whole]
        for value in node.inputs:
            part = placement.root(str(value.name)) if value is not None else whole
            if part == whole or part not in chosen or part in clipped:
                continue
            bottom, top = chosen[part]
            # A fused ReLU needs a range that begins at zero.
            if (bottom < 0) == (low < 0) and top - bottom >= SHARED * (high - low):
                placement.source[part] = whole


def _plan(target: str, scheme: str, placement: Placement) -> QuantPlan:
    return QuantPlan(
        target=target,
        scheme=scheme,
        ranges="",
        weight_limit=WEIGHT_LIMIT[target],
        activations={},
        nodes=tuple(sorted(placement.nodes)),
        reasons=placement.reasons,
        bias_shift={},
    )


def _check_names(graph: ir.Graph, names: Collection[str], model: Path) -> None:
    missing = set(names) - {str(node.name) for node in graph}
    if missing:
        raise QuantizeError(
            f"no nodes {', '.join(sorted(missing)[:5])}",
            where=f"{model}, keep_float",
            rule="names of nodes of the graph",
            way_out="`edgekit quantize --explain` lists them",
        )


def _something(nodes: Collection[str], reasons: Mapping[str, str], model: Path) -> None:
    if not nodes:
        listed = "; ".join(f"{name}: {why}" for name, why in list(reasons.items())[:5])
        raise QuantizeError(
            "nothing in the graph can run in int8",
            where=str(model),
            rule="convolutions, matrix products or LSTMs with constant weights",
            way_out=f"ship fp32. The first reasons: {listed}",
        )
