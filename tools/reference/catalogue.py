"""Every reference network in one list, for scripts that go through all of them.

    from reference.catalogue import REFERENCES  # in a script in tools/

    unet = REFERENCES["unet"]
    command = ["edgekit", "compress", unet.model, *unet.workload, "--max-drop", "1"]

Paths start from the root of a checkout. Beside the user project in shared/ all are trained by a command in this folder
(`Reference.training`); their weights stay out of git.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HERE = Path(__file__).resolve().parent
USER_PROJECT = "../shared/user-project/project.py"
IMAGES, SEGMENTS = "tools/reference/images.py", "tools/reference/segments.py"
KEYWORDS, SOURCES = "tools/reference/keywords.py", "tools/reference/sources.py"

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PACKAGES = ("asyncio", "ctypes", "email", "http", "importlib", "json", "multiprocessing", "unittest", "urllib", "xml")

Family = Literal["convolutional", "attention", "recurrent"]


def weights_folder() -> Path:
    """Where weights lie; asked for at each use, since the environment may change within a process."""
    return Path(os.environ.get("EDGEKIT_REFERENCE_WEIGHTS", HERE / "weights"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A trained network and its data, as references that the command line takes.

    Args:
        name: what it is called; weights and files bear this name.
        model: `file.py:function` that returns the trained module; it raises FileNotFoundError if weights are missing.
        train: `file.py:function` that returns the training data.
        test: `file.py:function` that returns data that training never saw.
        task: the task's name.
        family: what most of its work is.
        labels: names of the classes, or none where positions and not samples have classes.
        options: further words of `edgekit compress` and of tools/benchmark_quantizers.py.
    """

    name: str
    model: str
    train: str
    test: str
    family: Family
    task: str = "classification"
    labels: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def workload(self) -> tuple[str, ...]:
        """Its data and task as words that `edgekit compress` takes behind the model.

        >>> REFERENCES["lstm"].workload[:2]
        ('--train', 'tools/reference/keywords.py:train_data')
        """
        labels = ("--labels", ",".join(self.labels)) if self.labels else ()
        task = ("--task", self.task) if self.task != "classification" else ()
        return ("--train", self.train, "--test", self.test, *task, *labels, *self.options)

    @property
    def training(self) -> tuple[str, ...]:
        """The words after `python` that train it; none for the user project, which comes with its weights."""
        project = self.model.rpartition(":")[0]
        return () if project == USER_PROJECT else (project, "train", self.name)

    @property
    def is_trained(self) -> bool:
        """Whether its weights are there."""
        return not self.training or (weights_folder() / f"{self.name}.pt").is_file()


def _of(name: str, project: str, family: Family, **more: tuple[str, ...]) -> Reference:
    model = f"{project}:{'model' if project == USER_PROJECT else name}"
    return Reference(
        name=name, model=model, train=f"{project}:train_data", test=f"{project}:test_data", family=family, **more
    )


_PHOTOS = ("--image-size", "32", "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")

REFERENCES = {
    reference.name: reference
    for reference in (
        _of("resnet20", USER_PROJECT, "convolutional", options=_PHOTOS),
        _of("resnet56", IMAGES, "convolutional", labels=CIFAR10, options=_PHOTOS),
        _of("mobilenet_v2", IMAGES, "convolutional", labels=CIFAR10, options=_PHOTOS),
        _of("mobilenet_v3", IMAGES, "convolutional", labels=CIFAR10, options=_PHOTOS),
        _of("shufflenet", IMAGES, "convolutional", labels=CIFAR10, options=_PHOTOS),
        _of("convnext", IMAGES, "convolutional", labels=CIFAR10, options=_PHOTOS),
        _of("csp_silu", IMAGES, "convolutional", labels=CIFAR10, options=_PHOTOS),
        _of("vit_tiny", IMAGES, "attention", labels=CIFAR10, options=_PHOTOS),
        _of("unet", SEGMENTS, "convolutional", options=_PHOTOS),
        _of("text_encoder", SOURCES, "attention", labels=PACKAGES),
        _of("lstm", KEYWORDS, "recurrent", labels=DIGITS),
        _of("gru", KEYWORDS, "recurrent", labels=DIGITS),
        _of("transformer", KEYWORDS, "attention", labels=DIGITS),
    )
}
"""By name."""
