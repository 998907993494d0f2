"""The verb: an fp32 ONNX file becomes a quantized one, by a plan that is made, then applied."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir

from edgekit.device.session import open_session
from edgekit.errors import QuantizeError
from edgekit.progress import Progress, Step, silent
from edgekit.quantize import dynamic, half
from edgekit.quantize.calibration import Observed, observe
from edgekit.quantize.graph import constant, load
from edgekit.quantize.kernels import read
from edgekit.quantize.placement import Placement, activations_of, place
from edgekit.quantize.plan import NodePlacement, QuantPlan, Quantized, Scale
from edgekit.quantize.qdq import insert, output_axis
from edgekit.quantize.ranges import Method, affine, choose, quantized_weight, weight_scales
from edgekit.quantize.rewrites import rewrite
from edgekit.spec import Feeds, IOSpec
from edgekit.store import write_atomic

Target = Literal["x86-vnni", "x86-avx2", "arm64", "cuda"]
Scheme = Literal["auto", "static", "dynamic"]
TARGETS = ("x86-vnni", "x86-avx2", "arm64", "cuda")
SCHEMES = ("auto", "static", "dynamic")
RANGES = ("mse", "minmax", "percentile")
WEIGHT_LIMIT = {"x86-vnni": 127, "x86-avx2": 63, "arm64": 127, "cuda": 0}
ACTIVATION = {"x86-vnni": "uint8", "x86-avx2": "uint8", "arm64": "int8"}


def plan_quantization(
    model: Path,
    calibration: Iterable[Feeds],
    *,
    spec: IOSpec,
    target: Target = "x86-vnni",
    scheme: Scheme = "auto",
    ranges: Method = "mse",
    bias_correction: bool = True,
    progress: Progress = silent,
) -> QuantPlan:
    """Decide what of an fp32 file becomes int8, and on which scales; the file is left as it is.

    Args:
        model: fp32 ONNX file.
        calibration: batches of inputs; some hundred samples. Not looked at by dynamic int8 and fp16.
        spec: the file's inputs and outputs.
        target: `x86-vnni` (U8 activations, S8 weights), `x86-avx2` (the same with 7-bit weights, since VPMADDUBSW
            saturates), `arm64` (S8 both) or `cuda` (fp16; the CUDA provider has no int8 convolution).
        scheme: `static` fixes activation ranges ahead of time, `dynamic` takes them at run time; `auto` is static where
            there are convolutions, else dynamic.
        ranges: `mse`, `minmax` or `percentile`.
        bias_correction: add to each bias what rounding the weights shifts the mean output by
            (M. Nagel et al., *Data-Free Quantization*, 2019, section 4.2, with measured input means).
        progress: told after each batch.

    Raises:
        QuantizeError: an option is unknown, the file is missing, nothing in it can be int8, calibration data are missing
            or not finite.
    """
    for where, value, known in (("target", target, TARGETS), ("scheme", scheme, SCHEMES), ("ranges", ranges, RANGES)):
        if value not in known:
            raise QuantizeError(f"unknown {value!r}", where=where, rule=f"one of {', '.join(known)}")
    graph = load(model)
    if target == "cuda":
        reasons = {str(node.name): "fp16: the CUDA provider has no int8 convolution" for node in graph.graph}
        return _plan(target, "half", "", Placement(reasons=reasons))
    kinds = {node.op_type for node in graph.graph}
    if scheme == "auto":
        scheme = "static" if "Conv" in kinds else "dynamic"
    if scheme == "dynamic":
        reasons = dynamic.refusals(graph.graph)
        nodes = {str(node.name) for node in graph.graph} - set(reasons)
        _something(nodes, reasons, model)
        return _plan(target, "dynamic", "", Placement(nodes=nodes, reasons=reasons))
    rewrite(graph)
    placement = place(graph.graph)
    _something(placement.nodes, placement.reasons, model)
    roots = sorted({placement.root(name) for name in placement.quantized})
    with tempfile.TemporaryDirectory(prefix="edgekit-calibration-") as folder:
        observed = observe(graph, roots, calibration, spec, Path(folder), progress)
    plan = _plan(target, "static", ranges, placement)
    activations = {
        name: Scale(scale=scale, zero_point=zero, dtype=ACTIVATION[target])
        for name in roots
        for scale, zero in [affine(*choose(observed.histograms[name], ranges), ACTIVATION[target])]
    }
    shift = _bias_shift(graph.graph, placement, observed, plan.weight_limit) if bias_correction else {}
    return replace(plan, activations=activations, bias_shift=shift)


def apply_plan(model: Path, plan: QuantPlan, path: Path) -> None:
    """Write the quantized file that `plan` describes.

    Raises:
        QuantizeError: the plan names nodes that the file does not have.
        StoreError: the file cannot be written.
    """
    graph = load(model)
    with tempfile.TemporaryDirectory(prefix="edgekit-quantize-") as folder:
        temporary = Path(folder) / "model.onnx"
        if plan.scheme == "half":
            half.convert(graph, temporary)
        else:
            if plan.scheme == "static":
                rewrite(graph)
            missing = set(plan.nodes) - {str(node.name) for node in graph.graph}
            if missing:
                raise QuantizeError(
                    f"no nodes {', '.join(sorted(missing)[:5])}",
                    where=str(model),
                    rule="the file that the plan was made for",
                )
            if plan.scheme == "static":
                insert(graph, place(graph.graph), plan)
            else:
                dynamic.convert(graph, frozenset(plan.nodes), plan.weight_limit)
            graph.metadata_props["edgekit.quantized"] = f"{plan.scheme} {plan.target} {plan.ranges}".strip()
            ir.save(graph, temporary)
        onnx.checker.check_model(onnx.load(temporary))
        write_atomic(path, temporary.read_bytes())


def quantize(
    model: Path,
    calibration: Iterable[Feeds],
    path: Path,
    *,
    spec: IOSpec,
    target: Target = "x86-vnni",
    scheme: Scheme = "auto",
    ranges: Method = "mse",
    bias_correction: bool = True,
    progress: Progress = silent,
) -> Quantized:
    """Plan, apply, and read what ONNX Runtime makes of it; see `plan_quantization` for the arguments.

    The bias correction stays only if it brings the file's outputs closer to those of the fp32 file on calibration data.

    Args:
        model: fp32 ONNX file.
        calibration: batches of inputs.
        path: the file to write.
        spec: inputs and outputs.
        target: kind of device.
        scheme: static or dynamic.
        ranges: how activation ranges are chosen.
        bias_correction: try it.
        progress: told after each batch.

    Raises:
        QuantizeError: see `plan_quantization`.
        StoreError: the file cannot be written.
    """
    batches = calibration if isinstance(calibration, Sequence) else list(calibration)
    plan = plan_quantization(
        model,
        batches,
        spec=spec,
        target=target,
        scheme=scheme,
        ranges=ranges,
        bias_correction=bias_correction,
        progress=progress,
    )
    apply_plan(model, plan, path)
    if not batches:
        raise QuantizeError(
            "no calibration data",
            where="quantize",
            rule="at least one batch",
            way_out="some hundred samples are enough",
        )
    sqnr = sqnr_db(model, path, batches)
    if plan.bias_shift:
        plain = replace(plan, bias_shift={})
        corrected = path.read_bytes()
        apply_plan(model, plain, path)
        plain_sqnr = sqnr_db(model, path, batches)
        if plain_sqnr >= sqnr:
            plan, sqnr = plain, plain_sqnr
        else:
            write_atomic(path, corrected)
    progress(Step("quantizing", 1, 1))
    with tempfile.TemporaryDirectory(prefix="edgekit-kernels-") as folder:
        nodes, kernels = _placements(model, plan, path, Path(folder))
    return Quantized(path=path, spec=spec, plan=plan, nodes=nodes, kernels=kernels, sqnr_db=sqnr)


def sqnr_db(reference: Path, candidate: Path, batches: Sequence[Feeds]) -> float:
    """Signal to quantization noise over all outputs: 10 log10 of the power of the reference over that of the difference."""
    one, other = open_session(reference, threads=0), open_session(candidate, threads=0)
    signal = noise = 0.0
    for feeds in batches:
        for want, have in zip(one.run(None, dict(feeds)), other.run(None, dict(feeds)), strict=True):
            if np.issubdtype(want.dtype, np.floating):
                signal += float((want.astype(np.float64) ** 2).sum())
                noise += float(((want.astype(np.float64) - have) ** 2).sum())
    return 200.0 if noise == 0.0 else min(200.0, 10 * float(np.log10(max(signal, 1e-300) / noise)))


def _plan(target: str, scheme: str, ranges: str, placement: Placement) -> QuantPlan:
    return QuantPlan(
        target=target,
        scheme=scheme,
        ranges=ranges,
        weight_limit=WEIGHT_LIMIT[target],
        activations={},
        nodes=tuple(sorted(placement.nodes)),
        reasons=placement.reasons,
        bias_shift={},
    )


def _something(nodes: set[str], reasons: dict[str, str], model: Path) -> None:
    if not nodes:
        listed = "; ".join(f"{name}: {why}" for name, why in list(reasons.items())[:5])
        raise QuantizeError(
            "nothing in the graph can run in int8",
            where=str(model),
            rule="convolutions, matrix products or LSTMs with constant weights",
            way_out=f"ship fp32. The first reasons: {listed}",
        )


def _bias_shift(graph: ir.Graph, placement: Placement, observed: Observed, limit: int) -> dict[str, tuple[float, ...]]:
    """Minus the mean of (rounded weight - weight) applied to the mean input, for each output channel.

    Zero padding at the borders is left out of the account: inside an image every kernel position sees the mean.
    """
    shift = {}
    for node in graph:
        if node.name not in placement.nodes or node.op_type not in ("Conv", "Gemm"):
            continue
        weight = constant(node.inputs[1])
        source = placement.root(str(activations_of(node)[0].name))
        assert weight is not None
        means = observed.mean(source)
        axis = output_axis(node)
        scales = weight_scales(weight, axis, limit)
        shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
        error = quantized_weight(weight, scales, axis, limit) * scales.reshape(shape) - weight
        error = np.moveaxis(error, axis, 0).reshape(weight.shape[axis], weight.shape[1 - axis], -1).sum(2)
        groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
        if error.shape[1] * groups != len(means):
            continue
        per_group = means.reshape(groups, -1)
        outputs = error.reshape(groups, -1, error.shape[1])
        shift[str(node.name)] = tuple((-np.einsum("goi,gi->go", outputs, per_group)).ravel().tolist())
    return shift


def _placements(
    model: Path, plan: QuantPlan, path: Path, folder: Path
) -> tuple[tuple[NodePlacement, ...], dict[str, int]]:
    if plan.scheme == "half":
        graph = load(path)
        rows = tuple(
            NodePlacement(name=str(n.name), op=n.op_type, precision="fp16", reason="computes in fp16")
            for n in graph.graph
            if n.op_type != "Cast"
        )
        return rows, {}
    source = load(model)
    if plan.scheme == "static":
        rewrite(source)
    nodes, kernels = read(source, plan, path, folder)
    return nodes, dict(kernels)
