"""How the recoveries of a run compute, and who answers for the original in them: measured once, before the first."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from edgekit.compress.fitting import fit_config, training_data
from edgekit.compress.run import Run
from edgekit.compress.stages import File
from edgekit.distill import DistillConfig, Frozen, Teacher, distillation_objective
from edgekit.errors import DataError
from edgekit.quantize.judging import db_between
from edgekit.store import write_json
from edgekit.training import Choice, on_threads, setting_for
from edgekit.training.ranks import fabric_for
from edgekit.transfer import onnx_teacher
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
class Teaching:
    """How recoveries compute, and their teacher: the original network, or a file that answers for it.

    In PyTorch a teacher's answer is a good part of a recovery's step, more the smaller the student is; the files that
    the run has made of the original mostly answer faster.

    Args:
        choice: precision, layout, threads and loading processes.
        taught_by: `the network`, or the stage of the file.
        teacher: answers a batch.
    """

    choice: Choice
    taught_by: str
    teacher: Teacher


def teaching(run: Run, files: Sequence[File]) -> Teaching:
    """Measure how a recovery computes fastest, and which of the original and `files` answers fastest.

    A file teaches where its answers have the network's form and `FAITHFUL_DB`, and where training is on the CPU. A
    batch that it does not take (of another length than it was exported with) is answered by the network.

    Args:
        run: of which this is a stage.
        files: made of the original, the plainest first.
    """

    def make(folder: Path) -> None:
        settings = run.settings
        distilling = DistillConfig(fit=fit_config(settings))
        objective = distillation_objective(run.model, run.workload.task, distilling)
        data = training_data(run.workload, settings)
        choice = setting_for(run.model, data, objective, distilling.fit)
        taught_by, found = NETWORK, dict[str, dict[str, float]]()
        if fabric_for("fp32").device.type == "cpu":
            size = settings.batch_size
            batches = list(loader(data, size, model=run.model, seed=settings.seed, limit=LOOKS * size))
            with on_threads(choice.threads):
                taught_by, found = quickest(run, files, batches, choice)
        write_json(folder / "teaching.json", {"choice": asdict(choice), "taught_by": taught_by, "teachers": found})

    key = {
        "files": [file.sha256 for file in files],
        "settings": {name: getattr(run.settings, name) for name in ("batch_size", "augment", "optimizer")},
    }
    about = json.loads((run.stage("teaching", key, make) / "teaching.json").read_text())
    taught_by, choice = about["taught_by"], Choice(**about["choice"])
    file = next((file for file in files if file.stage == taught_by), None)
    return Teaching(
        choice=choice,
        taught_by=taught_by,
        teacher=run.model if file is None else file_teacher(run, file, choice),
    )


def quickest(
    run: Run, files: Sequence[File], batches: Sequence[Batch], choice: Choice
) -> tuple[str, dict[str, dict[str, float]]]:
    """The teacher that answers `batches` fastest under `choice`, and what was measured of each."""
    asked, found = {NETWORK: network_teacher(run, choice)}, dict[str, dict[str, float]]()
    truth = [asked[NETWORK](batch) for batch in batches]
    for file in files:
        teacher = file_teacher(run, file, choice)
        db = min(likeness_db(answers, teacher(batch)) for answers, batch in zip(truth, batches, strict=True))
        found[file.stage] = {"sqnr_db": db}
        if db >= FAITHFUL_DB:
            asked[file.stage] = teacher
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
    return best, found


def network_teacher(run: Run, choice: Choice) -> Callable[[Batch], Any]:
    """The original as it answers within a training that computes so."""
    frozen = Frozen(run.model)
    layout = torch.channels_last if choice.channels_last else None

    def answer(batch: Batch) -> Any:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=choice.precision == "bf16"):
            return frozen(batch.to(memory_format=layout))[0]

    return answer


def file_teacher(run: Run, file: File, choice: Choice) -> Callable[[Batch], Any]:
    """A file of the original that answers in the network's form; batches that it does not take the network answers.

    Where it has another number of tensors than the network, its answer is a tuple of them.
    """
    target = run.settings.target if "plan" in file.details else "any"
    ask = onnx_teacher(file.path, file.spec, target=target, threads=choice.threads)
    network = Frozen(run.model)
    form = pytree.tree_flatten(network(run.workload.example(2))[0])

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
