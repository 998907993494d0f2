"""Knowledge distillation: the loop is `fit`, the objective is here."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import Dataset

from edgekit.errors import TrainingError
from edgekit.progress import Progress, silent
from edgekit.tasks import Task, outputs_of
from edgekit.training import FitConfig, FitResult, Objective, fit, in_layout
from edgekit.workload import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillConfig:
    """Settings of `distill`.

    Args:
        fit: of the training loop.
        temperature: softens both distributions (Hinton et al. 2015, section 2).
        hard: weight of the task's loss on the labels; 0 for data without labels.
        soft: weight of the divergence from the teacher.
        feature: weight of the feature loss; 0 turns it off.
        feature_layers: names of modules, in student and teacher alike, whose outputs are to be close.

    Raises:
        TrainingError: a weight is negative, all are 0, or a feature loss has no layers.

    >>> DistillConfig(fit=FitConfig(epochs=1)).temperature
    4.0
    """

    fit: FitConfig
    temperature: float = 4.0
    hard: float = 0.3
    soft: float = 0.7
    feature: float = 0.0
    feature_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        weights = {"hard": self.hard, "soft": self.soft, "feature": self.feature}
        if min(weights.values()) < 0 or not any(weights.values()):
            raise TrainingError(f"the weights are {weights}", where="DistillConfig", rule="none negative, not all 0")
        if not self.temperature > 0:
            raise TrainingError(f"temperature is {self.temperature}", where="DistillConfig", rule="a positive number")
        if bool(self.feature) != bool(self.feature_layers):
            raise TrainingError(
                f"feature is {self.feature} and feature_layers {self.feature_layers}",
                where="DistillConfig",
                rule="a weight and the names of layers, or neither",
            )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {**asdict(self), "feature_layers": list(self.feature_layers)}


def distill(
    model: nn.Module,
    teacher: nn.Module | Callable[[Batch], Any],
    train: Dataset[Any],
    task: Task,
    config: DistillConfig,
    *,
    checkpoint: Path | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    progress: Progress = silent,
    deadline_s: float | None = None,
    fabric: Fabric | None = None,
) -> FitResult:
    """Train a copy of `model` to do the task and to answer as `teacher` does.

    The objective is hard · loss(student, labels) + soft · T² KL(teacher ‖ student at temperature T) + feature · the
    mean squared distance of the L2-normalized outputs of `feature_layers`. The student and the teacher see the same
    augmented batch. Batches without a target leave the first term out.

    Args:
        model: the student; left as it is.
        teacher: usually the uncompressed model, left as it is; or a function from a batch to its answers (tensors, as
            the model would return them), such as a session of ONNX Runtime. A function has no layers to compare.
        train: training data with their augmentations.
        task: gives the loss and the divergence.
        config: the settings.
        checkpoint: as in `fit`.
        evaluate: as in `fit`.
        progress: as in `fit`.
        deadline_s: as in `fit`.
        fabric: as in `fit`.

    Raises:
        TrainingError: as in `fit`, or a feature layer does not exist or differs in shape.
        DataError: the data cannot be loaded.

    >>> from edgekit.tasks import classification
    >>> from torch.utils.data import TensorDataset
    >>> data = TensorDataset(torch.eye(4).repeat(8, 1), torch.arange(4).repeat(8))
    >>> teacher = nn.Linear(4, 4)
    >>> settings = DistillConfig(fit=FitConfig(epochs=2, batch_size=8))
    >>> distill(nn.Linear(4, 4), teacher, data, classification(), settings).steps
    8
    """
    for name in config.feature_layers:
        for role, module in (("student", model), ("teacher", teacher)):
            if not isinstance(module, nn.Module) or name not in dict(module.named_modules()):
                raise TrainingError(
                    f"the {role} has no module {name!r}",
                    where="feature_layers",
                    rule="names from named_modules() of student and teacher",
                )
    return fit(
        model,
        train,
        distillation_objective(teacher, task, config),
        config.fit,
        checkpoint=checkpoint,
        evaluate=evaluate,
        progress=progress,
        deadline_s=deadline_s,
        fabric=fabric,
    )


def distillation_objective(teacher: nn.Module | Callable[[Batch], Any], task: Task, config: DistillConfig) -> Objective:
    """The loss of `distill` as a function of (student, batch), for loops other than `fit`."""
    layers = config.feature_layers
    answer: Callable[[Batch], tuple[Any, dict[str, Tensor]]] = (
        _Frozen(teacher, layers) if isinstance(teacher, nn.Module) else lambda batch: (teacher(batch), {})
    )

    def objective(student: nn.Module, batch: Batch) -> Tensor:
        with _listening(student, layers) as ours:
            outputs = batch.call(student)
        terms: list[Tensor] = []
        if config.hard and batch.target is not None:
            terms.append(config.hard * task.loss(outputs, batch.target))
        if config.soft or config.feature:
            with torch.no_grad():
                answers, theirs = answer(batch)
            if config.soft:
                terms.append(config.soft * task.distillation(outputs, answers, config.temperature))
            if config.feature:
                terms.append(config.feature * _feature_loss(ours, theirs, layers))
        if not terms:
            raise TrainingError(
                "the data carry no target and only the hard loss is on",
                where="DistillConfig",
                rule="labels, or a soft or feature weight",
            )
        return torch.stack(terms).sum()

    return objective


class _Frozen:
    """The teacher: a copy in eval mode without gradients that follows the batches to their device and layout."""

    def __init__(self, teacher: nn.Module, layers: Sequence[str]) -> None:
        self.layers = layers
        self.model = copy.deepcopy(teacher).eval().requires_grad_(requires_grad=False)
        self._placed: tuple[torch.device, bool] | None = None

    def __call__(self, batch: Batch) -> tuple[Any, dict[str, Tensor]]:
        leaf = batch.leaves()[0]
        images = leaf.ndim == 4 and leaf.is_contiguous(memory_format=torch.channels_last)
        if self._placed != (leaf.device, images):
            self.model = in_layout(self.model.to(leaf.device), channels_last=images)
            self._placed = (leaf.device, images)
        with _listening(self.model, self.layers) as heard:
            return batch.call(self.model), heard


@contextmanager
def _listening(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """The first output of each named module, once the model has been called."""
    heard: dict[str, Tensor] = {}
    if not layers:
        yield heard
        return
    modules = dict(getattr(model, "module", model).named_modules())

    def listen(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            heard[name] = outputs_of(output)[0]

        return hook

    handles = [modules[name].register_forward_hook(listen(name)) for name in layers]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _feature_loss(ours: dict[str, Tensor], theirs: dict[str, Tensor], layers: Sequence[str]) -> Tensor:
    distances = []
    for name in layers:
        student, teacher = ours[name], theirs[name]
        if student.shape != teacher.shape:
            raise TrainingError(
                f"{name!r} gives {list(student.shape)} in the student and {list(teacher.shape)} in the teacher",
                where="feature_layers",
                rule="layers whose outputs have one shape in both",
                way_out="name layers that pruning left whole, such as the ends of stages",
            )
        a = F.normalize(student.float().flatten(1), dim=1)
        b = F.normalize(teacher.float().flatten(1), dim=1)
        distances.append((a - b).square().sum(1).mean())
    return torch.stack(distances).mean()
