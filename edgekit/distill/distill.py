"""Knowledge distillation: the loop is `fit`, the objective is here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import Dataset

from edgekit.distill.layers import (
    Match,
    attention_loss,
    feature_loss,
    listening,
    matched,
    named,
    with_projections,
    without_projections,
)
from edgekit.distill.losses import decoupled, mixed, standardized
from edgekit.distill.teachers import Frozen, Teacher, Unlabelled, logits_of
from edgekit.errors import TrainingError
from edgekit.progress import Progress, silent
from edgekit.tasks import Task
from edgekit.training import Choice, FitConfig, FitResult, Objective, fit
from edgekit.workload import Batch, derive, digest_of, loader


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillConfig:
    """Settings of `distill`.

    Args:
        fit: of the training loop.
        temperature: softens both distributions (Hinton et al. 2015, section 2).
        hard: weight of the task's loss on the labels; 0 for data without labels.
        soft: weight of the divergence from the teacher.
        loss: `kd`, the task's own divergence, or `dkd`, which weighs what the teacher says about the target and about
            the other classes by themselves (B. Zhao et al. 2022; classification only).
        target_weight: of the part about the target, in `dkd`.
        rest_weight: of the part about the other classes, in `dkd`.
        standardize: whether logits get mean 0 and deviation 1 first (S. Sun et al. 2024; classification only).
        feature: weight of the feature loss; 0 turns it off.
        attention: weight of the distance between attention maps (attention transfer); 0 turns it off.
        feature_layers: what both of these compare: names of modules that student and teacher have alike, in one shape;
            `STUDENT=TEACHER` for two that differ, with a learned 1x1 projection between them; or `auto`, which pairs
            layers by relative depth and spatial size.

    Raises:
        TrainingError: a weight is negative, all are 0, a feature loss has no layers, or a name is unknown.

    >>> DistillConfig(fit=FitConfig(epochs=1)).temperature
    4.0
    """

    fit: FitConfig
    temperature: float = 4.0
    hard: float = 0.3
    soft: float = 0.7
    loss: Literal["kd", "dkd"] = "kd"
    target_weight: float = 1.0
    rest_weight: float = 8.0
    standardize: bool = False
    feature: float = 0.0
    attention: float = 0.0
    feature_layers: tuple[str, ...] | Literal["auto"] = ()

    def __post_init__(self) -> None:
        weights = {name: getattr(self, name) for name in ("hard", "soft", "feature", "attention")}
        if min(weights.values()) < 0 or not any(weights.values()):
            raise TrainingError(f"the weights are {weights}", where="DistillConfig", rule="none negative, not all 0")
        if not self.temperature > 0:
            raise TrainingError(f"temperature is {self.temperature}", where="DistillConfig", rule="a positive number")
        if self.loss not in ("kd", "dkd"):
            raise TrainingError(f"loss is {self.loss!r}", where="DistillConfig", rule="kd or dkd")
        if min(self.target_weight, self.rest_weight) < 0:
            raise TrainingError(
                f"target_weight is {self.target_weight}, rest_weight {self.rest_weight}",
                where="DistillConfig",
                rule="none negative",
            )
        if bool(self.feature or self.attention) != bool(self.feature_layers):
            raise TrainingError(
                f"feature is {self.feature}, attention {self.attention}, feature_layers {self.feature_layers}",
                where="DistillConfig",
                rule="a weight and the names of layers, or neither",
                way_out='feature_layers="auto" pairs layers by depth and size',
            )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        layers = self.feature_layers
        return {**asdict(self), "feature_layers": layers if isinstance(layers, str) else list(layers)}


def distill(
    model: nn.Module,
    teacher: Teacher | Sequence[Teacher],
    train: Dataset[Any],
    task: Task,
    config: DistillConfig,
    *,
    teacher_weights: Sequence[float] = (),
    checkpoint: Path | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Progress = silent,
    deadline_s: float | None = None,
    fabric: Fabric | None = None,
    like: Choice | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> FitResult:
    """Train a copy of `model`, any network that answers as `teacher` does, to do the task and to answer so.

    The objective is hard · loss(student, labels) + soft · T² KL(teacher ‖ student at temperature T) + feature · the
    mean squared distance of the L2-normalized outputs of `feature_layers` + attention · that of their attention maps.
    `config.loss` and `config.standardize` have other forms of the second term. The student and the teacher see the same
    augmented batch. Batches without a target leave the first term out, as do samples of `Unlabelled` without a label.

    Args:
        model: the student; left as it is.
        teacher: usually the uncompressed model, left as it is; or a function from a batch to its answers (tensors, as
            the model would return them), such as a session of ONNX Runtime; or several of these, whose probabilities
            are averaged. Feature and attention losses compare layers with the first one, which must be a module then.
        train: training data with their augmentations.
        task: gives the loss and the divergence.
        config: the settings.
        teacher_weights: of several teachers in the average; equal without it.
        checkpoint: as in `fit`.
        evaluate: as in `fit`.
        about: as in `fit`: for instance digests of teachers that are functions; modules are told apart without it.
        progress: as in `fit`.
        deadline_s: as in `fit`.
        fabric: as in `fit`.
        like: as in `fit`.
        clock: as in `fit`.

    Raises:
        TrainingError: as in `fit`, a feature layer does not exist or differs in shape, or a loss is not for this task.
        DataError: the data cannot be loaded.

    >>> from edgekit.tasks import classification
    >>> from torch.utils.data import TensorDataset
    >>> data = TensorDataset(torch.eye(4).repeat(8, 1), torch.arange(4).repeat(8))
    >>> teacher = nn.Linear(4, 4)
    >>> settings = DistillConfig(fit=FitConfig(epochs=2, batch_size=8))
    >>> distill(nn.Linear(4, 4), teacher, data, classification(), settings).steps
    8
    """
    student, matches = model, tuple[Match, ...]()
    if config.feature_layers:
        example = next(iter(loader(train, 2, model=model, seed=config.fit.seed)))
        student, matches = with_layers(model, teacher, example, config)
    objective = distillation_objective(
        teacher,
        task,
        config,
        matches=matches,
        teacher_weights=teacher_weights,
        unlabelled=isinstance(train, Unlabelled),
    )
    result = fit(
        student,
        train,
        objective,
        config.fit,
        checkpoint=checkpoint,
        evaluate=evaluate,
        about={
            **config.to_dict(),
            "fit": None,
            "teacher_weights": list(teacher_weights),
            "teachers": [digest_of(each) if isinstance(each, nn.Module) else None for each in teachers_of(teacher)],
            **(about or {}),
        },
        progress=progress,
        deadline_s=deadline_s,
        fabric=fabric,
        like=like,
        clock=clock,
    )
    return replace(result, model=without_projections(result.model))


def with_layers(
    model: nn.Module, teacher: Teacher | Sequence[Teacher], example: Batch, config: DistillConfig
) -> tuple[nn.Module, tuple[Match, ...]]:
    """The student with the projections that `config.feature_layers` needs, and which layers are compared.

    Raises:
        TrainingError: the teacher has no layers, a name is unknown, or no layers fit each other.
    """
    first = teachers_of(teacher)[0]
    if not isinstance(first, nn.Module):
        raise TrainingError(
            f"the teacher is a {type(first).__name__}",
            where="feature_layers",
            rule="a feature or attention loss needs a PyTorch module as the (first) teacher: a function has no layers",
            way_out="leave these losses out, or give the module itself",
        )
    if config.feature_layers == "auto":
        matches = matched(model, first, example)
    else:
        matches = named(config.feature_layers, model, first)
    if not any(match.projected for match in matches):
        return model, matches
    return with_projections(model, first, matches, example, seed=derive(config.fit.seed, 6)), matches


def distillation_objective(
    teacher: Teacher | Sequence[Teacher],
    task: Task,
    config: DistillConfig,
    *,
    matches: Sequence[Match] | None = None,
    teacher_weights: Sequence[float] = (),
    unlabelled: bool = False,
) -> Objective:
    """The loss of `distill` as a function of (student, batch), for loops other than `fit`.

    `matches` are the layers to compare, from `with_layers`, which also makes the student to be trained; without them
    `config.feature_layers` must be plain names. `unlabelled` tells that some samples have a negative label, which is
    none: a batch may then be without any.
    """
    _check_task(task, config, several=len(teachers_of(teacher)) > 1)
    if matches is None:
        assert config.feature_layers != "auto"
        matches = tuple(Match(student=name, teacher=name, projected=False) for name in config.feature_layers)
    layers = [match.student for match in matches]
    answer = _answering(teachers_of(teacher), teacher_weights, matches, config)

    def objective(student: nn.Module, batch: Batch) -> Tensor:
        with listening(student, layers) as ours:
            outputs = batch.call(student)
        terms: list[Tensor] = []
        # Looking at labels waits for a GPU, so it is done only where there is something to find.
        if config.hard and batch.target is not None and not (unlabelled and bool((batch.target < 0).all())):
            terms.append(config.hard * task.loss(outputs, batch.target))
        if config.soft or config.feature or config.attention:
            with torch.no_grad():
                answers, theirs = answer(batch)
            if config.soft:
                terms.append(config.soft * _divergence(outputs, answers, batch.target, task, config))
            if config.feature:
                terms.append(config.feature * feature_loss(student, ours, theirs, matches))
            if config.attention:
                terms.append(config.attention * attention_loss(ours, theirs, matches))
        if not terms:
            raise TrainingError(
                "the data carry no target and only the hard loss is on",
                where="DistillConfig",
                rule="labels, or a soft or feature weight",
            )
        return torch.stack(terms).sum()

    return objective


def teachers_of(teacher: Teacher | Sequence[Teacher]) -> tuple[Teacher, ...]:
    """One teacher or several, as a tuple."""
    if isinstance(teacher, nn.Module) or callable(teacher):
        return (teacher,)
    return tuple(teacher)


def _answering(
    teachers: Sequence[Teacher], weights: Sequence[float], matches: Sequence[Match], config: DistillConfig
) -> Callable[[Batch], tuple[Any, dict[str, Tensor]]]:
    layers = list(dict.fromkeys(match.teacher for match in matches))

    def asked(teacher: Teacher, layers: Sequence[str]) -> Callable[[Batch], tuple[Any, dict[str, Tensor]]]:
        return Frozen(teacher, layers) if isinstance(teacher, nn.Module) else lambda batch: (teacher(batch), {})

    each = [asked(teacher, () if index else layers) for index, teacher in enumerate(teachers)]
    shares = list(weights) or [1.0] * len(each)
    if len(shares) != len(each) or min(shares) < 0 or not sum(shares) > 0:
        raise TrainingError(
            f"weights {shares} for {len(each)} teachers",
            where="teacher_weights",
            rule="one for each teacher, none negative, not all 0",
        )

    def answer(batch: Batch) -> tuple[Any, dict[str, Tensor]]:
        said = [ask(batch) for ask in each]
        if len(said) == 1 and not config.standardize:
            return said[0]
        logits = [logits_of(answers) for answers, _ in said]
        if config.standardize:
            logits = [standardized(values) for values in logits]
        return mixed(logits, shares, config.temperature) if len(logits) > 1 else logits[0], said[0][1]

    return answer


def _divergence(outputs: Any, answers: Any, target: Any, task: Task, config: DistillConfig) -> Tensor:
    if config.standardize:
        outputs = standardized(logits_of(outputs))
    if config.loss == "kd":
        return task.distillation(outputs, answers, config.temperature)
    ours, theirs = logits_of(outputs), logits_of(answers)
    if target is None:
        target = theirs.argmax(1)
    return decoupled(
        ours,
        theirs,
        target,
        config.temperature,
        target_weight=config.target_weight,
        rest_weight=config.rest_weight,
    )


def _check_task(task: Task, config: DistillConfig, *, several: bool) -> None:
    special = [
        name
        for name, wanted in (("dkd", config.loss == "dkd"), ("standardize", config.standardize), ("teachers", several))
        if wanted
    ]
    if special and task.name != "classification":
        raise TrainingError(
            f"{', '.join(special)} with the task {task.name}",
            where="DistillConfig",
            rule="several teachers, dkd and standardized logits are defined for classification",
            way_out="use one teacher and loss='kd', which takes the task's own divergence",
        )
