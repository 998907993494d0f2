"""The metric, on the real ONNX file in ONNX Runtime, sample by sample."""

from __future__ import annotations

import copy
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import Dataset

from edgekit import stats
from edgekit.device.session import open_session
from edgekit.device.variants import exact_config
from edgekit.errors import DataError, StoreError
from edgekit.progress import Progress, Step, silent
from edgekit.spec import Feeds, IOSpec
from edgekit.stats import Estimate
from edgekit.store import write_atomic, write_json
from edgekit.tasks import Arrays, Task, outputs_of
from edgekit.validate.feeds import feeds_of, fixed_batch, padded, signature_of
from edgekit.workload import Batch, Loader, Signature, loader

KEPT_BYTES = 256_000_000
"""Outputs kept for pairing; of larger ones the first samples are kept."""

_ARRAYS, _RECORD = "score.npz", "score.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Score:
    """What a model scores on a data set.

    Args:
        metric: in the task's unit (points for accuracies), with its bootstrap interval.
        name: the metric's name.
        unit: the metric's unit.
        higher_is_better: whether a larger metric is the better one.
        per_sample: float64 [n], in the metric's unit: their mean is the metric.
        outputs: the model's outputs for the first samples, as many as 256 MB hold; for agreement with another model.
        target: what these samples' answers should be; None where that is no single array.
    """

    metric: Estimate
    name: str
    unit: str
    higher_is_better: bool
    per_sample: np.ndarray
    outputs: Arrays
    target: np.ndarray | None = None

    @property
    def n(self) -> int:
        """Samples that were scored."""
        return len(self.per_sample)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form without the samples."""
        return {
            "metric": self.metric.to_dict(),
            "name": self.name,
            "unit": self.unit,
            "higher_is_better": self.higher_is_better,
            "n": self.n,
        }

    def save(self, folder: Path) -> None:
        """Write the score with its samples into `folder`.

        Raises:
            StoreError: the folder cannot be written.
        """
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {f"output_{index}": array for index, array in enumerate(self.outputs)}
        if self.target is not None:
            arrays["target"] = self.target
        np.savez_compressed(buffer, per_sample=self.per_sample, **arrays)
        write_atomic(folder / _ARRAYS, buffer.getvalue())
        write_json(folder / _RECORD, self.to_dict())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            StoreError: it is not there, or not whole.
        """
        try:
            record = json.loads((folder / _RECORD).read_text())
            with np.load(io.BytesIO((folder / _ARRAYS).read_bytes()), allow_pickle=False) as arrays:
                per_sample = arrays["per_sample"]
                count = sum(name.startswith("output_") for name in arrays.files)
                outputs = tuple(arrays[f"output_{index}"] for index in range(count))
                target = arrays["target"] if "target" in arrays.files else None
            return cls(
                metric=Estimate(**record["metric"]),
                name=str(record["name"]),
                unit=str(record["unit"]),
                higher_is_better=bool(record["higher_is_better"]),
                per_sample=per_sample,
                outputs=outputs,
                target=target,
            )
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise StoreError(
                f"no whole score: {error}",
                where=str(folder),
                rule="what Score.save wrote",
                way_out="score the file again",
            ) from error


