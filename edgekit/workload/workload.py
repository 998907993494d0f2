"""The user's model, data and task, taken together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from edgekit.data import Text, as_image, as_text, preprocessing_of, relabelled
from edgekit.data.labels import classes_of
from edgekit.device.processing import (
    ImagePreprocessing,
    Postprocessing,
    Preprocessing,
    postprocessing_from,
    vocabulary_file,
)
from edgekit.errors import DataError, WorkloadError
from edgekit.tasks import Task, outputs_of
from edgekit.workload.batch import Batch
from edgekit.workload.config import TASKS, WorkloadConfig
from edgekit.workload.loading import loader
from edgekit.workload.models import ModelSource, is_library, load_model
from edgekit.workload.references import load_callable
from edgekit.workload.sources import load_data
from edgekit.workload.splits import Splits, make_splits


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is compressed, and what it is judged by.

    Args:
        name: of the model, for folders and reports.
        model_reference: where the factory came from.
        factory: returns the trained `nn.Module`.
        task: loss and metric.
        splits: the data.
        labels: class names in the order of the outputs, or ().
        preprocessing: how raw input becomes the inputs, where that is known.
        postprocessing: what becomes of the outputs, where that is known; bundles else recognise a classification.
        processing_files: what these name, by the path in a bundle: the vocabulary.
        dynamic: for inputs whose samples differ in size, the names of their open dimensions by axis, batch included.
    """

    name: str
    model_reference: str
    factory: Callable[[], nn.Module]
    task: Task
    splits: Splits
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    postprocessing: Postprocessing | None = None
    processing_files: Mapping[str, Path | bytes] = field(default_factory=dict)
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    @property
    def image(self) -> ImagePreprocessing | None:
        """The preprocessing of images, for those who look at them; None for other models."""
        return self.preprocessing if isinstance(self.preprocessing, ImagePreprocessing) else None

    def model(self) -> nn.Module:
        """A fresh trained model: in eval mode, on the CPU, in float32, its weights finite.

        Raises:
            WorkloadError: the factory raises, returns no `nn.Module`, or a weight is NaN or infinite.
        """
        made = self.factory()
        if not isinstance(made, nn.Module):
            raise WorkloadError(
                f"the factory returned a {type(made).__name__}",
                where=self.model_reference,
                rule="a torch.nn.Module with its trained weights",
                way_out="return the module itself, not its state dict or class",
            )
        for name, tensor in (*made.named_parameters(), *made.named_buffers()):
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                bad = int((~torch.isfinite(tensor)).sum())
                raise WorkloadError(
                    f"{bad} of {tensor.numel()} values of {name} are NaN or infinite",
                    where=self.model_reference,
                    rule="trained weights are finite",
                    way_out="load a checkpoint from before the training diverged",
                )
        return made.eval().float().cpu()

    def example(self, n: int = 2) -> Batch:
        """The first `n` samples of the calibration split as one batch."""
        return next(iter(loader(self.splits.calibration, n, model=self.model(), seed=self.splits.seed)))


def load_workload(config: WorkloadConfig, *, tried: bool = True) -> Workload:
    """Load what `config` names: the model's factory, the data, the task.

    The model is made once and tried on a batch of each, so that what does not fit together is found here; not so with
    `tried=False`, for a model that gets another head first.

    Raises:
        WorkloadError: a reference is wrong or its function raises, the model is none or its weights are not finite.
        DataError: the data are missing, too few, or do not fit the model or the task.
    """
    source = source_of(config)
    preprocessing = _preprocessing(config, source)
    postprocessing = (
        None if config.postprocessing is None else postprocessing_from(config.postprocessing, complete=False)
    )
    labels, (train, test, selection) = parts_of(config, source)
    sources = {"train": config.train, "test": config.test}
    if config.selection is not None:
        sources["selection"] = config.selection
    splits = make_splits(
        train,
        test,
        selection,
        seed=config.seed,
        calibration_size=config.calibration_size,
        selection_from=config.selection_from,
        limit_train=config.limit_train,
        limit_test=config.limit_test,
        sources=sources,
    )
    workload = Workload(
        name=config.name or _name(config.model),
        model_reference=config.model,
        factory=source.factory,
        task=_task(config),
        splits=splits,
        labels=labels,
        preprocessing=preprocessing,
        postprocessing=postprocessing,
        processing_files=_processing_files(config, source, preprocessing, postprocessing),
        dynamic=config.open_dimensions,
    )
    if not tried:
        return workload
    try_out(workload)
    return with_reference_targets(workload) if workload.task.target_is_reference else workload


