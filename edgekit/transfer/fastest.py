"""Who answers for a network while others learn from it: itself, or a file of it that answers faster and as well."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import Dataset

from edgekit.distill import DistillConfig, Frozen, Teacher, distillation_objective
from edgekit.errors import DataError
from edgekit.quantize.judging import db_between
from edgekit.spec import IOSpec
from edgekit.tasks import Task
from edgekit.training import Choice, on_threads, setting_for
from edgekit.training.ranks import fabric_for
from edgekit.transfer.teachers import onnx_teacher
from edgekit.workload import Batch, loader

NETWORK = "the network"
FAITHFUL_DB = 20.0
"""Signal to noise of a file's answers, against the network's, with which it may teach: they differ by a tenth.
ResNet-20's int8 file has 31 (without VNNI). Two trainings of a pruned one by the network ended at 85.8 and 85.7 %, two
by the file, of as many steps, at 85.7 and 86.2."""
WORTH = 0.05
"""Of a step's time, what another teacher must save to be taken instead of a plainer one."""
ROUNDS, LOOKS = 3, 2
"""Timed answers of each teacher, after one that plans kernels; batches that they go over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """A file that was made of a network.

    Args:
        name: what it is called where it is said who taught.
        path: the ONNX file.
        spec: its inputs and outputs.
        target: the kind of CPU that it is for, as for `onnx_teacher`.
    """

    name: str
    path: Path
    spec: IOSpec
    target: str = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Teaching:
    """How students of a network train, and who answers for it meanwhile.

    Args:
        choice: precision, layout, threads and loading processes.
        taught_by: `the network`, or the name of a file.
        teacher: answers a batch.
        measured: by name the seconds of an answer, and of a file the `sqnr_db` against the network's.
    """

    choice: Choice
    taught_by: str
    teacher: Teacher
    measured: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form of all but the teacher."""
        return {
            "choice": asdict(self.choice),
            "taught_by": self.taught_by,
            "teachers": {name: dict(found) for name, found in self.measured.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], model: nn.Module, files: Sequence[StandIn], example: Batch) -> Self:
        """What `to_dict` wrote, with the teacher that was found among `model` and `files`."""
        choice = Choice(**data["choice"])
        file = next((file for file in files if file.name == data["taught_by"]), None)
        return cls(
            choice=choice,
            taught_by=NETWORK if file is None else file.name,
            teacher=model if file is None else file_teacher(file, model, example, choice),
            measured=data["teachers"],
        )


def fastest_teacher(
    model: nn.Module,
    files: Sequence[StandIn],
    *,
    student: nn.Module,
    train: Dataset[Any],
    task: Task,
    config: DistillConfig,
    example: Batch,
) -> Teaching:
    """Measure how a student trains fastest, and which of a network and files of it answers fastest in that training.

    In PyTorch a teacher's answer is a good part of a step, more the smaller the student is; files mostly answer faster.
    A file teaches where its answers have the network's form and `FAITHFUL_DB`, and where training is on the CPU. A
    batch that it does not take (of another length than it was exported with) is answered by the network.

    Args:
        model: the network that is taught from.
        files: made of it, the plainest first.
        student: what is trained, or a network like those.
        train: data to train on, with their augmentations.
        task: gives the loss and the divergence.
        config: of the distillations.
        example: a batch of the network's inputs.

    Raises:
        TrainingError: nothing to train on.
        DataError: the data cannot be loaded.
    """
    choice = setting_for(student, train, distillation_objective(model, task, config), config.fit)
    if not files or not files_may_teach():
        return Teaching(choice=choice, taught_by=NETWORK, teacher=model)
    size = config.fit.batch_size
    batches = list(loader(train, size, model=student, seed=config.fit.seed, limit=LOOKS * size))
    with on_threads(choice.threads):
        return _fastest(model, files, batches, choice, example)


def files_may_teach() -> bool:
    """Whether trainings are on the CPU: a GPU answers for a network faster than a file would beside it."""
    return bool(fabric_for("fp32").device.type == "cpu")


