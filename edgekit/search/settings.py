"""How an architecture search goes about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

from edgekit.errors import EdgekitError
from edgekit.profiling.book import check_host
from edgekit.quantize.targets import CpuTarget, target_here
from edgekit.search.study import SamplerKind
from edgekit.training import AugmentationName, OptimizerName
from edgekit.validate.behaviour import Gates
from edgekit.validate.selection import CONFIDENCE, margin_of

AIMS = ("latency", "drop", "size")
LATER = (
    "trials",
    "time_s",
    "finalists",
    "epochs",
    "latency_time_s",
    "max_drop",
    "gates",
    "confidence",
    "ranges",
    "placement",
    "ranks",
    "host",
    "python",
)
"""What does not change a trial: a search goes on with the same study when these are changed."""
OF_THE_STUDY = (*LATER, "aims", "sampler", "max_latency_ms", "short_epochs", "rungs", "factor")
"""What does not change a network that was trained: its stages are taken again when these are changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """Choices of a search. References are text (`net.py:function`), since they travel to other processes and hosts.

    Args:
        trials: networks to try.
        time_s: seconds for all of it, the full training of the finalists included; fewer trials if it ends before.
        aims: what is to be small: `latency`, `drop`, `size`. Several make a front.
        max_latency_ms: slower networks are not trained.
        max_drop: points of the metric that the chosen one may be worse than the reference. A finalist's int8 file that
            is, while its fp32 file is not, climbs the quantization ladder (`edgekit.quantize.climb`).
        gates: limits on what else may differ from the reference; likewise. Finalists that break one are left off the
            front where others hold all. That on robustness needs perturbed inputs and is not for a search.
        confidence: how sure the selection split has to be that a file holds `max_drop` and `gates`, in 0.5 to 1:
            one-sided, by the standard errors of the figures. Where none is so sure, estimates decide.
        teacher: a trained model to distill from, and the reference of all drops. Without it both are missing, and the
            reference is the builder's default network, trained like the others.
        weights: a trained model whose weights new networks start from, where names and shapes allow.
        latency: a function that predicts the latency in ms of a network (`nn.Module`, in eval mode) instead of its
            measurement on this host.
        costs: file of what pieces of networks cost on the device (`edgekit profile`), where that is not this host:
            latencies are predicted by it.
        host: `user@host` of that device, for pieces that have no costs; they are timed over ssh and added to `costs`.
        python: the interpreter of `host`.
        sampler: `auto` takes NSGA-II for a front, a Gaussian process or TPE for one aim.
        short_epochs: epochs of the first short training.
        rungs: short trainings; each goes on from the one before until `factor` times as many epochs are done.
        factor: of a rung's networks, one in so many reaches the next (asynchronous successive halving: L. Li et al.,
            *A System for Massively Parallel Hyperparameter Tuning*, 2020, algorithm 2).
        epochs: most epochs of the full training of a finalist.
        finalists: networks that are trained in full.
        learning_rate: peak learning rate; None takes the optimizer's.
        optimizer: `sgd`, `adamw`, or by `auto` what suits each network.
        batch_size: samples in a step.
        augment: what is done to training images: `shift`, `mirror` (which shifts, too), `none`, or by `auto` what suits
            the data.
        ranks: processes of torchrun that share each training; 1 trains in the worker itself.
        target: the kind of CPU that int8 files are for; that of this machine unless given.
        threads: of ONNX Runtime in every measurement.
        ranges: how the finalists' int8 ranges are chosen.
        placement: how their int8 nodes are chosen.
        latency_time_s: time of the final interleaved measurements.
        seed: of every random choice.

    Raises:
        EdgekitError: a value is out of range.
    """

    trials: int = 32
    time_s: float = 1800.0
    aims: tuple[str, ...] = ("latency", "drop")
    max_latency_ms: float | None = None
    max_drop: float | None = None
    gates: Gates = field(default_factory=Gates)
    confidence: float = CONFIDENCE
    teacher: str | None = None
    weights: str | None = None
    latency: str | None = None
    costs: str | None = None
    host: str | None = None
    python: str = "python3"
    sampler: SamplerKind = "auto"
    short_epochs: float = 1.0
    rungs: int = 2
    factor: int = 3
    epochs: float = 12.0
    finalists: int = 4
    learning_rate: float | None = None
    optimizer: OptimizerName = "auto"
    batch_size: int = 128
    augment: AugmentationName = "auto"
    ranks: int = 1
    target: CpuTarget = field(default_factory=target_here)
    threads: int = 1
    ranges: Literal["mse", "minmax", "percentile", "entropy"] = "mse"
    placement: Literal["measured", "rules"] = "measured"
    latency_time_s: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        known = all(aim in AIMS for aim in self.aims)
        if not known or "drop" not in self.aims or len(set(self.aims)) < len(self.aims):
            raise EdgekitError(
                f"got {', '.join(self.aims) or 'nothing'}",
                where="--aims",
                rule="drop, with latency and size if they are to be traded for it; each once",
            )
        if self.aims == ("drop",) and self.max_latency_ms is None:
            raise EdgekitError(
                "the only aim is the drop, and no latency is too high",
                where="--aims",
                rule="a limit on the latency, or the latency as an aim: else the largest network wins",
                way_out="give --max-latency-ms, or --aims latency,drop",
            )
        if self.gates.max_robustness_drop is not None:
            raise EdgekitError(
                f"got {self.gates.max_robustness_drop}",
                where="max_robustness_drop",
                rule="gates on churn, classes and calibration: a search perturbs no inputs",
                way_out="validate the chosen file with this gate",
            )
        margin_of(self.confidence)
        self._check_device()
        counts = (("--trials", self.trials), ("--rungs", self.rungs), ("--finalists", self.finalists))
        for where, value in (*counts, ("--ranks", self.ranks), ("--threads", self.threads)):
            if value < 1:
                raise EdgekitError(f"got {value}", where=where, rule="at least 1")
        if self.factor < 2:
            raise EdgekitError(f"got {self.factor}", where="--factor", rule="at least 2")
        for where, number in (
            ("--time", self.time_s),
            ("--short-epochs", self.short_epochs),
            ("--epochs", self.epochs),
            ("--max-latency-ms", self.max_latency_ms),
        ):
            if number is not None and not 0 < number < math.inf:
                raise EdgekitError(f"got {number}", where=where, rule="a positive number")

    @property
    def margin(self) -> float:
        """Standard errors that a decision keeps between a figure and its limit."""
        return margin_of(self.confidence)

    @property
    def short(self) -> tuple[float, ...]:
        """Epochs that are done at the end of each rung; the first is 0 where networks start from given weights.

        >>> SearchSettings(short_epochs=1, rungs=3, factor=2).short
        (1.0, 2.0, 4.0)
        """
        trained = tuple(float(self.short_epochs * self.factor**rung) for rung in range(self.rungs))
        return (0.0, *trained) if self.weights else trained

    def _check_device(self) -> None:
        if self.costs is not None and self.latency is not None:
            raise EdgekitError(
                "got both", where="--costs, --latency", rule="one way to find latencies of a device that is elsewhere"
            )
        check_host(self.host, self.costs)

    @property
    def placed_by(self) -> Literal["measured", "rules"]:
        """The placement in use: what is fastest on this machine says little of another."""
        return self.placement if self.costs is None else "rules"

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {**asdict(self), "aims": list(self.aims)}

    def of_a_trial(self) -> dict[str, Any]:
        """What decides the result of a trial."""
        return {name: value for name, value in self.to_dict().items() if name not in LATER}

    def of_a_network(self) -> dict[str, Any]:
        """What decides how one network comes out, the epochs of its trainings aside."""
        return {name: value for name, value in self.to_dict().items() if name not in OF_THE_STUDY}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        known = {each.name for each in fields(cls)}
        values = {name: value for name, value in data.items() if name in known}
        return cls(**{**values, "aims": tuple(data["aims"]), "gates": Gates(**data.get("gates", {}))})
