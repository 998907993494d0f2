"""`edgekit.toml`: what a workload is made of, as text."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, cast

from edgekit import tasks
from edgekit.data import anchored
from edgekit.device.processing import postprocessing_from, preprocessing_from
from edgekit.errors import DataError, WorkloadError, did_you_mean
from edgekit.tasks import Task

TASKS: dict[str, Callable[[], Task]] = {
    "classification": tasks.classification,
    "multilabel": tasks.multilabel,
    "regression": tasks.regression,
    "reconstruction": tasks.reconstruction,
    "imitation": tasks.imitation,
}
"""The tasks that have a name."""

TEMPLATE = """\
# edgekit.toml: what to compress. Paths start from this file's folder. Lines with # are optional.

# The trained model: a function without arguments that returns an nn.Module with its weights, or a model of a library:
# "timm:resnet18.a1_in1k", "torchvision:resnet50", "hf:folder" (transformers). Nothing is downloaded unless you add
# ?download=yes.
model = "net.py:model"

# Weights for it, where the function does not load them itself, and for timm: and torchvision: models: .safetensors, or
# what torch.save(model.state_dict(), …) wrote. Nothing in the file is run, unless trust_pickle names the very file.
# weights = "net.safetensors"
# trust_pickle = "net.pt"

# Data: a function that returns a Dataset or a DataLoader, a directory or zip with one folder of images per class, an
# .npz with x (or several inputs by name) and y, "data.csv?label=species", "shards-{000..009}.tar" (WebDataset),
# "hf:folder?split=train" (datasets), "torchvision:CIFAR10?root=data&split=train".
train = "net.py:train_data"
test = "net.py:test_data"

# Data that decisions may look at. Without it, half of test (at most 5,000 samples) is set aside, because a trained
# model has already seen its train data. selection_from = "train" sets some of train aside instead: only for models that
# edgekit trains itself.
# selection = "net.py:validation_data"
# selection_from = "test"

# classification, multilabel, regression, reconstruction or imitation (no labels: the original is the reference),
# or a function that returns an edgekit.tasks.Task, as "net.py:task".
# task = "classification"

# Names of the classes, in the order of the model's outputs.
# labels = ["cat", "dog"]

# How images become inputs, as in training: [height, width], and mean and standard deviation of each channel in [0, 1].
# Needed for images, unless the model's library says so itself; with it, the bundle takes images and not only arrays.
# image_size = [224, 224]
# mean = [0.485, 0.456, 0.406]
# std = [0.229, 0.224, 0.225]
# Resize the shorter side to this first and cut image_size out of the centre, as in ImageNet training.
# shorter_side = 256

# A text file with one token a line, the line's number being its id, for [preprocessing] and [postprocessing] that need
# one (wordpiece, text).
# vocabulary = "vocab.txt"

# Dimensions that stay open beside the batch, as INPUT:AXIS=NAME (axis 0 is the batch), where samples differ in size.
# `edgekit inspect model.onnx` shows what inputs are called.
# dynamic = ["tokens:1=time"]

# Use fewer samples (drawn with the seed, every class in proportion).
# limit_train = 10000
# limit_test = 2000
# calibration_size = 512

# seed = 0
# name = "my-model"

# What happens to raw input, where image_size, mean and std do not say it all: the bundle's own object; what is left out
# has its default. Kinds are image, log_mel, waveform and wordpiece. A longer one reads best as a table at the end of
# this file, under [preprocessing].
# preprocessing = { kind = "image", size = [640, 640], fit = "letterbox", pad = 114 }

