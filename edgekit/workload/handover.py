"""From a training loop to a workload, in one line: Lightning and Accelerate.

    report = compress(from_lightning(module, datamodule), Budget(max_drop=0.5), out="run")
    Trainer(callbacks=[BundleCallback(out="net.edgekit", max_drop=0.5, time="10m")]).fit(module, datamodule)

Both take the training code as it is; nothing here imports Lightning or Accelerate before it is called.
"""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from edgekit.device.processing import Preprocessing
from edgekit.errors import WorkloadError
from edgekit.tasks import Task, classification
from edgekit.workload.sources import as_dataset
from edgekit.workload.splits import make_splits
from edgekit.workload.workload import Workload, try_out, with_reference_targets


def from_lightning(
    module: nn.Module,
    datamodule: Any = None,
    *,
    train: Any = None,
    test: Any = None,
    selection: Any = None,
    network: str | None = None,
    task: Task | None = None,
    labels: Sequence[str] = (),
    preprocessing: Preprocessing | None = None,
    name: str | None = None,
    seed: int = 0,
) -> Workload:
    """A trained LightningModule and its data as a workload.

    Args:
        module: the trained module; it is copied. What is compressed is its `forward`.
        datamodule: gives the loaders of training, validation and test; without test data, validation is test.
        train: a loader or data set in the place of the datamodule's.
        test: likewise.
        selection: likewise: the validation data.
        network: the attribute that holds the network, such as "model", to compress that in the place of the module.
        task: what it is for; classification unless given.
        labels: names of the classes.
        preprocessing: how raw input becomes the network's.
        name: the class's name unless given.
        seed: of the splits.

    Raises:
        WorkloadError: there are no training or test data, or the module does not fit them.
        DataError: the data are too few.
    """
    if datamodule is not None:
        for stage in ("fit", "test"):
            datamodule.prepare_data()
            datamodule.setup(stage)
        train = _loader(datamodule, "train_dataloader") if train is None else train
        selection = _loader(datamodule, "val_dataloader") if selection is None else selection
        test = _loader(datamodule, "test_dataloader") if test is None else test
    given = module if network is None else getattr(module, network, None)
    if not isinstance(given, nn.Module):
        there = [each for each, _ in module.named_children()]
        raise WorkloadError(
            f"the module has no network {network!r}",
            where="from_lightning",
            rule=f"one of {', '.join(there)}",
            way_out="leave it out to take the module's own forward",
        )
    bare = _bare(given)
    return _workload(
        bare,
        train,
        test,
        selection,
        where="from_lightning",
        task=task,
        labels=labels,
        preprocessing=preprocessing,
        name=name or type(given).__name__,
        seed=seed,
    )


def from_accelerate(
    accelerator: Any,
    model: nn.Module,
    *,
    train: Any,
    test: Any,
    selection: Any = None,
    task: Task | None = None,
    labels: Sequence[str] = (),
    preprocessing: Preprocessing | None = None,
    name: str | None = None,
    seed: int = 0,
) -> Workload:
    """A model that `accelerator.prepare` has wrapped, and its loaders, as a workload.

    Args:
        accelerator: takes the model out of what it was wrapped in.
        model: the trained model, prepared or not; it is copied.
        train: a loader or data set, prepared or not.
        test: data that the model has never seen.
        selection: data that decisions may look at; else half of test.
        task: what it is for; classification unless given.
        labels: names of the classes.
        preprocessing: how raw input becomes the model's.
        name: the class's name unless given.
        seed: of the splits.

    Raises:
        WorkloadError: the model does not fit the data.
        DataError: the data are too few.
    """
    bare = copy.deepcopy(accelerator.unwrap_model(model, keep_fp32_wrapper=False))
    return _workload(
        bare,
        train,
        test,
        selection,
        where="from_accelerate",
        task=task,
        labels=labels,
        preprocessing=preprocessing,
        name=name or type(bare).__name__,
        seed=seed,
    )


