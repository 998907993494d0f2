"""The verb: an fp32 ONNX file becomes a quantized one, by a plan that is made, then applied."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from edgekit.device.environment import isa_target
from edgekit.device.profile import DeviceProfile, shipped_profile
from edgekit.progress import Progress, Step, silent
from edgekit.quantize.applying import apply_plan
from edgekit.quantize.calibration import Observed, cut, first_samples, no_calibration_data
from edgekit.quantize.candidates import candidates, fastest, timed
from edgekit.quantize.graph import load
from edgekit.quantize.judging import JUDGES, Trial, Trials, held_back, outputs_of_file, sqnr_db
from edgekit.quantize.kernels import kernels_of, placements
from edgekit.quantize.plan import NodePlacement, Quantized, QuantPlan
from edgekit.quantize.planning import Scheme, Weights, corrected, plan_quantization, values_to_observe
from edgekit.quantize.ranges import Method
from edgekit.quantize.rewrites import rewrite_again
from edgekit.quantize.targets import ACTIVATION, NOT_RUN, Target, seen_here, target_here
from edgekit.spec import Feeds, IOSpec
from edgekit.store import write_atomic

PlacementBy = Literal["rules", "measured"]
TIMING_S = 1.0
"""For timing placements against each other."""


def quantize(
    model: Path,
    calibration: Iterable[Feeds],
    path: Path,
    *,
    spec: IOSpec,
    target: Target | None = None,
    scheme: Scheme = "auto",
    ranges: Method = "mse",
    weights: Weights = "mse",
    equalization: bool = True,
    bias_correction: bool = True,
    bits: int = 8,
    keep_float: Collection[str] = (),
    placement: PlacementBy = "rules",
    threads: int = 1,
    profile: DeviceProfile | None = None,
    observed: Observed | None = None,
    progress: Progress = silent,
) -> Quantized:
    """Plan, apply, and read what ONNX Runtime makes of it; see `plan_quantization` for the arguments.

    Equalization and bias correction stay only if they bring the file's outputs closer to those of the fp32 file on
    batches that the plan has not seen: every fourth one is held back for that, up to 128 samples, where there are at
    least four. Memory does not grow with the number of samples, if `calibration` loads them as they are asked for.

    Args:
        model: fp32 ONNX file.
        calibration: batches of inputs; gone through several times.
        path: the file to write.
        spec: inputs and outputs.
        target: kind of device; None takes the kind of CPU that this machine has.
        scheme: static or dynamic.
        ranges: how activation ranges are chosen.
        weights: how weight scales are chosen.
        equalization: try it.
        bias_correction: try it.
        bits: of the weights for target `size`: 8 or 4.
        keep_float: names of nodes that stay in fp32.
        placement: `rules` puts into int8 whatever fuses, or `measured`: then the regions that the profile predicts to
            be cheapest are tried, too, and the file is the one that is fastest here, if this machine is of the kind
            that `target` names.
        threads: intra-op threads that placements are timed with.
        profile: of the device; see `plan_quantization`.
        observed: shares the histograms with other targets; see `quantize_for_targets`.
        progress: told after each batch.

    Raises:
        QuantizeError: see `plan_quantization`.
        StoreError: the file cannot be written.
    """
    target = target or target_here()
    stream: Iterable[Feeds] = list(calibration) if isinstance(calibration, Iterator) else calibration
    tries = equalization or bias_correction
    judges, others = held_back(stream, spec) if tries else (first_samples(stream, JUDGES), stream)
    if not judges:
        raise no_calibration_data()

    def planned(*, equalization: bool) -> QuantPlan:
        return plan_quantization(
            model,
            others,
            spec=spec,
            target=target,
            scheme=scheme,
            ranges=ranges,
            weights=weights,
            equalization=equalization,
            bias_correction=False,
            bits=bits,
            keep_float=keep_float,
            profile=profile,
            observed=observed,
            progress=progress,
        )

    first = planned(equalization=False)
    trials = Trials(model, path, judges, outputs_of_file(model, judges))
    best = trials.of(first)
    if best.plan.scheme == "static" and equalization:
        evened = planned(equalization=True)
        best = max(best, trials.of(evened), key=Trial.gain) if evened.equalized else best
    if best.plan.scheme == "static" and bias_correction:
        shifted = corrected(model, best.plan, others, progress)
        best = max(best, trials.of(shifted), key=Trial.gain) if shifted.bias_shift else best
    write_atomic(path, best.written)
    plan, measured_us = best.plan, dict[str, float]()
    if placement == "measured" and plan.scheme == "static" and target == isa_target():
        feeds, _ = cut(judges[0], 1, spec)
        known = profile or shipped_profile(target)
        plan, measured_us = _fastest(model, plan, feeds, profile=known, threads=threads, progress=progress)
        apply_plan(model, plan, path)
    progress(Step("quantizing", 1, 1))
    return replace(read_back(model, plan, path, spec, judges), measured_us=measured_us)


def quantize_for_targets(
    model: Path,
    calibration: Iterable[Feeds],
    paths: Mapping[Target, Path],
    *,
    spec: IOSpec,
    scheme: Scheme = "auto",
    ranges: Method = "mse",
    weights: Weights = "mse",
    equalization: bool = True,
    bias_correction: bool = True,
    bits: int = 8,
    keep_float: Collection[str] = (),
    placement: PlacementBy = "rules",
    threads: int = 1,
    profile: DeviceProfile | None = None,
    progress: Progress = silent,
) -> tuple[Quantized, ...]:
    """`quantize` for several targets, each of which gets its scales from histograms that are taken once for all.

    Args:
        model: fp32 ONNX file.
        calibration: batches of inputs; gone through several times.
        paths: for each target the file to write.
        spec: inputs and outputs.
        scheme: of those targets that leave a choice.
        ranges: how activation ranges are chosen.
        weights: how weight scales are chosen.
        equalization: try it.
        bias_correction: try it.
        bits: of the weights for target `size`: 8 or 4.
        keep_float: names of nodes that stay in fp32.
        placement: as for `quantize`.
        threads: likewise.
        profile: of the device; see `plan_quantization`.
        progress: told after each batch.

    Raises:
        QuantizeError: see `plan_quantization`.
        StoreError: a file cannot be written.
    """
    stream: Iterable[Feeds] = list(calibration) if isinstance(calibration, Iterator) else calibration
    observed = Observed(values_to_observe(model, list(paths), scheme=scheme, keep_float=keep_float, profile=profile))
    return tuple(
        quantize(
            model,
            stream,
            path,
            spec=spec,
            target=target,
            scheme=scheme if target != "tensorrt" else "auto",
            ranges=ranges,
            weights=weights,
            equalization=equalization,
            bias_correction=bias_correction,
            bits=bits if target == "size" else 8,
            keep_float=keep_float,
            placement=placement,
            threads=threads,
            profile=profile,
            observed=observed,
            progress=progress,
        )
        for target, path in paths.items()
    )


def read_back(model: Path, plan: QuantPlan, path: Path, spec: IOSpec, judges: Sequence[Feeds]) -> Quantized:
    """What ONNX Runtime makes of the file at `path`, which `plan` has made of `model`."""
    nodes, kernels = _what_runs(model, plan, path)
    return Quantized(
        path=path,
        spec=spec,
        plan=plan,
        nodes=nodes,
        kernels=kernels,
        sqnr_db=sqnr_db(model, path, judges, plan.target),
        seen_here=seen_here(plan.target),
    )


def _fastest(
    model: Path, rules: QuantPlan, feeds: Feeds, *, profile: DeviceProfile, threads: int, progress: Progress
) -> tuple[QuantPlan, dict[str, float]]:
    """The plan that is fastest here of those with the int8 nodes of `rules` or fewer, and the microseconds of each."""
    with tempfile.TemporaryDirectory(prefix="edgekit-candidates-") as folder:
        plans, files = candidates(model, rules, profile), {"fp32": model}
        for index, (name, plan) in enumerate(plans.items()):
            files[name] = Path(folder) / f"{index}.onnx"
            apply_plan(model, plan, files[name])
        latencies = timed(files, feeds, threads=threads, time_s=TIMING_S, progress=progress)
    us = {name: round(1e3 * latency.p50.value, 2) for name, latency in latencies.items()}
    return plans[fastest(latencies)], us


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
    if plan.target == "tensorrt":
        return _planned(source, plan, "int8", f"Q and DQ stand on its inputs; {NOT_RUN}"), {}
    kernels = kernels_of(path, ACTIVATION[plan.target])
    if plan.scheme == "weights":
        bits = plan.weight_limit.bit_length()
        return _planned(source, plan, f"int{bits} weights", "computes in fp32"), kernels.counts
    return placements(source, plan, kernels), kernels.counts


def _planned(source: ir.Model, plan: QuantPlan, precision: str, reason: str) -> tuple[NodePlacement, ...]:
    """Each node as the plan has it, where no integer kernel of this machine could say more."""
    return tuple(
        NodePlacement(name=name, op=node.op_type, precision=precision, reason=reason)
        if (name := str(node.name)) in plan.nodes
        else NodePlacement(name=name, op=node.op_type, precision="fp32", reason=plan.reasons[name])
        for node in source.graph
    )
