"""Data sets of torchvision by name: `torchvision:CIFAR10?root=data`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import Dataset

from edgekit.data import Image, split_options
from edgekit.data.reference import asking, yes
from edgekit.data.table import no_preprocessing
from edgekit.errors import DataError, did_you_mean
from edgekit.workload.models.optional import optional

OPTIONS = ("root", "split", "download")


class Pictures(Dataset[Any]):
    """Samples of a data set that gives Pillow images, prepared as the model takes them; items are (tensor, target)."""

    def __init__(self, samples: Any, prepare: Image) -> None:
        self.samples, self.prepare = samples, prepare
        for name in ("classes", "targets", "labels"):
            if hasattr(samples, name):
                setattr(self, name, getattr(samples, name))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        picture, target = self.samples[index]
        return torch.from_numpy(self.prepare(np.asarray(picture.convert("RGB")))[0]), target


def from_torchvision(reference: str, *, image: Image | None) -> Dataset[Any]:
    """The data set of `torchvision.datasets` that a reference names.

    `root` is the folder; `split` is what the data set calls its parts (`train` and `test` where it has an argument
    `train`); `download=yes` lets torchvision fetch what is missing, else nothing is fetched.

    Raises:
        DataError: there is no such data set, it is not in the folder, or nothing says how images become inputs.
        WorkloadError: torchvision cannot be imported, or an option is unknown.
    """
    target, options = split_options(reference, OPTIONS)
    name = target.partition(":")[2]
    library = optional("torchvision", where=reference, extra="torchvision").datasets
    known = [each for each in library.__all__ if isinstance(getattr(library, each, None), type)]
    if name not in known:
        raise DataError(
            f"torchvision has no data set {name!r}",
            where=reference,
            rule="a class of torchvision.datasets, as torchvision:CIFAR10?root=data&split=test",
            way_out=did_you_mean(name, known, "see https://docs.pytorch.org/vision/stable/datasets.html"),
        )
    if not options.get("root"):
        raise DataError(
            "no root", where=reference, rule="the folder of the data", way_out=f"{target}?root=data&split=train"
        )
    if image is None:
        raise no_preprocessing(reference)
    made = _made(getattr(library, name), options, reference)
    return Pictures(made, image)


def _made(kind: Any, options: dict[str, str], reference: str) -> Any:
    takes = inspect.signature(kind).parameters
    values: dict[str, Any] = {"root": str(Path(options["root"]).expanduser())}
    split = options.get("split")
    if "split" in takes and split is not None:
        values["split"] = split
    elif "train" in takes and split in (None, "train", "test"):
        values["train"] = split != "test"
    elif split is not None:
        rule = "split=train or split=test" if "train" in takes else "no split: the data set has none"
        raise DataError(f"split is {split!r}", where=reference, rule=rule)
    if yes(options, "download", reference) and "download" in takes:
        values["download"] = True
    try:
        return cast("Any", kind)(**values)
    except (RuntimeError, OSError, ValueError) as error:
        ask = asking(reference) if "download" in takes else "put the files there"
        raise DataError(
            f"torchvision cannot open it: {(str(error).splitlines() or [''])[0]}",
            where=reference,
            rule="a data set that is in the folder; nothing is downloaded unless you ask",
            way_out=ask,
        ) from error
