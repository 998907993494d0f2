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
from typing import Any, Literal

HERE = Path(__file__).resolve().parent
USER_PROJECT = "../shared/user-project/project.py"
IMAGES, SEGMENTS = "tools/reference/images.py", "tools/reference/segments.py"
KEYWORDS, SOURCES = "tools/reference/keywords.py", "tools/reference/sources.py"
FORECASTS, WRITING = "tools/reference/forecasts.py", "tools/reference/writing.py"
QUESTIONS, DETECTION = "tools/reference/questions.py", "tools/reference/detection.py"
GENERATION, CONTROL = "tools/reference/generation.py", "tools/reference/control.py"

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ANSWERS = (*map(str, range(19)), "yes", "no")
PACKAGES = ("asyncio", "ctypes", "email", "http", "importlib", "json", "multiprocessing", "unittest", "urllib", "xml")

Family = Literal["convolutional", "attention", "recurrent", "dense"]


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
        kind: what people use such networks for.
        max_drop: how much of its metric compression may cost in tools/zoo_table.py, in the metric's unit.
        recovery: further words of `edgekit compress` about training.
        figures: `file.py:function` that says more of any file than the metric does.
        compared: whether tools/quantizer_table.py holds its int8 file against those of other tools.
    """

    name: str
    model: str
    train: str
    test: str
    family: Family
    task: str = "classification"
    labels: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    kind: str = "image classification"
    max_drop: float = 1.0
    recovery: tuple[str, ...] = ()
    figures: str = ""
    compared: bool = True

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
        return () if project == USER_PROJECT else (project, "train", self.weights)

    @property
    def weights(self) -> str:
        """The name under which its weights lie; the decoder with a cache has those of the one without."""
        return "decoder" if self.name == "step" else self.name

    @property
    def is_trained(self) -> bool:
        """Whether its weights are there."""
        return not self.training or (weights_folder() / f"{self.weights}.pt").is_file()


def _of(name: str, project: str, family: Family, *, data: str = "", **more: Any) -> Reference:
    model = f"{project}:{'model' if project == USER_PROJECT else name}"
    train, test = f"{project}:{data}train_data", f"{project}:{data}test_data"
    return Reference(name=name, model=model, train=train, test=test, family=family, **more)


def _other(name: str, project: str, family: Family, kind: str, max_drop: float, **more: Any) -> Reference:
    return _of(name, project, family, kind=kind, max_drop=max_drop, recovery=_ADAMW, compared=False, **more)


_PHOTOS = ("--image-size", "32", "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")

_ADAMW = ("--optimizer", "adamw", "--learning-rate", "0.001")
_SERIES = {"task": f"{FORECASTS}:task", "options": ("--dynamic", "series:1=time")}
_SPEECH, _TEXT = "keyword spotting", "text classification"

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
        _of("plain56", IMAGES, "convolutional", labels=CIFAR10, options=_PHOTOS, compared=False),
        _of("shortcut20", IMAGES, "convolutional", labels=CIFAR10, options=_PHOTOS, compared=False),
        _of("plain20", IMAGES, "convolutional", labels=CIFAR10, options=_PHOTOS, compared=False),
        _of("resnet18", IMAGES, "convolutional", labels=CIFAR10, options=_PHOTOS, compared=False),
        _of("plain18", IMAGES, "convolutional", labels=CIFAR10, options=_PHOTOS, compared=False),
        _of("unet", SEGMENTS, "convolutional", options=_PHOTOS, kind="segmentation", figures=f"{SEGMENTS}:figures"),
        _of("text_encoder", SOURCES, "attention", labels=PACKAGES, kind=_TEXT, recovery=_ADAMW),
        _of("lstm", KEYWORDS, "recurrent", labels=DIGITS, kind=_SPEECH, recovery=_ADAMW),
        _of("gru", KEYWORDS, "recurrent", labels=DIGITS, kind=_SPEECH, recovery=_ADAMW),
        _of("transformer", KEYWORDS, "attention", labels=DIGITS, kind=_SPEECH, recovery=_ADAMW),
        _other("forecast_gru", FORECASTS, "recurrent", "forecasting", 0.01, **_SERIES),
        _other("forecast_tcn", FORECASTS, "convolutional", "forecasting", 0.01, **_SERIES),
        _other(
            "decoder",
            WRITING,
            "attention",
            "language model",
            0.05,
            task=f"{WRITING}:task",
            figures=f"{WRITING}:figures",
        ),
        _other("step", WRITING, "attention", "language model", 0.05, data="step_", task=f"{WRITING}:task"),
        _other("questioner", QUESTIONS, "attention", "questions about pictures", 1.0, labels=ANSWERS),
        _other(
            "detector",
            DETECTION,
            "convolutional",
            "detection",
            1.0,
            task=f"{DETECTION}:task",
            figures=f"{DETECTION}:figures",
        ),
        _other(
            "autoencoder",
            GENERATION,
            "convolutional",
            "anomaly detection",
            0.5,
            data="ordinary_",
            task="reconstruction",
            figures=f"{GENERATION}:autoencoder_figures",
        ),
        _other("vae", GENERATION, "convolutional", "VAE", 0.5, data="images_", task="reconstruction"),
        _other(
            "gan_generator",
            GENERATION,
            "convolutional",
            "GAN",
            1.0,
            data="latent_",
            task="imitation",
            figures=f"{GENERATION}:generator_figures",
        ),
        _other(
            "denoiser",
            GENERATION,
            "convolutional",
            "diffusion",
            0.005,
            data="noisy_",
            task=f"{GENERATION}:denoising",
            figures=f"{GENERATION}:denoiser_figures",
        ),
        _other(
            "cartpole",
            CONTROL,
            "dense",
            "policy",
            2.0,
            task=f"{CONTROL}:task",
            figures=f"{CONTROL}:figures",
        ),
    )
}
"""By name."""
COMPARED = {name: reference for name, reference in REFERENCES.items() if reference.compared}
"""Those whose int8 files are held against other tools' files."""