def source_of(config: WorkloadConfig) -> ModelSource:
    """The model that `config` names, with what its library knows of it.

    Raises:
        WorkloadError: the function or the name does not exist, or a library is missing.
    """
    weights, trusted = (
        None if given is None else Path(config.resolved(given)) for given in (config.weights, config.trust_pickle)
    )
    return load_model(config.resolved(config.model), weights=weights, trusted=trusted)


def parts_of(config: WorkloadConfig, source: ModelSource) -> tuple[tuple[str, ...], tuple[Any, Any, Any]]:
    """Names of the classes, and the training, test and selection data (or None) with their classes numbered so.

    Names of the user's or of the model's own count where the data's are among them: a folder of images numbers its
    classes by the alphabet, a model as it was trained. Else those of the training data count, and all data have to
    follow.

    Raises:
        WorkloadError: a function is missing or raises.
        DataError: data are missing or not what they seem, or have classes of their own.
    """
    image, text = as_image(_preprocessing(config, source)), _text(config, source)
    places = {"train data": config.train, "test data": config.test, "selection data": config.selection}
    parts = {
        place: load_data(config.resolved(reference), image=image, text=text)
        for place, reference in places.items()
        if reference is not None
    }
    own = classes_of(parts["train data"])
    named = (names for names in (config.labels, source.labels) if names and set(own) <= set(names))
    known = next(named, own)
    numbered = {place: relabelled(part, known, place) for place, part in parts.items()}
    labels = config.labels or (tuple(known) if own else source.labels)
    return labels, (numbered["train data"], numbered["test data"], numbered.get("selection data"))


def try_out(workload: Workload) -> None:
    """Run the model on one batch of training and of test data, and hold the answers against the task.

    Raises:
        WorkloadError: the model raises on a batch.
        DataError: targets are missing, out of range or of another shape; outputs are not finite; labels do not fit.
    """
    model, task = workload.model(), workload.task
    for name, part in (("training", workload.splits.train), ("test", workload.splits.test)):
        batch = next(iter(loader(part, 8, model=model, seed=workload.splits.seed)))
        outputs = _answers(workload, model, batch, f"{name} data")
        if task.target_is_reference:
            task.check(outputs, outputs[0])
        elif isinstance(batch.target, Tensor):
            task.check(outputs, batch.target.cpu().numpy())
        elif task.name != "custom" and (name == "test" or batch.target is not None):
            found = "carry no target" if batch.target is None else f"have a {type(batch.target).__name__} for a target"
            raise WorkloadError(
                f"the data {found}",
                where=f"{name} data",
                rule=f"the task {task.name} needs one target per sample",
                way_out='return (x, y) from the dataset, or set task = "imitation" to take the original as reference',
            )
    if workload.labels and outputs[0].ndim == 2 and outputs[0].shape[1] != len(workload.labels):
        raise DataError(
            f"{len(workload.labels)} labels: {', '.join(workload.labels[:8])}",
            where="labels",
            rule=f"one for each of the model's {outputs[0].shape[1]} outputs",
            way_out="name them with --labels (or labels in edgekit.toml), in the order of the outputs",
        )


def _answers(workload: Workload, model: nn.Module, batch: Batch, where: str) -> tuple[np.ndarray, ...]:
    try:
        with torch.no_grad():
            outputs = outputs_of(batch.call(model))
    except WorkloadError:
        raise
    except Exception as error:
        shapes = ", ".join(f"{leaf.dtype} {list(leaf.shape)}".removeprefix("torch.") for leaf in batch.leaves())
        raise WorkloadError(
            f"the model raised on a batch of the {where}: {type(error).__name__}: {error}",
            where=workload.model_reference,
            rule=f"the model takes what the data give: {shapes}",
            way_out="check shapes and dtypes; edgekit stacks the items of the dataset to a batch and passes it on",
        ) from error
    return tuple(output.float().cpu().numpy() for output in outputs)