def _fastest(
    model: nn.Module, files: Sequence[StandIn], batches: Sequence[Batch], choice: Choice, example: Batch
) -> Teaching:
    """The one that answers `batches` fastest in a training that computes so."""
    asked, found = {NETWORK: _network_teacher(model, choice)}, dict[str, dict[str, float]]()
    truth = [asked[NETWORK](batch) for batch in batches]
    for file in files:
        teacher = file_teacher(file, model, example, choice)
        db = min(likeness_db(answers, teacher(batch)) for answers, batch in zip(truth, batches, strict=True))
        found[file.name] = {"sqnr_db": db}
        if db >= FAITHFUL_DB:
            asked[file.name] = teacher
    times: dict[str, list[float]] = {name: [] for name in asked}
    for turn in range(ROUNDS + 1):
        for name, teacher in asked.items():
            begin = time.perf_counter()
            teacher(batches[turn % len(batches)])
            times[name].append(time.perf_counter() - begin)
    best, best_s = NETWORK, min(times[NETWORK][1:])
    for name, seconds in times.items():
        found.setdefault(name, {})["seconds"] = fastest = min(seconds[1:])
        if fastest < best_s - WORTH * choice.step_s:
            best, best_s = name, fastest
    return Teaching(choice=choice, taught_by=best, teacher=model if best == NETWORK else asked[best], measured=found)


def _network_teacher(model: nn.Module, choice: Choice) -> Callable[[Batch], Any]:
    """The network as it answers within a training that computes so."""
    frozen = Frozen(model)
    layout = torch.channels_last if choice.channels_last else None

    def answer(batch: Batch) -> Any:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=choice.precision == "bf16"):
            return frozen(batch.to(memory_format=layout))[0]

    return answer


def file_teacher(file: StandIn, model: nn.Module, example: Batch, choice: Choice) -> Callable[[Batch], Any]:
    """A file that answers in its network's form; batches that it does not take the network answers.

    Where it has another number of tensors than the network, its answer is a tuple of them.
    """
    ask = onnx_teacher(file.path, file.spec, target=file.target, threads=choice.threads)
    network = Frozen(model)
    form = pytree.tree_flatten(network(example)[0])

    def answer(batch: Batch) -> Any:
        try:
            return _in_form(form, ask(batch))
        except DataError:
            with torch.no_grad():
                return network(batch)[0]

    return answer


def likeness_db(truth: Any, answers: Any) -> float:
    """Power of the network's answers over that of what differs, in decibels, of the tensor where it is lowest.

    Minus infinity where the form differs, a shape does, or whole numbers are others; 200 where nothing differs.

    >>> round(likeness_db(torch.tensor([10.0, 0.0]), torch.tensor([10.0, 1.0])))
    20
    >>> likeness_db((torch.zeros(1),), {"logits": torch.zeros(1)})
    -inf
    """
    (ours, form), (theirs, other) = pytree.tree_flatten(truth), pytree.tree_flatten(answers)
    if form != other:
        return -np.inf
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if isinstance(a, Tensor)]
    return min((_pair_db(a, b) for a, b in pairs), default=-np.inf)


def _pair_db(truth: Tensor, answer: Any) -> float:
    if not isinstance(answer, Tensor) or truth.shape != answer.shape:
        return -np.inf
    if not truth.is_floating_point():
        return 200.0 if torch.equal(truth, answer.to(truth.dtype)) else -np.inf
    db = db_between([truth.double().numpy()], [answer.double().numpy()])
    return db if np.isfinite(db) else -np.inf


def _in_form(form: tuple[list[Any], pytree.TreeSpec], said: Sequence[Tensor]) -> Any:
    """A file's outputs where the network has tensors; they are in the order of the network's leaves."""
    leaves, spec = form
    if len(said) != sum(isinstance(leaf, Tensor) for leaf in leaves):
        return tuple(said)
    outputs = iter(said)
    return pytree.tree_unflatten([next(outputs) if isinstance(leaf, Tensor) else leaf for leaf in leaves], spec)