def at_train_end(finish: Callable[[nn.Module, Any], None], *, library: str | None = None) -> Any:
    """A callback for a Trainer that calls `finish(module, datamodule)` once, in the main process, when training ends.

    `edgekit.compress.BundleCallback` is this with `compress` in `finish`.

    Args:
        finish: gets the module and the datamodule, or what has the Trainer's loaders as one has them.
        library: `lightning` or `pytorch_lightning`, whose Trainer is used; the one that is imported already unless
            given.

    Raises:
        WorkloadError: neither is installed.
    """

    class AtTheEnd(_callback_class(library)):  # type: ignore[misc]  # of whichever library is used
        def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:
            if trainer.is_global_zero:
                finish(pl_module, trainer.datamodule or _Loaders(trainer))

    return AtTheEnd()


class _Loaders:
    """The loaders that a Trainer was given, as a datamodule has them."""

    def __init__(self, trainer: Any) -> None:
        self.train_dataloader = lambda: trainer.train_dataloader
        self.val_dataloader = lambda: trainer.val_dataloaders

    def prepare_data(self) -> None:
        """Nothing is left to do."""

    def setup(self, stage: str) -> None:
        """Nothing is left to do."""


def _callback_class(library: str | None) -> Any:
    names: Sequence[str] = ("lightning.pytorch", "pytorch_lightning")
    if library is not None:
        names = [name for name in names if name.partition(".")[0] == library]
    for name in sorted(names, key=lambda each: each not in sys.modules):
        try:
            return importlib.import_module(name).Callback
        except ModuleNotFoundError:
            continue
    raise WorkloadError(
        "Lightning is not installed" if library is None else f"{library} is not installed",
        where="at_train_end",
        rule="lightning or pytorch_lightning",
        way_out="pip install 'edgekit[lightning]'",
    )


def _bare(module: nn.Module) -> nn.Module:
    """A copy of a module without the Trainer that it knows, which holds loaders and loggers."""
    trainer = getattr(module, "_trainer", None)
    if trainer is None:
        return copy.deepcopy(module)
    module._trainer = None  # type: ignore[assignment]  # noqa: SLF001 - Lightning has no other way to let go of it
    try:
        return copy.deepcopy(module)
    finally:
        module._trainer = trainer  # noqa: SLF001


def _loader(datamodule: Any, method: str) -> Any:
    """The loader that the datamodule gives, or None where it has none; of several the only one."""
    from_module = getattr(datamodule, method, None)
    try:
        found = None if from_module is None else from_module()
    except Exception as error:
        if type(error).__name__ in ("MisconfigurationException", "NotImplementedError"):
            return None  # Lightning's own methods raise where the user wrote none.
        raise
    if isinstance(found, list | tuple) and len(found) == 1:
        return found[0]
    return found or None


def _workload(
    bare: nn.Module,
    train: Any,
    test: Any,
    selection: Any,
    *,
    where: str,
    task: Task | None,
    labels: Sequence[str],
    preprocessing: Preprocessing | None,
    name: str,
    seed: int,
) -> Workload:
    if test is None:
        test, selection = selection, None
    if train is None or test is None:
        raise WorkloadError(
            f"no {'training' if train is None else 'test'} data",
            where=where,
            rule="data that the model was trained on, and data that it has never seen",
            way_out="give a train_dataloader and a test_dataloader (or val_dataloader), or train= and test=",
        )
    parts = {"train": train, "test": test, "selection": selection}
    data = {key: as_dataset(each, where=f"{where}, {key}") for key, each in parts.items() if each is not None}
    splits = make_splits(
        data["train"], data["test"], data.get("selection"), seed=seed, sources=dict.fromkeys(data, where)
    )
    names = labels or getattr(data["train"], "classes", ())
    workload = Workload(
        name=name,
        model_reference=f"{where}: {type(bare).__module__}.{type(bare).__qualname__}",
        factory=partial(copy.deepcopy, bare.cpu()),
        task=task or classification(),
        splits=splits,
        labels=tuple(map(str, names)),
        preprocessing=preprocessing,
    )
    try_out(workload)
    return with_reference_targets(workload) if workload.task.target_is_reference else workload
