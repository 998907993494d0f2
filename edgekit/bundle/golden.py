"""Golden vectors at writing time: recorded from the reference, and compared with every variant."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.device.golden import Golden
from edgekit.device.model import max_difference, preprocessing_difference
from edgekit.device.processing import Preprocessing, Vocabulary, prepared
from edgekit.device.session import open_session
from edgekit.device.variants import exact_config
from edgekit.errors import BundleError
from edgekit.spec import Feeds, IOSpec

MARGIN = 2.0
"""Another processor rounds otherwise: a variant may lie twice as far from the reference as it did when measured."""
FLOOR = 1e-4
"""Of the largest output: what float32 kernels of different instruction sets differ by at the very most."""
ASSUMED = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.25}
"""Of the largest output, by precision, for a variant that cannot be run here."""
ASSUMED_ELSE = 0.25


def record_golden(
    model: Path,
    inputs: Iterable[Feeds],
    *,
    raw: Sequence[np.ndarray | str] = (),
    target: str = "any",
    threads: int = 1,
) -> tuple[Golden, ...]:
    """Run the reference file on the CPU and keep what went in and what came out.

    Args:
        model: the reference: the file whose accuracy was validated.
        inputs: samples, each as inputs by name.
        raw: what each sample's inputs came from, where the bundle has preprocessing: images uint8 [H, W, 3] or [H, W],
            recordings float32 [n], or texts.
        target: the kind of CPU that the file is for: on another kind it answers as on its own.
        threads: intra-op threads.

    Raises:
        BundleError: there are not as many raw samples as inputs.
    """
    samples = list(inputs)
    if raw and len(raw) != len(samples):
        raise BundleError(
            f"{len(raw)} raw samples for {len(samples)} inputs", where="record_golden", rule="one for each sample"
        )
    session = open_session(model, threads=threads, config=exact_config(target))
    names = [output.name for output in session.get_outputs()]
    return tuple(
        Golden(
            inputs=dict(feeds),
            outputs=dict(zip(names, session.run(names, dict(feeds)), strict=True)),
            raw=raw[index] if raw else None,
        )
        for index, feeds in enumerate(samples)
    )


def check_golden(
    golden: Sequence[Golden], spec: IOSpec, preprocessing: Preprocessing | None, vocabulary: Vocabulary | None = None
) -> None:
    """Refuse golden vectors that no device could reproduce.

    Raises:
        BundleError: tensors are not those of `spec`, are not finite, or raw input does not preprocess to the inputs.
    """
    for index, sample in enumerate(golden):
        where = f"golden[{index}]"
        for side, tensors, values in (("input", spec.inputs, sample.inputs), ("output", spec.outputs, sample.outputs)):
            if set(values) != {tensor.name for tensor in tensors}:
                raise BundleError(
                    f"{side}s {sorted(values)}", where=where, rule=f"{[tensor.name for tensor in tensors]}"
                )
            for tensor in tensors:
                value = values[tensor.name]
                if not tensor.accepts(value):
                    found = f"{value.dtype} {list(value.shape)}"
                    raise BundleError(f"{side} {tensor.name!r} is {found}", where=where, rule=str(tensor))
                if not np.all(np.isfinite(value)):
                    raise BundleError(f"{side} {tensor.name!r} is not finite", where=where, rule="finite numbers")
        if sample.raw is not None:
            if preprocessing is None:
                raise BundleError("raw input", where=where, rule="raw input needs preprocessing")
            _check_raw(prepared(preprocessing, sample.raw, spec, vocabulary), sample, where)


def tolerances(sessions: Sequence[Any], golden: Sequence[Golden], spec: IOSpec, where: str) -> dict[str, float]:
    """How far a variant's outputs may lie from the golden ones: as far as they do in any of `sessions`, with a margin.

    One session runs the file as a device would. Another, without graph optimization, runs int8 nodes in float between
    their Q and DQ: how far that lies off is what other kernels, on other processors, may lie off.

    Raises:
        BundleError: an output is not finite or of another shape.
    """
    names = [output.name for output in spec.outputs]
    worst = dict.fromkeys(names, 0.0)
    for index, sample in enumerate(golden):
        runs = [zip(names, session.run(names, dict(sample.inputs)), strict=True) for session in sessions]
        for name, value in itertools.chain(*runs):
            difference = max_difference(value, sample.outputs[name])
            if not np.isfinite(difference):
                raise BundleError(
                    f"output {name!r} of golden sample {index} is {value.dtype} {list(value.shape)} or not finite",
                    where=where,
                    rule="the shape of the reference's output, and finite numbers",
                )
            worst[name] = max(worst[name], difference)
    return {name: max(MARGIN * worst[name], FLOOR * _largest(golden, name)) for name in names}


def assumed_tolerances(golden: Sequence[Golden], spec: IOSpec, precision: str) -> dict[str, float]:
    """How far outputs of a variant that cannot be run here may lie from the golden ones."""
    share = ASSUMED.get(precision, ASSUMED_ELSE)
    return {output.name: share * _largest(golden, output.name) for output in spec.outputs}


def _largest(golden: Sequence[Golden], name: str) -> float:
    return max(1.0, *(float(np.max(np.abs(sample.outputs[name]), initial=0.0)) for sample in golden))


def _check_raw(made: Feeds, sample: Golden, where: str) -> None:
    difference, allowed = preprocessing_difference(made, sample.inputs)
    if not difference <= allowed:
        raise BundleError(
            f"the raw sample preprocesses to something else than the input: they differ by {difference:.6g}",
            where=where,
            rule="inputs come from their raw samples by the recorded preprocessing",
            way_out="set the preprocessing as in training, such as image size, mean and std",
        )
