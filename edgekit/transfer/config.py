"""How a network is fine-tuned, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from torch import nn

from edgekit.errors import TrainingError, did_you_mean
from edgekit.report import markdown
from edgekit.training import AUGMENTATIONS, Augmentation, AugmentationName, FitConfig
from edgekit.transfer.head import Head
from edgekit.transfer.stages import Stage
from edgekit.transfer.weights import Fitting
from edgekit.units import format_count, format_duration
from edgekit.validate import Score

METHODS = ("lp-ft", "gradual", "full", "probe")
LEAST_STEPS = 300
STANDARD = FitConfig(
    epochs=20, learning_rate=1e-3, optimizer="adamw", weight_decay=0.01, batch_size=32, keep="best", patience=10
)
"""The training loop of a phase unless told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneConfig:
    """Settings of `finetune`.

    Args:
        method: `lp-ft`: first the best head for the frozen body, then everything (A. Kumar et al., *Fine-Tuning can
            Distort Pretrained Features*, ICLR 2022); `gradual`: after the head one stage more in each phase, from the
            last to the first (J. Howard and S. Ruder, *ULMFiT*, 2018, section 3.3); `full`: everything at once, from a
            new head; `probe`: the head alone.
        head: name of the classifier, where it is not the last layer with weights.
        keep_head: go on with the head that there is, for the same classes.
        shots: use only so many samples of each class, drawn with `seed`.
        freeze: how many stages, from the input, are never trained.
        decay: a stage learns by this factor more slowly than the one after it.
        views: how many augmented versions of each sample the first phase sees.
        augment: `shift` moves images by up to an eighth, `mirror` mirrors them too; `auto` shifts images that do not
            come out differently each time already; `none` takes the data as they are.
        fit: of the training loop in each phase; how often it evaluates is set here, and it keeps the best weights.
        least_steps: epochs are raised to as many as make so many steps: a few samples are seen often.
        evaluations: of a phase, evenly spaced; `fit.patience` counts them.
        seed: of the draw of samples, the new head, order and augmentations.

    Raises:
        TrainingError: a value is out of range; the message names it.
    """

    method: Literal["lp-ft", "gradual", "full", "probe"] = "lp-ft"
    head: str | None = None
    keep_head: bool = False
    shots: int | None = None
    freeze: int = 0
    decay: float = 0.7
    views: int = 8
    augment: AugmentationName = "auto"
    fit: FitConfig = STANDARD
    least_steps: int = LEAST_STEPS
    evaluations: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name, values in (("method", METHODS), ("augment", AUGMENTATIONS)):
            value = getattr(self, name)
            if value not in values:
                raise _wrong(name, value, f"one of {', '.join(values)}", did_you_mean(value, values))
        if self.shots is not None and self.shots < 1:
            raise _wrong("shots", self.shots, "a number from 1 up or None")
        if not 0 < self.decay <= 1:
            raise _wrong("decay", self.decay, "above 0, at most 1")
        for name, least in (("freeze", 0), ("views", 1), ("least_steps", 0), ("evaluations", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise _wrong(name, getattr(self, name), f"a number from {least} up")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {**asdict(self), "fit": self.fit.to_dict()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One part of a fine-tuning.

    Args:
        name: `probe`, `head`, or what was trained from where on.
        trained: numbers that were trained.
        metric: on the selection split, after it.
        kept: whether its weights are better than those before it, which stay otherwise.
        seconds: that it took.
        details: epochs, steps and the history, or the probe's strength.
    """

    name: str
    trained: int
    metric: float
    kept: bool
    seconds: float
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `Phase(**data)` takes it back."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Finetuned:
    """A network that learned another task, and how.

    Args:
        model: in evaluation, float32, on the CPU.
        head: the layer that was replaced (or kept).
        outputs: classes.
        counts: training samples of each class, by name.
        fitting: what the network took of the given weights, where a file was given.
        stages: the body, from the input on.
        frozen: how many of these were never trained.
        augmented: what was done to images: `shift`, `mirror` or `none`.
        phases: in order.
        selection: the score on the split that chose the weights.
        test: the score on the test split, which nothing looked at before.
    """

    model: nn.Module
    head: Head
    outputs: int
    counts: Mapping[str, int]
    fitting: Fitting | None
    stages: Sequence[Stage]
    frozen: int
    augmented: Augmentation
    phases: Sequence[Phase]
    selection: Score
    test: Score

    @property
    def headers(self) -> tuple[str, ...]:
        """Of the columns of `rows`."""
        return ("phase", "trained", f"{self.test.name}, selection", "kept", "epochs", "time")

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """What each phase came to."""
        return [
            (
                phase.name,
                format_count(phase.trained),
                f"{phase.metric:.2f}",
                "yes" if phase.kept else "no",
                f"{phase.details['epochs_done']:.1f}" if "epochs_done" in phase.details else "–",
                format_duration(phase.seconds),
            )
            for phase in self.phases
        ]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form, without the model."""
        return {
            "head": self.head.to_dict(),
            "outputs": self.outputs,
            "counts": dict(self.counts),
            "weights": None if self.fitting is None else self.fitting.to_dict(),
            "stages": [stage.to_dict() for stage in self.stages],
            "frozen": self.frozen,
            "augmented": self.augmented,
            "phases": [phase.to_dict() for phase in self.phases],
            "selection": self.selection.to_dict(),
            "test": self.test.to_dict(),
        }

    def to_markdown(self) -> str:
        """The report as text."""
        test = self.test.metric
        said = (
            f"{self.test.name} on test: {test.value:.2f} [{test.low:.2f}, {test.high:.2f}] (n = {self.test.n}); the "
            f"head is `{self.head.name}`, {self.outputs} outputs; {sum(self.counts.values())} training samples."
        )
        lines = [
            "# Fine-tuning",
            "",
            said,
            "",
            markdown(self.headers, self.rows),
            "",
            markdown(
                ("stage", "parameters", "trained"),
                [
                    (stage.name, format_count(stage.values), "no" if index < self.frozen else "yes")
                    for index, stage in enumerate(self.stages)
                ],
            ),
            "",
        ]
        if self.fitting is not None:
            lines += [f"Weights: {self.fitting}.", ""]
        return "\n".join(lines)


def _wrong(name: str, value: object, rule: str, way_out: str = "") -> TrainingError:
    return TrainingError(f"{name} is {value!r}", where="FinetuneConfig", rule=rule, way_out=way_out)
