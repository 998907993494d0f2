"""How a compression goes about it: everything that decides the result beside the workload and the budget."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from torch import nn

from edgekit.errors import EdgekitError, did_you_mean
from edgekit.profiling.book import check_host
from edgekit.quantize.targets import CpuTarget, target_here
from edgekit.training import AUGMENTATIONS, AugmentationName, OptimizerName, augmentation_for, suited
from edgekit.workload import Workload

GRIDS = {"x86-vnni": 16, "x86-avx2": 8, "arm64": 8}
"""Channels per block of ONNX Runtime's layout: 16 floats fill an AVX-512 register, 8 an AVX2 one or two of NEON's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Choices of a run.

    Args:
        target: the kind of CPU that the int8 file is for: `x86-vnni`, `x86-avx2` or `arm64`; that of this machine
            unless given.
        also: further kinds of CPU that the bundle gets an int8 file of the chosen network for; untimed, since there is
            no such processor here. The target itself may be among them.
        threads: intra-op threads of ONNX Runtime in every measurement.
        providers: execution providers to validate on; `cuda` adds an fp16 variant.
        seed: of every random choice.
        grid: channel counts come out as multiples of this; None takes the target's.
        importance: how channels are ranked: `taylor`, `bn-scale`, `l1` or `l2`.
        ranges: how int8 ranges are chosen: `mse`, `minmax`, `percentile` or `entropy`.
        placement: how the int8 nodes of a file are chosen: `measured` on this machine, or by `rules`, which always give
            the same file.
        recovery_epochs: most epochs of one recovery; the time budget may allow fewer.
        learning_rate: peak learning rate of a recovery; None takes the optimizer's.
        optimizer: of a recovery: `sgd`, `adamw`, or by `auto` what suits the network.
        batch_size: samples in one step of a recovery.
        augment: what is done to images in a recovery: `shift` moves them by up to an eighth, `mirror` mirrors them too;
            `auto` shifts pictures with a label that do not change by themselves.
        max_rounds: most rounds of pruning and recovery.
        resolutions: heights in pixels that images may be scaled down to; none leaves them as they come.
        latency_time_s: time of the final interleaved latency measurement, at most a twentieth of the budget.
        robustness_time_s: time for the final passes over perturbed test samples; 0 for none.
        costs: file of what pieces of networks cost on the device (`edgekit profile`); None where this machine is the
            device.
        host: `user@host` of the device, for pieces that have no costs; they are timed over ssh and added to `costs`.
        python: the interpreter there, with numpy and onnxruntime.

    Raises:
        EdgekitError: a value is not one of those named here.
    """

    target: CpuTarget = field(default_factory=target_here)
    also: tuple[CpuTarget, ...] = ()
    threads: int = 1
    providers: tuple[str, ...] = ("cpu",)
    seed: int = 0
    grid: int | None = None
    importance: Literal["taylor", "bn-scale", "l1", "l2"] = "taylor"
    ranges: Literal["mse", "minmax", "percentile", "entropy"] = "mse"
    placement: Literal["measured", "rules"] = "measured"
    recovery_epochs: float = 12
    learning_rate: float | None = None
    optimizer: OptimizerName = "auto"
    batch_size: int = 128
    augment: AugmentationName = "auto"
    max_rounds: int = 4
    resolutions: tuple[int, ...] = ()
    latency_time_s: float = 20.0
    robustness_time_s: float = 20.0
    costs: str | None = None
    host: str | None = None
    python: str = "python3"

    def __post_init__(self) -> None:
        known = (
            ("--device", self.target, tuple(GRIDS)),
            *(("--also", each, tuple(GRIDS)) for each in self.also),
            ("--augment", self.augment, AUGMENTATIONS),
            ("--importance", self.importance, ("taylor", "bn-scale", "l1", "l2")),
            ("--optimizer", self.optimizer, ("auto", "sgd", "adamw")),
            ("--placement", self.placement, ("measured", "rules")),
            ("--ranges", self.ranges, ("mse", "minmax", "percentile", "entropy")),
        )
        for where, value, values in known:
            if value not in values:
                raise EdgekitError(
                    f"unknown {value!r}",
                    where=where,
                    rule=f"one of {', '.join(values)}",
                    way_out=did_you_mean(value, values),
                )
        for provider in self.providers:
            if provider not in ("cpu", "cuda"):
                raise EdgekitError(
                    f"unknown provider {provider!r}",
                    where="--provider",
                    rule="cpu, cuda or both",
                    way_out=did_you_mean(provider, ("cpu", "cuda")),
                )
        if self.grid is not None and self.grid < 1:
            raise EdgekitError(f"got {self.grid}", where="--grid", rule="a positive number of channels")
        if self.threads < 1:
            raise EdgekitError(f"got {self.threads}", where="--threads", rule="at least 1")
        if self.max_rounds < 0 or self.recovery_epochs <= 0:
            raise EdgekitError(
                f"got {self.max_rounds} rounds of {self.recovery_epochs} epochs",
                where="--rounds, --epochs",
                rule="0 rounds or more, each of more than 0 epochs",
            )
        check_host(self.host, self.costs)

    def suited_to(self, model: nn.Module) -> Self:
        """With optimizer and learning rate for a network, where they are left open.

        >>> (chosen := Settings().suited_to(nn.LSTM(2, 2))).optimizer, chosen.learning_rate
        ('adamw', 0.001)
        """
        optimizer, rate = suited(model, self.optimizer, self.learning_rate)
        return replace(self, optimizer=optimizer, learning_rate=rate)

    def suited_to_data(self, workload: Workload, model: nn.Module) -> Self:
        """With what is done to the training images of a workload, where that is left open.

        Raises:
            DataError: images are to be moved that are none, or whose targets would have to move with them.
        """
        kind = augmentation_for(self.augment, workload.splits.train, task=workload.task, model=model, seed=self.seed)
        return replace(self, augment=kind)

    @property
    def placed_by(self) -> Literal["measured", "rules"]:
        """The placement in use: what is fastest on this machine says little of another."""
        return self.placement if self.costs is None else "rules"

    @property
    def other_targets(self) -> tuple[CpuTarget, ...]:
        """The further kinds of CPU, each once.

        >>> Settings(target="arm64", also=("x86-vnni", "arm64", "x86-vnni")).other_targets
        ('x86-vnni',)
        """
        return tuple(dict.fromkeys(each for each in self.also if each != self.target))

    @property
    def channel_grid(self) -> int:
        """The grid in use."""
        return self.grid or GRIDS[self.target]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            **asdict(self),
            "also": list(self.also),
            "providers": list(self.providers),
            "resolutions": list(self.resolutions),
            "grid": self.channel_grid,
        }
