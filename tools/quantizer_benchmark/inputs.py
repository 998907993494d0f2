"""What quantizers calibrate on, what is timed, and what is scored."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import EdgekitError
from edgekit.spec import Feeds, IOSpec

if TYPE_CHECKING:  # It needs torch, and --help need not wait for it.
    from edgekit.workload import Workload, WorkloadConfig

RANDOM_SAMPLES, CALIBRATION_BATCH = 64, 32
WORKLOAD = {
    "train": "training data, given as to `edgekit compress`",
    "test": "data that the model has never seen; half of it is the selection split that is scored",
    "selection": "the selection split, if it is data of its own",
    "task": "classification (the default) or another task",
    "labels": "names of the classes",
    "image_size": "height and width of images",
    "mean": "mean of each channel",
    "std": "standard deviation of each channel",
}
"""Options of a workload that are handed on as they are."""


def add_workload(parser: argparse._ActionsContainer) -> None:
    """Give a command line the options of a workload."""
    parser.add_argument("--workload-model", metavar="MODEL", help="path/to/file.py:function that returns the nn.Module")
    for name, text in WORKLOAD.items():
        parser.add_argument(f"--{name.replace('_', '-')}", help=text)


def workload_config(options: argparse.Namespace) -> WorkloadConfig:
    """The workload that the options name.

    Raises:
        EdgekitError: an entry cannot be taken as given.
    """
    from edgekit.cli import options as shared

    given = {name: getattr(options, name) for name in WORKLOAD if getattr(options, name) is not None}
    return shared.workload_config(model=options.workload_model, seed=options.seed, **given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What quantizers calibrate on, what is timed, and what is scored.

    Args:
        calibration: batches of inputs.
        timed: the inputs of one timed run.
        about: where they come from, JSON-ready.
        workload: the metric and its data, where they are known.
    """

    calibration: tuple[Feeds, ...]
    timed: Feeds
    about: Mapping[str, Any]
    workload: Workload | None = None


def inputs_for(options: argparse.Namespace, spec: IOSpec) -> Data:
    """The data that the command line names.

    Raises:
        EdgekitError: they cannot be read, or do not fit the file.
    """
    if options.workload_model is not None:
        return _from_workload(options, spec)
    if options.data is not None:
        return _from_arrays(_read_npz(options.data, spec), spec, options.batch, "npz")
    return _from_arrays(_random(spec, options.seed), spec, options.batch, "random")


def _from_workload(options: argparse.Namespace, spec: IOSpec) -> Data:
    """Calibration, selection split and metric of the user's project: the same samples that `edgekit compress` takes."""
    from edgekit.validate import feeds_of, first_feeds
    from edgekit.validate.feeds import fixed_batch
    from edgekit.workload import load_workload, loader, size_of

    workload = load_workload(workload_config(options))
    splits, fixed = workload.splits, fixed_batch(spec)
    batches = loader(splits.calibration, fixed or CALIBRATION_BATCH, model=workload.model(), seed=splits.seed)
    return Data(
        calibration=tuple(_filled(feeds_of(batch, spec), fixed) for batch in batches),
        timed=_filled(first_feeds(splits.selection, spec, options.batch), fixed),
        about={
            "kind": "workload",
            "model": Path(options.workload_model).name,
            "calibration_samples": size_of(splits.calibration),
            "split": "selection",
            "samples": size_of(splits.selection),
            "metric": workload.task.metric,
        },
        workload=workload,
    )


def _from_arrays(arrays: Feeds, spec: IOSpec, batch: int, kind: str) -> Data:
    from edgekit.validate.feeds import fixed_batch, padded

    fixed = fixed_batch(spec)
    calibration = tuple(_filled(piece, fixed) for piece in cut(arrays, fixed or CALIBRATION_BATCH))
    for feeds in calibration:
        spec.check_feeds(feeds)
    return Data(
        calibration=calibration,
        timed=padded(cut(arrays, fixed or batch)[0], fixed or batch),
        about={"kind": kind, "calibration_samples": _length(arrays)},
    )


def _read_npz(path: Path, spec: IOSpec) -> Feeds:
    """The inputs out of an .npz; what else it holds is left alone."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            missing = [tensor.name for tensor in spec.inputs if tensor.name not in file.files]
            arrays = {
                tensor.name: file[tensor.name].astype(tensor.dtype, casting="same_kind")
                for tensor in spec.inputs
                if tensor.name not in missing
            }
            holds = ", ".join(file.files)
    # A single array, as in an .npy, is no context manager: TypeError; so is an array of another kind than the input.
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise EdgekitError(
            f"cannot read {path}: {error}",
            where="--data",
            rule="an .npz with one array for each input",
            way_out="save with np.savez(path, NAME=inputs)",
        ) from error
    if missing:
        raise EdgekitError(
            f"no array {', '.join(missing)} in {path}, which has {holds}",
            where="--data",
            rule=f"one array for each input: {', '.join(tensor.name for tensor in spec.inputs)}",
            way_out="save with np.savez(path, NAME=inputs)",
        )
    if len({array.shape[:1] for array in arrays.values()}) != 1 or not _length(arrays):
        raise EdgekitError(
            f"arrays of shapes {', '.join(str(list(array.shape)) for array in arrays.values())}",
            where="--data",
            rule="one sample a row, and as many of each input",
        )
    return arrays


def _random(spec: IOSpec, seed: int) -> Feeds:
    """Normal numbers; ones for integers, since an index of 1 is in every vocabulary."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for tensor in spec.inputs:
        open_sizes = [size for size in tensor.shape[1:] if isinstance(size, str)]
        if open_sizes:
            raise EdgekitError(
                f"input {tensor.name!r} has open sizes {', '.join(open_sizes)}",
                where="random inputs",
                rule="inputs without a fixed size need data",
                way_out="--data inputs.npz, or a workload (--workload-model, --train, --test)",
            )
        shape = [RANDOM_SAMPLES, *tensor.shape[1:]]
        floats = np.issubdtype(np.dtype(tensor.dtype), np.floating)
        arrays[tensor.name] = (rng.standard_normal(shape) if floats else np.ones(shape)).astype(tensor.dtype)
    return arrays


def cut(arrays: Feeds, size: int) -> list[Feeds]:
    """Samples in batches of `size`; the last may be smaller."""
    return [
        {name: array[start : start + size] for name, array in arrays.items()}
        for start in range(0, _length(arrays), size)
    ]


def _filled(feeds: Feeds, fixed: int | None) -> Feeds:
    """A batch filled up to the size that the file is fixed to, if it is."""
    from edgekit.validate.feeds import padded

    return feeds if fixed is None else padded(feeds, fixed)


def _length(arrays: Feeds) -> int:
    first = next(iter(arrays.values()), np.zeros(0))
    return len(first) if first.ndim else 0
