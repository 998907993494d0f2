"""The verb `explain`: all that applies to a workload and its files, and what does not, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from edgekit.errors import DataError, EdgekitError
from edgekit.explain.attention import Attention, attention
from edgekit.explain.concepts import ConceptScore, inputs_of, tcav
from edgekit.explain.drift import Drift, drift
from edgekit.explain.gradients import Gradients, gradients
from edgekit.explain.layers import last_hidden, last_spatial
from edgekit.explain.occlusion import mean_fill
from edgekit.explain.samples import draw
from edgekit.progress import Progress, silent
from edgekit.spec import IOSpec
from edgekit.store import write_atomic, write_json
from edgekit.workload import Batch, Workload, loader

GRADIENT_SAMPLES = 16
"""Of the explained samples, so many get maps by gradients and attention."""
POOL_SAMPLES, CLASS_SAMPLES, CLASSES, CLASS_AT_LEAST = 512, 32, 10, 4
"""For concepts: samples that counter-examples are drawn from and classes are filled from, at most so many of a class,
at most so many classes, and at least so many samples of each."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explanation:
    """What was found. `edgekit.explain` documents the JSON.

    Args:
        drift: occlusion maps of the files, and how far they agree.
        gradients: attribution maps of the PyTorch modules; None where they do not apply.
        attention: None where the network has none.
        concepts: TCAV scores; empty without concepts.
        notes: what does not apply, and why.
    """

    drift: Drift
    gradients: Gradients | None
    attention: Attention | None
    concepts: Sequence[ConceptScore]
    notes: Sequence[str] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form without the maps."""
        return {
            "drift": self.drift.to_dict(),
            "gradients": None if self.gradients is None else self.gradients.to_dict(),
            "attention": None if self.attention is None else self.attention.to_dict(),
            "concepts": [each.to_dict() for each in self.concepts],
            "notes": list(self.notes),
        }

    def broken(self, least: float) -> tuple[str, ...]:
        """The files whose mean correlation is below `least`, or that no sample says anything of, in words."""
        return tuple(
            f"{each.file}: no sample that both get right"
            if each.correlation is None
            else f"{each.file}: rank correlation {each.correlation.value:.3f} is below {least:g}"
            for each in self.drift.files
            if each.correlation is None or each.correlation.value < least
        )

    def save(self, folder: Path, workload: Workload, *, pictures: int = 8) -> list[Path]:
        """Write `explain.json` and, of the samples with the largest drift first, side-by-side pictures; their paths.

        Raises:
            StoreError: the folder cannot be written.
        """
        from edgekit.explain.pictures import draw_attention, side_by_side

        write_json(folder / "explain.json", self.to_dict())
        order = sorted(
            range(len(self.drift.samples)),
            key=lambda index: min(self.drift.samples[index].correlations.values(), default=1.0),
        )
        written = []
        for index in order[:pictures]:
            sample = self.drift.samples[index].sample.index
            written.append(folder / f"sample-{sample}.png")
            write_atomic(
                written[-1],
                side_by_side(self.drift, self.gradients, index, labels=workload.labels, preprocessing=workload.image),
            )
            if self.attention is not None and index < len(self.attention.maps):
                written.append(folder / f"attention-{sample}.png")
                write_atomic(written[-1], draw_attention(self.attention, index, f"sample {sample}"))
        return written


def explain(
    workload: Workload,
    files: Mapping[str, Path],
    *,
    spec: IOSpec,
    data: Dataset[Any],
    samples: int = 64,
    window: int | None = None,
    stride: int | None = None,
    value: float | None = None,
    compressed: nn.Module | None = None,
    layer: str | None = None,
    concepts: Mapping[str, Dataset[Any]] | None = None,
    repetitions: int = 20,
    time_s: float | None = None,
    provider: str = "cpu",
    threads: int = 1,
    seed: int = 0,
    progress: Progress = silent,
) -> Explanation:
    """Say whether compressed files are right for the same reasons as the original, the first of `files`.

    Args:
        workload: model, data, task.
        files: ONNX files by name.
        spec: inputs and outputs of all of them.
        data: what is explained; a part of the workload's, mostly.
        samples: at most so many, evenly spaced.
        window: see `drift`.
        stride: likewise.
        value: likewise; also the baseline of integrated gradients.
        compressed: the pruned and recovered module, where there is one. Gradients, attention and concepts need it: a
            file has none, and int8 alone changes no module.
        layer: for Grad-CAM and concepts, a module's name; found without it.
        concepts: examples by name, of the same inputs as the data.
        repetitions: sets of random counter-examples.
        time_s: for the occlusion; see `drift`.
        provider: `cpu`, `cuda` or `tensorrt`.
        threads: intra-op threads.
        seed: of every draw.
        progress: told all along.

    Raises:
        EdgekitError: data, files and model do not fit each other, or cannot be explained at all; the text says why.
    """
    original = workload.model()
    drawn = draw(data, spec, samples, signature=original, seed=seed)
    found = drift(
        files,
        drawn,
        workload.task,
        spec=spec,
        window=window,
        stride=stride,
        value=value,
        time_s=time_s,
        provider=provider,
        threads=threads,
        seed=seed,
        progress=progress,
    )
    modules = {"original": original} if compressed is None else {"original": original, "compressed": compressed}
    notes = [] if compressed is not None else [WITHOUT_MODULE]
    chosen = found.samples[:GRADIENT_SAMPLES]
    of_gradients: Gradients | None = None
    refused = _no_gradients(found, len(spec.inputs))
    if refused:
        notes.append(refused)
    elif chosen:
        inputs = [each.feeds[found.input] for each in drawn]
        of_gradients = gradients(
            modules,
            chosen,
            found.grid,
            fill=mean_fill(inputs, found.grid.kind) if value is None else np.asarray(value),
            centred=workload.task.name == "classification",
            layer=layer if found.grid.kind == "image" else None,
            seed=seed,
            progress=progress,
        )
    of_attention = attention(modules, [each.sample.batch for each in chosen], seed=seed, progress=progress)
    if of_attention is None:
        notes.append("no attention maps: the network has no attention")
    scores: list[ConceptScore] = []
    if concepts:
        scores = _concepts(
            workload, modules, data, concepts, layer=layer, repetitions=repetitions, seed=seed, progress=progress
        )
    return Explanation(drift=found, gradients=of_gradients, attention=of_attention, concepts=scores, notes=notes)


WITHOUT_MODULE = (
    "gradients, attention and concepts are the original's alone: no compressed module was given (--pruned); int8 alone "
    "changes none, and only occlusion sees it"
)


def _no_gradients(found: Drift, inputs: int) -> str:
    """Why gradients say nothing about the input; empty if they do."""
    if found.grid.kind == "tokens":
        return "saliency, integrated gradients and Grad-CAM do not apply: tokens are no numbers that one could nudge"
    return "" if inputs == 1 else "saliency, integrated gradients and Grad-CAM are made for one input, not several"


def _concepts(
    workload: Workload,
    modules: Mapping[str, nn.Module],
    data: Dataset[Any],
    concepts: Mapping[str, Dataset[Any]],
    *,
    layer: str | None,
    repetitions: int,
    seed: int,
    progress: Progress,
) -> list[ConceptScore]:
    original = modules["original"]
    by_class = _by_class(data, original, seed)
    first = Batch((next(iter(by_class.values()))[:1],), {}, None)
    layers = {
        name: layer or last_spatial(module, first) or last_hidden(module, first) for name, module in modules.items()
    }
    missing = [name for name, each in layers.items() if each is None]
    if missing:
        raise EdgekitError(
            f"no hidden layer in the {missing[0]} network", where="--concept", rule="a layer below the output"
        )
    return tcav(
        modules,
        {name: str(each) for name, each in layers.items()},
        {name: inputs_of(each, original, seed=seed) for name, each in concepts.items()},
        inputs_of(workload.splits.calibration, original, POOL_SAMPLES, seed=seed),
        by_class,
        repetitions=repetitions,
        seed=seed,
        progress=progress,
    )


def _by_class(data: Dataset[Any], model: nn.Module, seed: int) -> dict[int, Tensor]:
    """Samples of the most frequent classes, by their labels."""
    parts: dict[int, list[Tensor]] = {}
    for batch in loader(data, 1, model=model, seed=seed, limit=POOL_SAMPLES):
        leaves = batch.leaves()
        if len(leaves) != 1 or not isinstance(batch.target, Tensor) or batch.target.numel() != 1:
            raise DataError(
                f"{len(leaves)} inputs and a target of {getattr(batch.target, 'shape', None)}",
                where="--concept",
                rule="concepts are tested for classes: one input and one label for each sample",
            )
        parts.setdefault(int(batch.target), []).append(leaves[0])
    frequent = sorted(parts, key=lambda label: (-len(parts[label]), label))[:CLASSES]
    kept = {
        label: torch.cat(parts[label][:CLASS_SAMPLES])
        for label in sorted(frequent)
        if len(parts[label]) >= CLASS_AT_LEAST
    }
    if not kept:
        raise DataError(f"no class with {CLASS_AT_LEAST} samples", where="--concept", rule="several samples of a class")
    return kept