# What becomes of the outputs, where they do not tell: classification, detection or text.
# postprocessing = { kind = "classification", output = "output", scores = "sigmoid", top = 3 }
"""
"""What `edgekit init` writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadConfig:
    """A workload as text; see `TEMPLATE` for what each entry means.

    Args:
        folder: where relative paths in `model`, `weights`, `train`, `test`, `selection` and `task` start.

    Raises:
        WorkloadError: an entry has the wrong type or value; the message names it.

    >>> WorkloadConfig(model="net.py:model", train="net.py:train", test="net.py:test").task
    'classification'
    """

    model: str
    train: str
    test: str
    weights: str | None = None
    trust_pickle: str | None = None
    selection: str | None = None
    selection_from: Literal["test", "train"] = "test"
    task: str = "classification"
    labels: tuple[str, ...] = ()
    image_size: tuple[int, int] | None = None
    shorter_side: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    preprocessing: Mapping[str, Any] | None = None
    postprocessing: Mapping[str, Any] | None = None
    vocabulary: str | None = None
    dynamic: tuple[str, ...] = ()
    limit_train: int | None = None
    limit_test: int | None = None
    calibration_size: int = 512
    seed: int = 0
    name: str | None = None
    folder: Path = Path()

    def __post_init__(self) -> None:
        for key, (accepts, rule) in _RULES.items():
            value = getattr(self, key)
            optional = key not in ("model", "train", "test")
            if not (value is None and optional) and not accepts(value):
                raise _wrong(key, value, rule)
        if self.task not in TASKS and ":" not in self.task:
            raise WorkloadError(
                f"task is {self.task!r}",
                where="task",
                rule=f"one of {', '.join(TASKS)}, or path/to/file.py:function",
                way_out=did_you_mean(self.task, TASKS, _SHOWN),
            )
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise _wrong("mean, std", (self.mean, self.std), "both or neither, with one number per channel")
        if self.std is not None and min(self.std) <= 0:
            raise _wrong("std", self.std, "positive numbers")
        for key, read in (("preprocessing", preprocessing_from), ("postprocessing", postprocessing_from)):
            try:
                _ = getattr(self, key) is None or read(getattr(self, key), key, complete=False)
            except DataError as error:
                raise WorkloadError(error.problem, where=error.where, rule=error.rule, way_out=error.way_out) from error
        also = [name for name in ("image_size", "shorter_side", "mean", "std") if getattr(self, name) is not None]
        if self.preprocessing is not None and also:
            raise _wrong(", ".join(also), "given beside preprocessing", "one or the other: a preprocessing says it all")

    @property
    def open_dimensions(self) -> dict[str, dict[int, str]]:
        """`dynamic` by input and axis; the batch of these inputs is open as well.

        >>> WorkloadConfig(model="m:f", train="m:f", test="m:f", dynamic=("x:1=time",)).open_dimensions
        {'x': {0: 'batch', 1: 'time'}}
        """
        found: dict[str, dict[int, str]] = {}
        for entry in self.dynamic:
            place, _, title = entry.partition("=")
            name, _, axis = place.rpartition(":")
            found.setdefault(name, {0: "batch"})[int(axis)] = title
        return found

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form, for other processes and other times: the folder is absolute."""
        return {**asdict(self), "folder": str(self.folder.resolve())}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        >>> config = WorkloadConfig(model="m:f", train="m:f", test="m:f", folder=Path("/p"), labels=("a", "b"))
        >>> WorkloadConfig.from_dict(config.to_dict()) == config
        True
        """
        values: dict[str, Any] = {key: tuple(each) if isinstance(each, list) else each for key, each in data.items()}
        return cls(**{**values, "folder": Path(data["folder"])})

    def resolved(self, reference: str) -> str:
        """`reference` with a relative path in it made absolute from `folder`; module references stay as they are.

        >>> WorkloadConfig(model="m:f", train="m:f", test="m:f", folder=Path("/p")).resolved("net.py:model")
        '/p/net.py:model'
        """
        return anchored(reference, self.folder)


