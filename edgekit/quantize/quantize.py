"""The verb: an fp32 ONNX file becomes a quantized one, by a plan that is made, then applied."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgekit.device.profile import DeviceProfile
from edgekit.device.session import open_session
from edgekit.progress import Progress, Step, silent
from edgekit.quantize.applying import apply_plan
from edgekit.quantize.calibration import no_calibration_data
from edgekit.quantize.graph import load
from edgekit.quantize.kernels import kernels_of, placements
from edgekit.quantize.plan import NodePlacement, Quantized, QuantPlan
from edgekit.quantize.planning import Scheme, plan_quantization
from edgekit.quantize.ranges import Method
from edgekit.quantize.rewrites import rewrite_again
from edgekit.quantize.targets import ACTIVATION, Target
from edgekit.spec import Feeds, IOSpec
from edgekit.store import write_atomic

HELD_BACK = 4
"""One batch in so many is held back from the plan, to judge the bias correction by."""


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
    keep_float: Collection[str] = (),
    profile: DeviceProfile | None = None,
    progress: Progress = silent,
) -> Quantized:
    """Plan, apply, and read what ONNX Runtime makes of it; see `plan_quantization` for the arguments.

    The bias correction stays only if it brings the file's outputs closer to those of the fp32 file on batches that the
    plan has not seen: every fourth one is held back for that, where there are at least four.

    Args:
        model: fp32 ONNX file.
        calibration: batches of inputs, which are kept; activations are not.
        path: the file to write.
        spec: inputs and outputs.
        target: kind of device.
        scheme: static or dynamic.
        ranges: how activation ranges are chosen.
        bias_correction: try it.
        keep_float: names of nodes that stay in fp32.
        profile: of the device; see `plan_quantization`.
        progress: told after each batch.

    Raises:
        QuantizeError: see `plan_quantization`.
        StoreError: the file cannot be written.
    """
    batches = calibration if isinstance(calibration, Sequence) else list(calibration)
    if not batches:
        raise no_calibration_data()
    for feeds in batches:
        spec.check_feeds(feeds)
    judges = batches[HELD_BACK - 1 :: HELD_BACK] if bias_correction else []
    plan = plan_quantization(
        model,
        [feeds for index, feeds in enumerate(batches) if not judges or index % HELD_BACK != HELD_BACK - 1],
        spec=spec,
        target=target,
        scheme=scheme,
        ranges=ranges,
        bias_correction=bias_correction,
        keep_float=keep_float,
        profile=profile,
        progress=progress,
    )
    apply_plan(model, plan, path)
    if plan.bias_shift:
        corrected, gain = path.read_bytes(), sqnr_db(model, path, judges or batches)
        plain = replace(plan, bias_shift={})
        apply_plan(model, plain, path)
        if sqnr_db(model, path, judges or batches) >= gain:
            plan = plain
        else:
            write_atomic(path, corrected)
    progress(Step("quantizing", 1, 1))
    nodes, kernels = _what_runs(model, plan, path)
    return Quantized(
        path=path, spec=spec, plan=plan, nodes=nodes, kernels=kernels, sqnr_db=sqnr_db(model, path, batches)
    )


def sqnr_db(reference: Path, candidate: Path, batches: Sequence[Feeds]) -> float:
    """Signal to quantization noise over all outputs, in decibels; 200 where there is no noise.

    10 log10 of the power of the reference's outputs over the power of the difference.
    """
    one, other = open_session(reference, threads=0), open_session(candidate, threads=0)
    signal = noise = 0.0
    for feeds in batches:
        for want, have in zip(one.run(None, dict(feeds)), other.run(None, dict(feeds)), strict=True):
            if np.issubdtype(want.dtype, np.floating):
                signal += float((want.astype(np.float64) ** 2).sum())
                noise += float(((want.astype(np.float64) - have) ** 2).sum())
    return 200.0 if noise == 0.0 else min(200.0, 10 * float(np.log10(max(signal, 1e-300) / noise)))


def _what_runs(model: Path, plan: QuantPlan, path: Path) -> tuple[tuple[NodePlacement, ...], dict[str, int]]:
    if plan.scheme == "half":
        rows = tuple(
            NodePlacement(name=str(node.name), op=node.op_type, precision="fp16", reason="computes in fp16")
            for node in load(path).graph
            if node.op_type != "Cast"
        )
        return rows, {}
    source = load(model)
    if plan.scheme == "static":
        rewrite_again(source, plan.rewrites)
    kernels = kernels_of(path, ACTIVATION[plan.target])
    return placements(source, plan, kernels), kernels.counts