def score(
    model: Path,
    data: Dataset[Any],
    task: Task,
    *,
    spec: IOSpec,
    signature: Callable[..., Any] | Signature | None = None,
    target: str = "any",
    provider: str = "cpu",
    threads: int = 1,
    batch_size: int = 128,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Score:
    """Score an ONNX file in ONNX Runtime, on the provider that is asked for.

    Args:
        model: the file.
        data: map-style data with targets.
        task: the metric.
        spec: the file's inputs and outputs.
        signature: the PyTorch model, or its signature, by which items become inputs; without it the names in `spec`
            decide.
        target: the kind of CPU that the file is for, such as `x86-vnni`: on another kind its numbers are still those of
            its own; `any` takes those of this machine.
        provider: `cpu`, `cuda` or `tensorrt`.
        threads: intra-op threads; 0 lets ONNX Runtime choose.
        batch_size: samples a run; a file with a fixed batch size is fed that many, the last run filled up.
        limit: score only so many samples, evenly spaced.
        seed: of the bootstrap, and of data that draw random numbers.
        progress: told after each batch.

    Raises:
        DataError: no targets, or targets or outputs that do not fit the task, or outputs that are NaN or infinite.
        ProviderError: the provider is unknown, absent, or did not take the model.
    """
    answer = answers_of(model, spec=spec, target=target, provider=provider, threads=threads)
    size = fixed_batch(spec) or batch_size
    batches = loader(data, size, model=signature or signature_of(spec), limit=limit, seed=seed)
    return _scored(
        lambda batch: answer(feeds_of(batch, spec)), batches, task, where=str(model), seed=seed, progress=progress
    )


def answers_of(
    model: Path,
    *,
    spec: IOSpec,
    target: str = "any",
    provider: str = "cpu",
    threads: int = 1,
    config: Mapping[str, str] | None = None,
) -> Callable[[Feeds], Arrays]:
    """What an ONNX file answers in ONNX Runtime; a file with a fixed batch size is fed that many, filled up.

    `target` as for `score`; `config` are more of ONNX Runtime's session configuration entries.

    Raises:
        ProviderError: the provider is unknown, absent, or did not take the model.
    """
    session = open_session(model, provider=provider, threads=threads, config={**exact_config(target), **(config or {})})
    size = fixed_batch(spec)

    def answer(feeds: Feeds) -> Arrays:
        samples = len(next(iter(feeds.values())))
        outputs = session.run(None, padded(feeds, size) if size else dict(feeds))
        return tuple(output[:samples] for output in outputs)

    return answer


def score_torch(
    model: nn.Module,
    data: Dataset[Any],
    task: Task,
    *,
    batch_size: int = 128,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Score:
    """Score a PyTorch model in eager mode, in evaluation; `model` is copied.

    Raises:
        DataError: as for `score`.
    """
    twin = copy.deepcopy(model).eval()
    device = next((parameter.device for parameter in twin.parameters()), torch.device("cpu"))

    def run(batch: Batch) -> Arrays:
        with torch.no_grad():
            outputs = outputs_of(batch.to(device=device).call(twin))
        return tuple(output.float().cpu().numpy() for output in outputs)

    batches = loader(data, batch_size, model=twin, limit=limit, seed=seed)
    return _scored(run, batches, task, where=type(model).__name__, seed=seed, progress=progress)


def _scored(
    run: Callable[[Batch], Arrays],
    batches: Loader,
    task: Task,
    *,
    where: str,
    seed: int,
    progress: Progress,
) -> Score:
    samples: list[np.ndarray] = []
    kept: list[Arrays] = []
    targets: list[Any] = []
    kept_bytes, done = 0, 0
    for index, batch in enumerate(batches):
        place = f"{where}, samples {done} to {done + len(batch) - 1}"
        outputs = run(batch)
        _finite(outputs, place)
        target = target_of(batch, place)
        task.check(outputs, target)
        values = np.asarray(task.per_sample(outputs, target), dtype=np.float64) * task.scale
        if values.shape != (len(batch),):
            raise DataError(
                f"per_sample gave shape {list(values.shape)} for {len(batch)} samples",
                where=f"task {task.name}",
                rule="one value for each sample",
            )
        _finite([values], f"task {task.name}, {place}")
        samples.append(values)
        if kept_bytes < KEPT_BYTES:
            kept.append(outputs)
            targets.append(target)
            kept_bytes += sum(output.nbytes for output in outputs)
        done += len(batch)
        progress(Step("scoring", index + 1, len(batches), {task.metric: float(np.mean(np.concatenate(samples)))}))
    if not samples:
        raise DataError("there is nothing to score", where=where, rule="at least one sample")
    per_sample = np.concatenate(samples)
    return Score(
        metric=stats.mean(per_sample, seed=seed),
        name=task.metric,
        unit=task.unit,
        higher_is_better=task.higher_is_better,
        per_sample=per_sample,
        outputs=tuple(np.concatenate(parts) for parts in zip(*kept, strict=True)),
        target=_together(targets),
    )


def _together(targets: Sequence[Any]) -> np.ndarray | None:
    """The targets of all batches as one array [n, ...]; None where they are several, or of different shapes."""
    shapes = {np.shape(each)[1:] for each in targets if isinstance(each, np.ndarray)}
    return np.concatenate(targets) if len(shapes) == 1 and all(isinstance(t, np.ndarray) for t in targets) else None


def target_of(batch: Batch, place: str) -> Any:
    """The targets of `batch` as arrays.

    Raises:
        DataError: there are none; `place` says where.
    """
    if batch.target is None:
        raise DataError(
            "the data carry no targets",
            where=place,
            rule="(x, y) items, or the original model as the reference",
            way_out="name a task whose reference is the original model, such as imitation()",
        )
    return pytree.tree_map(
        lambda value: value.numpy() if isinstance(value, Tensor) else np.asarray(value), batch.target
    )


def _finite(values: Sequence[np.ndarray], place: str) -> None:
    for index, value in enumerate(values):
        bad = int(np.size(value) - np.isfinite(value).sum())
        if bad:
            raise DataError(
                f"output {index}: {bad} of {np.size(value)} values are NaN or infinite",
                where=place,
                rule="every output is finite",
                way_out="look for NaN in these samples, and for overflow in the model (fp16 ends at 65504)",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A candidate against a reference on the same samples.

    Args:
        drop: how much worse the candidate's metric is, in its unit; negative where it is better. The interval is the
            bootstrap over paired differences, hence narrower than the metrics' own.
        agreement: how many of the samples both answer alike, in percent.
        fixed: samples on which the candidate is better.
        broken: samples on which it is worse.
    """

    drop: Estimate
    agreement: Estimate
    fixed: int
    broken: int

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "drop": self.drop.to_dict(),
            "agreement": self.agreement.to_dict(),
            "fixed": self.fixed,
            "broken": self.broken,
        }


def compare(candidate: Score, reference: Score, task: Task, *, seed: int = 0) -> Comparison:
    """Pair two scores sample by sample.

    Raises:
        DataError: they are not scores of the same samples by the same metric.
    """
    if candidate.name != reference.name or candidate.n != reference.n:
        raise DataError(
            f"{candidate.name} of {candidate.n} samples against {reference.name} of {reference.n}",
            where="compare",
            rule="both are scored on the same samples by the same metric",
            way_out="score both with the same data, task and limit",
        )
    worse = reference.per_sample - candidate.per_sample
    if not candidate.higher_is_better:
        worse = -worse
    both = min(len(candidate.outputs[0]), len(reference.outputs[0]))
    alike = task.agreement(
        tuple(output[:both] for output in candidate.outputs), tuple(output[:both] for output in reference.outputs)
    )
    return Comparison(
        drop=stats.mean(worse, seed=seed),
        agreement=stats.mean(100 * np.asarray(alike, dtype=np.float64), seed=seed),
        fixed=int((worse < 0).sum()),
        broken=int((worse > 0).sum()),
    )
