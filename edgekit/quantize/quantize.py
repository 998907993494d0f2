"""The verb: an fp32 ONNX file becomes a quantized one, by a plan that is made, then applied."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir

from edgekit.device.environment import isa_target
from edgekit.device.profile import DeviceProfile, shipped_profile
from edgekit.device.session import open_session
from edgekit.progress import Progress, Step, silent
from edgekit.quantize.applying import apply_plan
from edgekit.quantize.calibration import Observed, cut, first_samples, no_calibration_data, samples_in
from edgekit.quantize.candidates import candidates, fastest, timed
from edgekit.quantize.graph import load
from edgekit.quantize.kernels import kernels_of, placements
from edgekit.quantize.plan import NodePlacement, Quantized, QuantPlan
from edgekit.quantize.planning import Scheme, Weights, corrected, plan_quantization, values_to_observe
from edgekit.quantize.ranges import Method
from edgekit.quantize.rewrites import rewrite_again
from edgekit.quantize.targets import ACTIVATION, NO_CPU, NOT_RUN, Target, seen_here
from edgekit.spec import Feeds, IOSpec
from edgekit.store import write_atomic

PlacementBy = Literal["rules", "measured"]
TIMING_S = 1.0
"""For timing placements against each other."""
HELD_BACK, JUDGES = 4, 128
"""One batch in so many is held back from the plan to judge by, until there are so many samples."""


def quantize(
    model: Path,
    calibration: Iterable[Feeds],
    path: Path,
    *,
    spec: IOSpec,
    target: Target = "x86-vnni",
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
        target: kind of device.
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
    trials = _Trials(model, path, judges, _outputs(model, judges))
    best = trials.of(first)
    if best.plan.scheme == "static" and equalization:
        evened = planned(equalization=True)
        best = max(best, trials.of(evened), key=_Trial.gain) if evened.equalized else best
    if best.plan.scheme == "static" and bias_correction:
        shifted = corrected(model, best.plan, others, progress)
        best = max(best, trials.of(shifted), key=_Trial.gain) if shifted.bias_shift else best
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
        sqnr_db=sqnr_db(model, path, judges, optimize=plan.target not in NO_CPU),
        seen_here=seen_here(plan.target),
    )


@dataclass(frozen=True, slots=True)
class _Trial:
    """A plan, the bytes of its file, and how close its outputs come to those of the fp32 file."""

    plan: QuantPlan
    written: bytes
    sqnr_db: float

    def gain(self) -> float:
        return self.sqnr_db


@dataclass(frozen=True, slots=True)
class _Trials:
    """Judges plans by batches that they have not seen."""

    model: Path
    path: Path
    judges: Sequence[Feeds]
    wanted: Sequence[np.ndarray]

    def of(self, plan: QuantPlan) -> _Trial:
        apply_plan(self.model, plan, self.path)
        had = _outputs(self.path, self.judges, optimize=plan.target not in NO_CPU)
        return _Trial(plan, self.path.read_bytes(), _sqnr_db(self.wanted, had))


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


@dataclass(frozen=True, slots=True)
class _Without:
    """The batches of a stream but some; it can be gone through again and again, as the stream can."""

    stream: Iterable[Feeds]
    skipped: frozenset[int]

    def __iter__(self) -> Iterator[Feeds]:
        return (feeds for index, feeds in enumerate(self.stream) if index not in self.skipped)

    def __len__(self) -> int:
        return len(self.stream) - len(self.skipped) if isinstance(self.stream, Sized) else 0


def held_back(stream: Iterable[Feeds], spec: IOSpec) -> tuple[list[Feeds], Iterable[Feeds]]:
    """Every fourth batch, up to 128 samples, and the stream without them; all for both if there are fewer than four.

    Raises:
        EdgekitError: a batch does not fit `spec`.
    """
    judges: list[Feeds] = []
    first: list[Feeds] = []
    skipped: set[int] = set()
    for index, feeds in enumerate(stream):
        spec.check_feeds(feeds)
        if index % HELD_BACK != HELD_BACK - 1:
            first += [feeds] if index < HELD_BACK else []
            continue
        judges.append(feeds)
        skipped.add(index)
        if sum(map(samples_in, judges)) >= JUDGES:
            break
    return (judges, _Without(stream, frozenset(skipped))) if judges else (first, stream)


def sqnr_db(reference: Path, candidate: Path, batches: Sequence[Feeds], *, optimize: bool = True) -> float:
    """Signal to quantization noise over all outputs, in decibels; 200 where there is no noise.

    10 log10 of the power of the reference's outputs over the power of the difference. A file for another device than
    the CPU is run as it is written, without ONNX Runtime's optimizations for the CPU (`optimize=False`).
    """
    return _sqnr_db(_outputs(reference, batches), _outputs(candidate, batches, optimize=optimize))


def _outputs(path: Path, batches: Sequence[Feeds], *, optimize: bool = True) -> list[np.ndarray]:
    session = open_session(path, threads=0, optimize=optimize)
    return [array for feeds in batches for array in session.run(None, dict(feeds))]


def _sqnr_db(wanted: Sequence[np.ndarray], had: Sequence[np.ndarray]) -> float:
    signal = noise = 0.0
    for want, have in zip(wanted, had, strict=True):
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