def read_config(path: Path, **overrides: Any) -> WorkloadConfig:
    """Read an `edgekit.toml`.

    Args:
        path: the file; relative paths in it start from its folder.
        overrides: entries that replace those of the file, such as options of the command line (paths in them start from
            the current folder); None leaves the file's.

    Raises:
        WorkloadError: the file is missing or no TOML, a key is unknown or missing, a value has the wrong type.
    """
    try:
        with path.open("rb") as file:
            entries = tomllib.load(file)
    except OSError as error:
        raise WorkloadError(
            f"cannot read: {error.strerror}", where=str(path), rule="a TOML file", way_out="`edgekit init` writes one"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WorkloadError(
            f"no valid TOML: {error}", where=str(path), rule="https://toml.io", way_out="`edgekit init` shows the form"
        ) from error
    folder = path.resolve().parent
    try:
        config = config_from(entries, folder=folder)
    except WorkloadError as error:
        raise WorkloadError(
            error.problem, where=f"{path}: {error.where}", rule=error.rule, way_out=error.way_out
        ) from error
    here = WorkloadConfig(model="m:f", train="m:f", test="m:f", folder=Path.cwd())
    given = {key: value for key, value in overrides.items() if value is not None}
    for key in ("model", "weights", "trust_pickle", "train", "test", "selection", "task", "vocabulary"):
        if isinstance(given.get(key), str) and given[key] not in TASKS:
            given[key] = here.resolved(given[key])
    return replace(config, **given)


def config_from(entries: Mapping[str, Any], *, folder: Path) -> WorkloadConfig:
    """A config out of the entries of a parsed `edgekit.toml`.

    Raises:
        WorkloadError: a key is unknown or missing, or a value has the wrong type.

    >>> config_from({"model": "m:f", "train": "m:f", "test": "m:f", "sede": 1}, folder=Path())
    Traceback (most recent call last):
    edgekit.errors.WorkloadError: unknown key 'sede'
      where: sede
      rule: one of calibration_size, dynamic, image_size, labels, limit_test, limit_train, mean, model, name, \
postprocessing, preprocessing, seed, selection, selection_from, shorter_side, std, task, test, train, trust_pickle, \
vocabulary, weights
      way out: did you mean seed?
    """
    known = {field.name for field in fields(WorkloadConfig)} - {"folder"}
    for key in entries:
        if key not in known:
            raise WorkloadError(
                f"unknown key {key!r}",
                where=key,
                rule=f"one of {', '.join(sorted(known))}",
                way_out=did_you_mean(key, sorted(known), "remove it"),
            )
    for key in ("model", "train", "test"):
        if key not in entries:
            raise WorkloadError(
                f"the key {key!r} is missing",
                where=key,
                rule=f"{key} is needed",
                way_out=f'add a line such as {key} = "net.py:{"model" if key == "model" else key + "_data"}"',
            )
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in entries.items()}
    return WorkloadConfig(**cast("Any", values), folder=folder)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value) is not None


def _is_open_dimensions(value: Any) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(entry, str) and re.fullmatch(r"[^:=]+:\d+=[A-Za-z_]\w*", entry) for entry in value
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)


_REFERENCE = (_is_text, "a reference such as path/to/file.py:function")
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model": _REFERENCE,
    "weights": (_is_text, "a file of weights"),
    "trust_pickle": (_is_text, "the file of weights that may run code"),
    "train": _REFERENCE,
    "test": _REFERENCE,
    "selection": _REFERENCE,
    "task": (_is_text, "a task's name"),
    "name": (_is_name, "letters, digits, '.', '_' and '-', 64 at most"),
    "selection_from": (lambda value: value in ("test", "train"), '"test" or "train"'),
    "labels": (lambda value: isinstance(value, tuple) and all(isinstance(v, str) for v in value), "a list of names"),
    "image_size": (
        lambda value: isinstance(value, tuple) and len(value) == 2 and all(map(_is_count, value)),
        "[height, width] in pixels",
    ),
    "shorter_side": (_is_count, "a positive number of pixels"),
    "mean": (_is_numbers, "a list of numbers, one per channel"),
    "std": (_is_numbers, "a list of numbers, one per channel"),
    "preprocessing": (_is_table, "a table with `kind`"),
    "postprocessing": (_is_table, "a table with `kind`"),
    "vocabulary": (_is_text, "a file with one token a line"),
    "dynamic": (_is_open_dimensions, "a list of open dimensions, each as INPUT:AXIS=NAME, such as tokens:1=time"),
    "limit_train": (_is_count, "a positive number of samples"),
    "limit_test": (_is_count, "a positive number of samples"),
    "calibration_size": (_is_count, "a positive number of samples"),
    "seed": (
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
        "an integer from 0 up",
    ),
}


_SHOWN = "`edgekit init` writes a file that shows each entry"


def _wrong(key: str, value: Any, rule: str) -> WorkloadError:
    return WorkloadError(f"{key} is {value!r}", where=key, rule=rule, way_out=_SHOWN)
