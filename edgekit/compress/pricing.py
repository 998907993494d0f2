"""What each pruning decision costs in accuracy and gives in latency, both measured, one decision at a time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from edgekit.compress.ladder import Choice, Rung, ladder
from edgekit.compress.run import Run
from edgekit.compress.stages import MODEL
from edgekit.distill import reestimate_batchnorm
from edgekit.errors import EdgekitError
from edgekit.export import export, mac_count
from edgekit.progress import Step
from edgekit.prune import Action, Coupling, apply, combine, inside, prune
from edgekit.quantize import quantize
from edgekit.spec import Feeds
from edgekit.validate import calibration_feeds, latency_table
from edgekit.workload import Batch, Workload, loader

DAMAGE_SAMPLES = 512
DAMAGE_BATCH = 128
SPEED_CALIBRATION = 32
MEASURE_S_PER_FILE = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """All decisions with their prices, and the ladder that they make.

    `baseline_ms` is the latency of the unpruned int8 file in the same interleaved measurement; `skipped` names the
    decisions that were not priced, and why.
    """

    choices: tuple[Choice[Action], ...]
    rungs: tuple[Rung[Action], ...]
    baseline_ms: float
    skipped: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "baseline_ms": self.baseline_ms,
            "choices": [choice.to_dict() for choice in self.choices],
            "rungs": [rung.to_dict() for rung in self.rungs],
            "skipped": [{"text": text, "reason": reason} for text, reason in self.skipped],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], actions: Mapping[str, Action]) -> Self:
        """Read what `to_dict` wrote; `actions` are the same decisions again, by their text."""
        choices = {row["text"]: Choice(action=actions[row["text"]], **row) for row in data["choices"]}
        return cls(
            baseline_ms=data["baseline_ms"],
            choices=tuple(choices.values()),
            rungs=tuple(
                Rung(**{**row, "choices": tuple(choices[text] for text in row["choices"])}) for row in data["rungs"]
            ),
            skipped=tuple((row["text"], row["reason"]) for row in data["skipped"]),
        )


def price(run: Run, actions: Sequence[Action], coupling: Coupling, *, time_s: float) -> Priced:
    """Apply each action alone; take the loss after BN re-estimation, and the latency of its int8 file.

    Actions that leave the same shapes and as many MACs cost the same in ONNX Runtime, so one file stands for all of
    them: in a residual network the blocks of a stage are alike. All files are timed in one interleaved measurement.
    Those that save most are measured first; those whose files are not made within `time_s` are skipped, and said to be.
    """
    workload, original, example = run.workload, run.model, run.workload.example(2)
    batches = _damage_batches(workload, original)
    reference = _loss(workload, reestimate_batchnorm(original, batches), batches)
    tried: dict[str, _Tried] = {}
    skipped: list[tuple[str, str]] = []
    for index, action in enumerate(actions):
        run.progress(Step("pricing decisions", index, len(actions)))
        try:
            pruned = prune(original, example, combine(coupling, [action])).model
        except EdgekitError as error:
            skipped.append((action.text, error.problem))
            continue
        damage = _loss(workload, reestimate_batchnorm(pruned, batches), batches) - reference
        tried[action.text] = _Tried(
            action=action, macs=mac_count(pruned, example), shapes=_shapes(pruned), damage=damage
        )
    with tempfile.TemporaryDirectory(prefix="edgekit-pricing-") as temporary:
        root = Path(temporary)
        first, feeds = _int8_file(original, run, root / "original")
        files = {"original": first}
        deadline = time.monotonic() + time_s
        # What saves most first: if the time ends, it ends among the decisions that matter least.
        for done, each in enumerate(sorted(tried.values(), key=lambda each: each.macs)):
            run.progress(Step("exporting decisions", done, len(tried)))
            key = f"{each.macs} {each.shapes}"
            if key not in files and time.monotonic() < deadline:
                pruned = prune(original, example, combine(coupling, [each.action])).model
                files[key], _ = _int8_file(pruned, run, root / str(len(files)))
        latency = _latencies(files, feeds, run)
        sizes = {name: path.stat().st_size for name, path in files.items()}
    baseline = latency["original"]
    choices = []
    for each in tried.values():
        key = f"{each.macs} {each.shapes}"
        if key not in latency:
            skipped.append((each.action.text, "no time left for measuring it"))
            continue
        choices.append(
            Choice(
                action=each.action,
                subject=each.action.subject,
                text=each.action.text,
                damage=each.damage,
                gain_ms=baseline - latency[key],
                gain_bytes=sizes["original"] - sizes[key],
            )
        )
    run.progress(Step("pricing decisions", len(actions), len(actions)))

    def joint_damage(taken: Sequence[Choice[Action]]) -> float:
        pruned = apply(original, combine(coupling, [choice.action for choice in taken]))
        return _loss(workload, reestimate_batchnorm(pruned, batches), batches) - reference

    rungs = ladder(
        choices,
        baseline_ms=baseline,
        baseline_bytes=sizes["original"],
        max_bytes=run.budget.max_size_bytes,
        within=inside(coupling),
        joint_damage=joint_damage,
    )
    return Priced(choices=tuple(choices), rungs=tuple(rungs), baseline_ms=baseline, skipped=tuple(skipped))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """One action applied alone: what is left of the model, and what it lost."""

    action: Action
    macs: int
    shapes: str
    damage: float


def _damage_batches(workload: Workload, model: nn.Module) -> list[Batch]:
    return list(loader(workload.splits.calibration, DAMAGE_BATCH, model=model, limit=DAMAGE_SAMPLES))


@torch.no_grad()
def _loss(workload: Workload, model: nn.Module, batches: Sequence[Batch]) -> float:
    total = sum(float(workload.task.loss(batch.call(model), batch.target)) * len(batch) for batch in batches)
    return total / sum(map(len, batches))


def _shapes(model: nn.Module) -> str:
    return " ".join(sorted(str(tuple(value.shape)) for value in model.state_dict().values()))


def _int8_file(model: nn.Module, run: Run, folder: Path) -> tuple[Path, Feeds]:
    """An int8 file of `model`, and one sample for it."""
    folder.mkdir()
    exported = export(model, run.workload.example(2), folder / "float.onnx", dynamic=run.workload.dynamic or "batch")
    feeds = list(calibration_feeds(run.workload, exported.spec, SPEED_CALIBRATION))
    # Ranges do not change the speed: the cheapest will do.
    path = quantize(
        exported.path,
        feeds,
        folder / MODEL,
        spec=exported.spec,
        target=run.settings.target,
        ranges="minmax",
        bias_correction=False,
    ).path
    return path, {name: array[:1] for name, array in feeds[0].items()}


def _latencies(files: dict[str, Path], feeds: Feeds, run: Run) -> dict[str, float]:
    timings = latency_table(
        files,
        feeds,
        baseline="original",
        threads=run.settings.threads,
        time_s=MEASURE_S_PER_FILE * len(files),
        seed=run.settings.seed,
        progress=run.progress,
    )
    base = timings["original"].latency.p50.value
    # By the paired ratio and not by each file's own median, which drifts with the machine.
    return {name: base / timing.ratio.value for name, timing in timings.items()}
