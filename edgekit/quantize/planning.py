"""Deciding what of a graph becomes int8, and on which scales."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from edgekit.device.profile import DeviceProfile, shipped_profile
from edgekit.errors import QuantizeError, did_you_mean
from edgekit.progress import Progress, silent
from edgekit.quantize import dynamic, storage
from edgekit.quantize.bias import bias_shifts
from edgekit.quantize.calibration import Observed, first_samples
from edgekit.quantize.costs import Costs
from edgekit.quantize.equalization import choose_factors, equalize
from edgekit.quantize.graph import constant, load
from edgekit.quantize.layout import place, wired
from edgekit.quantize.paying import paying
from edgekit.quantize.placement import ASKED, COMPUTE, Placement
from edgekit.quantize.plan import QuantPlan, Scale
from edgekit.quantize.ranges import Histogram, Method, affine, choose, symmetric
from edgekit.quantize.rewrites import rewrite, rewrite_again
from edgekit.quantize.targets import ACTIVATION, SYMMETRIC, TARGETS, WEIGHT_LIMIT, Target
from edgekit.quantize.weights import mse_scales, output_axis, pair_limit
from edgekit.spec import Feeds, IOSpec

Scheme = Literal["auto", "static", "dynamic"]
SCHEMES = ("auto", "static", "dynamic")
RANGES = ("mse", "minmax", "percentile", "entropy")
WEIGHTS = ("mse", "max")
BITS = (8, 4)
Weights = Literal["mse", "max"]
SHARED = 0.5
"""A part of a concatenation takes over the whole's scale if its own range is at least this much of the whole's range:
one bit is lost at most, and ONNX Runtime copies bytes instead of rescaling each number."""
WIDEST = 1.1
"""The ranges of a part and of the whole are searched apart, and may differ by so much though one holds the other."""
EVENED_BY, CORRECTED_BY = 512, 128
"""Samples that equalization takes channel ranges from, and bias correction means, once for each layer."""


def plan_quantization(
    model: Path,
    calibration: Iterable[Feeds],
    *,
    spec: IOSpec,
    target: Target,
    scheme: Scheme = "auto",
    ranges: Method = "mse",
    weights: Weights = "mse",
    equalization: bool = True,
    bias_correction: bool = True,
    bits: int = 8,
    keep_float: Collection[str] = (),
    profile: DeviceProfile | None = None,
    observed: Observed | None = None,
    progress: Progress = silent,
) -> QuantPlan:
    """Decide what of an fp32 file becomes int8, and on which scales; the file is left as it is.

    Args:
        model: fp32 ONNX file.
        calibration: batches of inputs; some hundred samples. Ranges are taken from all of them, batch by batch;
            equalization looks at the first 512 samples, bias correction at 128. It is gone through several times (an
            iterator is kept as a list). Not looked at by dynamic int8 and fp16.
        spec: the file's inputs and outputs.
        target: `x86-vnni` (U8 activations, S8 weights), `x86-avx2` (the same, no two neighbours so large
            that VPMADDUBSW saturates), `arm64` (S8 both), `cuda` (fp16; the CUDA provider has no int8 convolution),
            `tensorrt` (S8 both, symmetric) or `size` (weights alone, on any processor).
        scheme: `static` fixes activation ranges ahead of time (LSTMs take them at run time even so), `dynamic` takes
            them all at run time and leaves convolutions in fp32; `auto` is static where most of the arithmetic is in
            convolutions, else dynamic. Of no concern to `cuda` and `size`; `tensorrt` is always static.
        ranges: `mse`, `minmax`, `percentile` or `entropy`.
        weights: `mse` picks each channel's scale for the least error, `max` by its largest weight.
        equalization: even out the ranges of channels (see `edgekit.quantize.equalization`).
        bias_correction: add to each bias what quantization shifts the layer's mean output by (see
            `edgekit.quantize.bias`).
        bits: of the weights for target `size`: 8 or 4.
        keep_float: names of nodes that stay in fp32.
        profile: what operators cost on the device, for the predictions beside each node; by default the one that comes
            with edgekit.
        observed: shares the histograms between the plans of several targets.
        progress: told after each batch and each corrected layer.

    Raises:
        QuantizeError: an option is unknown, the file is missing, nothing in it can be int8, calibration data are
            missing or not finite, or `keep_float` names a node that is not there.
        EdgekitError: a batch does not fit `spec`.
    """
    options = (
        ("target", target, TARGETS),
        ("scheme", scheme, SCHEMES),
        ("ranges", ranges, RANGES),
        ("weights", weights, WEIGHTS),
        ("bits", bits, BITS if target == "size" else BITS[:1]),
    )
    for where, value, known in options:
        if value not in known:
            raise QuantizeError(
                f"unknown {value!r}",
                where=where,
                rule=f"one of {', '.join(map(str, known))}",
                way_out=did_you_mean(value, known),
            )
    if (target, scheme) == ("tensorrt", "dynamic"):
        raise QuantizeError("TensorRT has no dynamic int8", where="scheme", rule="auto or static for target tensorrt")
    graph = load(model)
    if target == "cuda":
        reasons = {str(node.name): "fp16: the CUDA provider has no int8 convolution" for node in graph.graph}
        return _plan(target, "half", Placement(reasons=reasons))
    if target == "size":
        return _for_size(graph.graph, bits, keep_float, model)
    if scheme == "auto":
        scheme = "dynamic" if target != "tensorrt" and dynamic.is_better(graph.graph) else "static"
    rewrites = _rewritten(graph, target, profile, keep_float) if scheme == "static" else ()
    _check_names(graph.graph, keep_float, model)
    refusals = dynamic.refusals(graph.graph) | dict.fromkeys(keep_float, ASKED)
    if scheme == "dynamic":
        names = {str(node.name) for node in graph.graph} - set(refusals)
        _something(names, refusals, model)
        return _plan(target, "dynamic", Placement(nodes=names, reasons=refusals))
    placement = place(graph.graph, target, keep_float=keep_float)
    costs = {} if target == "tensorrt" else Costs(profile or shipped_profile(target)).both_ways(graph.graph)
    recurrent = {str(n.name) for n in graph.graph if n.op_type in ("LSTM", "GRU") and target != "tensorrt"}
    at_run_time = recurrent - set(refusals)
    reasons = placement.reasons | {name: refusals[name] for name in recurrent & set(refusals)}
    reasons = {name: why for name, why in reasons.items() if name not in at_run_time}
    _something(placement.nodes | at_run_time, reasons, model)
    stream: Iterable[Feeds] = list(calibration) if isinstance(calibration, Iterator) else calibration
    few = first_samples(stream, EVENED_BY)
    factors = choose_factors(graph, placement.nodes, few) if equalization else {}
    equalize(graph.graph, factors)
    roots = sorted({placement.root(name) for name in placement.quantized})
    version = (rewrites, tuple(sorted(factors.items())))
    histograms = (observed or Observed()).of(graph, version, roots, stream, spec=spec, progress=progress)
    scales = _scales(graph, placement, histograms, ranges, target)
    plan = replace(
        _plan(target, "static", placement),
        ranges=ranges,
        activations=scales,
        reasons=placement.reasons,
        equalized=factors,
        weight_scales=_weight_scales(graph.graph, placement, target) if weights == "mse" else {},
    )
    shifts = bias_shifts(graph, placement, plan, first_samples(few, CORRECTED_BY), progress) if bias_correction else {}
    nodes = tuple(sorted(placement.nodes | at_run_time))
    return replace(plan, nodes=nodes, reasons=reasons, bias_shift=shifts, costs_us=costs, rewrites=rewrites)


def _rewritten(
    graph: ir.Model, target: Target, profile: DeviceProfile | None, keep_float: Collection[str]
) -> tuple[str, ...]:
    """Rewrite in place for a target; TensorRT has kernels of its own for what others pay to have written otherwise."""
    if target == "tensorrt":
        return rewrite(graph, lambda _node, _instead: False)
    return rewrite(graph, paying(Costs(profile or shipped_profile(target)), target, keep_float=keep_float))


def prepared(model: Path, plan: QuantPlan) -> ir.Model:
    """The fp32 graph that a static plan speaks of: rewritten, and equalized."""
    graph = load(model)
    rewrite_again(graph, plan.rewrites)
    equalize(graph.graph, plan.equalized)
    return graph


def corrected(model: Path, plan: QuantPlan, calibration: Iterable[Feeds], progress: Progress = silent) -> QuantPlan:
    """A static plan with the biases corrected that it leads to; see `edgekit.quantize.bias`."""
    graph = prepared(model, plan)
    placement = wired(graph.graph, static_nodes(graph.graph, plan), plan.target)
    few = first_samples(calibration, CORRECTED_BY)
    return replace(plan, bias_shift=bias_shifts(graph, placement, replace(plan, bias_shift={}), few, progress))


def static_nodes(graph: ir.Graph, plan: QuantPlan) -> frozenset[str]:
    """The nodes of a static plan without those that measure their ranges at run time."""
    return frozenset(plan.nodes) - {str(node.name) for node in graph if node.op_type in ("LSTM", "GRU")}


def _weight_scales(graph: ir.Graph, placement: Placement, target: str) -> dict[str, tuple[float, ...]]:
    found = {}
    for node in graph:
        weight = constant(node.inputs[1]) if node.name in placement.nodes and node.op_type in COMPUTE else None
        if weight is not None:
            scales = mse_scales(weight, output_axis(node), WEIGHT_LIMIT[target], pair_limit(node, target))
            found[str(node.name)] = tuple(scales.tolist())
    return found


def values_to_observe(
    model: Path,
    targets: Collection[Target],
    *,
    scheme: Scheme = "auto",
    keep_float: Collection[str] = (),
    profile: DeviceProfile | None = None,
) -> frozenset[str]:
    """The values whose ranges the static plans for these targets need."""
    dynamically = scheme == "dynamic" or (scheme == "auto" and dynamic.is_better(load(model).graph))
    found: set[str] = set()
    for target in targets:
        graph = load(model)
        _rewritten(graph, target, profile, keep_float)
        if target in ACTIVATION and target != "size" and (target == "tensorrt" or not dynamically):
            placement = place(graph.graph, target, keep_float=keep_float)
            found |= {placement.root(name) for name in placement.quantized}
    return frozenset(found)


def _for_size(graph: ir.Graph, bits: int, keep_float: Collection[str], model: Path) -> QuantPlan:
    _check_names(graph, keep_float, model)
    reasons = storage.refusals(graph) | dict.fromkeys(keep_float, ASKED)
    names = {str(node.name) for node in graph} - set(reasons)
    _something(names, reasons, model)
    plan = _plan("size", "weights", Placement(nodes=names, reasons=reasons))
    return replace(plan, weight_limit=2 ** (bits - 1))


def _scales(
    model: ir.Model, placement: Placement, histograms: Mapping[str, Histogram], ranges: Method, target: Target
) -> Mapping[str, Scale]:
    """The scale of every quantized value."""
    roots = sorted({placement.root(name) for name in placement.quantized})
    dtype = ACTIVATION[target]
    if target in SYMMETRIC:
        affines = {name: symmetric(choose(histograms[name].mirrored(), ranges, 255)[1]) for name in roots}
    else:
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
            # A fused ReLU needs a range that begins at zero. A part that is wider than the whole is a slice of a wider
            # value, which others read, too.
            if high > low and (bottom < 0) == (low < 0) and SHARED <= (top - bottom) / (high - low) <= WIDEST:
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
            way_out=did_you_mean(
                min(missing), (node.name for node in graph), "`edgekit quantize --explain` lists them"
            ),
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
