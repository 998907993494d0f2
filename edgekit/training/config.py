"""How a training goes, and what came of it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import nn

from edgekit.errors import TrainingError, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """Settings of `fit`.

    Args:
        epochs: passes over the training data; need not be whole. With a deadline, the most there may be.
        learning_rate: the peak of the schedule.
        weight_decay: on weights of two or more dimensions; biases and normalization layers get none.
        momentum: of SGD (Nesterov); AdamW's first beta is 0.9.
        optimizer: `sgd` or `adamw`.
        batch_size: samples in one step, over all ranks together.
        schedule: `one-cycle` (L. Smith and N. Topin, *Super-Convergence*, 2018: a warm-up over the first 15 %, then a
            cosine down to almost nothing) or `cosine` (I. Loshchilov and F. Hutter, *SGDR*, 2017, without restarts).
        precision: `fp32`, `bf16` (autocast) or `auto`: whichever a short measurement finds faster.
        channels_last: True, False or `auto`, measured likewise.
        threads: of PyTorch on the CPU. `auto` is all that it has, or fewer where and as long as other work makes them
            wait for each other.
        seed: of order, augmentations and dropout.
        workers: processes that load data ahead, or `auto`, by measurement. The result does not depend on it.
        clip_norm: largest norm of the gradient, or None.
        keep: return the `last` weights, or the `best` by `evaluate`.
        evaluate_every: epochs between evaluations; the last epoch has one in any case.
        patience: end early after so many evaluations in a row without a better one than before; None never does.
        checkpoint_every_s: seconds between checkpoints inside an epoch.

    Raises:
        TrainingError: a value is out of range; the message names it.

    >>> FitConfig(epochs=2).schedule
    'one-cycle'
    """

    epochs: float
    learning_rate: float = 0.05
    weight_decay: float = 5e-4
    momentum: float = 0.9
    optimizer: Literal["sgd", "adamw"] = "sgd"
    batch_size: int = 128
    schedule: Literal["one-cycle", "cosine"] = "one-cycle"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    channels_last: bool | Literal["auto"] = "auto"
    threads: int | Literal["auto"] = "auto"
    seed: int = 0
    workers: int | Literal["auto"] = "auto"
    clip_norm: float | None = None
    keep: Literal["last", "best"] = "last"
    evaluate_every: int = 1
    patience: int | None = None
    checkpoint_every_s: float = 30.0

    def __post_init__(self) -> None:
        positive = ("epochs", "learning_rate", "batch_size", "evaluate_every", "checkpoint_every_s")
        for name in (*positive, "weight_decay", "momentum", "seed"):
            value = getattr(self, name)
            if not (math.isfinite(value) and (value > 0 if name in positive else value >= 0)):
                raise _wrong(name, value, "a positive number" if name in positive else "a number from 0 up")
        if self.momentum >= 1:
            raise _wrong("momentum", self.momentum, "below 1")
        choices: tuple[tuple[str, tuple[Any, ...]], ...] = (
            ("optimizer", ("sgd", "adamw")),
            ("schedule", ("one-cycle", "cosine")),
            ("precision", ("auto", "fp32", "bf16")),
            ("channels_last", ("auto", True, False)),
            ("keep", ("last", "best")),
        )
        for name, values in choices:
            if getattr(self, name) not in values:
                near = did_you_mean(getattr(self, name), values)
                raise _wrong(name, getattr(self, name), f"one of {', '.join(map(str, values))}", near)
        if self.threads != "auto" and self.threads < 1:
            raise _wrong("threads", self.threads, '"auto" or a number from 1 up')
        if self.workers != "auto" and self.workers < 0:
            raise _wrong("workers", self.workers, '"auto" or a number from 0 up')
        if self.patience is not None and self.patience < 1:
            raise _wrong("patience", self.patience, "a number from 1 up or None")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise _wrong("clip_norm", self.clip_norm, "a positive number or None")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How a training computes: as measured, or as asked for.

    `threads` are PyTorch's on the CPU; None leaves them as they are.
    """

    precision: str
    channels_last: bool
    workers: int
    step_s: float
    threads: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """What is known at the end of an epoch (the last one may be a part of one).

    `metric` is what `evaluate` gave, or None.
    """

    epoch: int
    step: int
    loss: float
    learning_rate: float
    seconds: float
    metric: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """A trained model and how it got there.

    Args:
        model: a new module, in eval mode, float32, on the CPU.
        history: one entry an epoch.
        seconds: time of the training, over all processes that worked on it.
        choice: how it computed; with `auto`, its threads are those that it began with.
        steps: optimizer steps done.
        epochs_done: `steps` over the steps in an epoch.
        images_per_s: samples over time in the loop of this process, data loading included; 0 if nothing was left to do.
    """

    model: nn.Module
    history: tuple[Passed, ...]
    seconds: float
    choice: Choice
    steps: int
    epochs_done: float
    images_per_s: float

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form, without the model."""
        return {
            "history": [asdict(entry) for entry in self.history],
            "seconds": self.seconds,
            "choice": asdict(self.choice),
            "steps": self.steps,
            "epochs_done": self.epochs_done,
            "images_per_s": self.images_per_s,
        }


def _wrong(name: str, value: object, rule: str, way_out: str = "") -> TrainingError:
    return TrainingError(f"{name} is {value!r}", where="FitConfig", rule=rule, way_out=way_out)
