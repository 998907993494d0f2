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

from edgekit.compress.ladder import Choice
from edgekit.compress.settings import Settings
from edgekit.compress.stages import MODEL, calibration_feeds
from edgekit.distill import reestimate_batchnorm
from edgekit.errors import EdgekitError
from edgekit.export import export, mac_count
from edgekit.progress import Progress, Step
from edgekit.prune import Action, Coupling, combine, prune
from edgekit.quantize import quantize
from edgekit.spec import Feeds
from edgekit.validate import latency_table
from edgekit.workload import Batch, Workload, loader

DAMAGE_SAMPLES = 512
DAMAGE_BATCH = 128
SPEED_CALIBRATION = 32
MEASURE_S_PER_FILE = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """All decisions with their prices.

    `baseline_ms` is the latency of the unpruned int8 file in the same interleaved measurement; `skipped` names the
    decisions that were not priced, and why.
    """

    choices: tuple[Choice[Action], ...]
    baseline_ms: float
    skipped: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "baseline_ms": self.baseline_ms,
            "choices": [choice.to_dict() for choice in self.choices],
            "skipped": [{"text": text, "reason": reason} for text, reason in self.skipped],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], actions: Mapping[str, Action]) -> Self:
        """Read what `to_dict` wrote; `actions` are the same decisions again, by their text."""
        return cls(
            baseline_ms=data["baseline_ms"],
            choices=tuple(Choice(action=actions[choice["text"]], **choice) for choice in data["choices"]),
            skipped=tuple((row["text"], row["reason"]) for row in data["skipped"]),
        )


def price(
    actions: Sequence[Action],
    coupling: Coupling,
    workload: Workload,
    settings: Settings,
    *,
    time_s: float,
    progress: Progress,
) -> Priced:
    """Apply each action alone; take the loss after BN re-estimation, and the latency of its int8 file.

    Actions that leave the same shapes and as many MACs cost the same in ONNX Runtime, so one file stands for all of them:
    in a residual network the blocks of a stage are alike. All files are timed in one interleaved measurement. Actions
    are taken up in the order given; those for which `time_s` does not suffice are skipped, and said to be.
    """
    original = workload.model()
    example = workload.example(2)
    batches = _damage_batches(workload, original)
    begin = time.monotonic()
    reference = _loss(workload, reestimate_batchnorm(original, batches), batches)
    damages: dict[int, float] = {}
    shapes_of: dict[int, str] = {}
    skipped: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory(prefix="edgekit-pricing-") as temporary:
        root = Path(temporary)
        first, feeds = _int8_file(original, workload, settings, root / "original")
        files = {"original": first}
        for index, action in enumerate(actions):
            progress(Step("pricing decisions", index, len(actions)))
            if time.monotonic() - begin > time_s:
                skipped.append((action.text, "no time left for measuring it"))
                continue
            try:
                pruned = prune(original, example, combine(coupling, [action])).model
                shapes = _shapes(pruned, example)
                if shapes not in files:
                    files[shapes], _ = _int8_file(pruned, workload, settings, root / str(len(files)))
            except EdgekitError as error:
                skipped.append((action.text, str(error)))
                continue
            shapes_of[index] = shapes
            damages[index] = _loss(workload, reestimate_batchnorm(pruned, batches), batches) - reference
        latency = _latencies(files, feeds, settings, progress)
        progress(Step("pricing decisions", len(actions), len(actions)))
    baseline = latency["original"]
    choices = tuple(
        Choice(
            action=actions[index],
            subject=actions[index].subject,
            text=actions[index].text,
            damage=damages[index],
            gain_ms=baseline - latency[shapes],
        )
        for index, shapes in shapes_of.items()
    )
    return Priced(choices=choices, baseline_ms=baseline, skipped=tuple(skipped))


def _damage_batches(workload: Workload, model: nn.Module) -> list[Batch]:
    return list(loader(workload.splits.calibration, DAMAGE_BATCH, model=model, limit=DAMAGE_SAMPLES))


@torch.no_grad()
def _loss(workload: Workload, model: nn.Module, batches: Sequence[Batch]) -> float:
    total = sum(float(workload.task.loss(batch.call(model), batch.target)) * len(batch) for batch in batches)
    return total / sum(map(len, batches))


def _shapes(model: nn.Module, example: Batch) -> str:
    shapes = sorted(str(tuple(value.shape)) for value in model.state_dict().values())
    return f"{mac_count(model, example)} {' '.join(shapes)}"


def _int8_file(model: nn.Module, workload: Workload, settings: Settings, folder: Path) -> tuple[Path, Feeds]:
    """An int8 file of `model`, and one sample for it."""
    folder.mkdir()
    exported = export(model, workload.example(2), folder / "float.onnx")
    feeds = list(calibration_feeds(workload, exported.spec, SPEED_CALIBRATION))
    # Ranges do not change the speed: the cheapest will do.
    path = quantize(
        exported.path,
        feeds,
        folder / MODEL,
        spec=exported.spec,
        target=settings.target,  # type: ignore[arg-type]  # Settings has checked it
        ranges="minmax",
        bias_correction=False,
    ).path
    return path, {name: array[:1] for name, array in feeds[0].items()}


def _latencies(
    files: dict[str, Path], feeds: Feeds, settings: Settings, progress: Progress
) -> dict[str, float]:
    timings = latency_table(
        files,
        feeds,
        baseline="original",
        threads=settings.threads,
        time_s=MEASURE_S_PER_FILE * len(files),
        seed=settings.seed,
        progress=progress,
    )
    base = timings["original"].latency.p50.value
    # By the paired ratio and not by each file's own median, which drifts with the machine.
    return {name: base / timing.ratio.value for name, timing in timings.items()}