def with_reference_targets(workload: Workload) -> Workload:
    """This workload with what its own model says as the targets of calibration, selection and test.

    For data without labels. Training data stay without targets: augmentation changes what the model would say.
    """
    model = workload.model()
    splits = workload.splits

    def answered(part: Dataset[Any]) -> Dataset[Any]:
        return Answered(part, model, seed=splits.seed)

    return replace(
        workload,
        splits=replace(
            splits,
            calibration=answered(splits.calibration),
            selection=answered(splits.selection),
            test=answered(splits.test),
        ),
    )


class Answered(Dataset[Any]):
    """Inputs of a data set with what a model says about them; items are (inputs, the model's first output).

    >>> items = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])]
    >>> Answered(items, nn.Identity())[1][1]
    tensor([3., 4.])
    """

    def __init__(self, dataset: Any, model: nn.Module, *, seed: int = 0) -> None:
        self.dataset = dataset
        self.seed = seed
        with torch.no_grad():
            self.answers = torch.cat(
                [outputs_of(batch.call(model))[0].float() for batch in loader(dataset, 64, model=model, seed=seed)]
            )
        self._has_target = next(iter(loader(dataset, 1, model=model, seed=seed))).target is not None

    def __len__(self) -> int:
        return len(self.answers)

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index]
        return (item[0] if self._has_target else item, self.answers[index])


def digest_of(model: nn.Module) -> str:
    """The SHA-256 over the names, dtypes, shapes and bytes of a model's parameters and buffers.

    >>> digest_of(nn.Identity()) == digest_of(nn.ReLU())
    True
    """
    import hashlib

    digest = hashlib.sha256()
    for name, tensor in _tensors(model):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {list(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _task(config: WorkloadConfig) -> Task:
    if config.task in TASKS:
        return TASKS[config.task]()
    made = load_callable(config.resolved(config.task))()
    if not isinstance(made, Task):
        raise WorkloadError(
            f"the function returned a {type(made).__name__}",
            where=f"task = {config.task}",
            rule="an edgekit.tasks.Task",
            way_out="return edgekit.tasks.custom(loss=..., per_sample=...)",
        )
    return made


def _preprocessing(config: WorkloadConfig, source: ModelSource) -> Preprocessing | None:
    return preprocessing_of(
        source.preprocessing,
        given=config.preprocessing,
        size=config.image_size,
        shorter_side=config.shorter_side,
        mean=config.mean,
        std=config.std,
    )


def _text(config: WorkloadConfig, source: ModelSource) -> Text | None:
    """What reads texts: the user's own preprocessing, or the tokenizer of the model's library."""
    vocabulary = None if config.vocabulary is None else Path(config.resolved(config.vocabulary))
    own = None if config.preprocessing is None else _preprocessing(config, source)
    return source.text if own is None else as_text(own, vocabulary)


def _processing_files(
    config: WorkloadConfig, source: ModelSource, *processing: Preprocessing | Postprocessing | None
) -> dict[str, Path | bytes]:
    listed = vocabulary_file(*processing)
    given = None if config.vocabulary is None else Path(config.resolved(config.vocabulary))
    found = given or source.vocabulary
    if (listed is None and given is not None) or (listed is not None and found is None):
        raise WorkloadError(
            "no vocabulary" if given is None else f"vocabulary is {config.vocabulary!r}",
            where="vocabulary",
            rule="a file with one token a line, for the kinds wordpiece and text, and only for these",
            way_out="name it with --vocabulary (or vocabulary in edgekit.toml)" if given is None else "leave it out",
        )
    return {} if listed is None or found is None else {listed: found}


def _name(reference: str) -> str:
    if is_library(reference):
        text = Path(reference.partition("?")[0].partition(":")[2]).name
    else:
        target, _, function = reference.rpartition(":")
        text = f"{Path(target).stem}-{function}"
    # What a bundle takes for a name.
    return re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("_-")[:64] or "model"
