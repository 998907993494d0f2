"""Everything that is claimed about a file, measured on the file itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from edgekit.device.footprint import Footprint, footprint
from edgekit.device.session import provider_name
from edgekit.errors import EdgekitError, ProviderError, did_you_mean
from edgekit.progress import Progress, Step, silent
from edgekit.spec import Feeds, IOSpec
from edgekit.tasks import Task
from edgekit.validate.feeds import feeds_of, fixed_batch, signature_of
from edgekit.validate.placement import Placement, nodes_by_provider
from edgekit.validate.scoring import Comparison, Score, compare, score
from edgekit.validate.timing import Timing, latency_table
from edgekit.workload import loader

MEASURED = "measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One file on one provider.

    Args:
        file: the file's name in the call of `validate`.
        provider: the provider that was asked for.
        score: the metric, with its interval.
        comparison: drop and agreement against the baseline on the same samples.
        timing: latency, its ratio to the baseline on the same provider in the same rounds, the verdict.
        footprint: load and first run in milliseconds, peak memory and file size in bytes, from a fresh process.
        placement: nodes per provider, and operators after ONNX Runtime's fusions.
    """

    file: str
    provider: str
    score: Score
    comparison: Comparison
    timing: Timing
    footprint: Footprint
    placement: Placement

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "file": self.file,
            "provider": self.provider,
            "status": MEASURED,
            "score": self.score.to_dict(),
            **self.comparison.to_dict(),
            **self.timing.to_dict(),
            **self.footprint.to_dict(),
            "nodes": self.placement.to_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """A provider that was asked for and is not here, and why."""

    provider: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {"provider": self.provider, "status": f"unavailable: {self.reason}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What `validate` found: a row for each file on each provider that is here, one for each provider that is not."""

    baseline: str
    rows: tuple[Row, ...]
    unavailable: tuple[Unavailable, ...]

    def row(self, file: str, provider: str = "cpu") -> Row:
        """The row of one file on one provider.

        Raises:
            EdgekitError: there is none.
        """
        for row in self.rows:
            if (row.file, row.provider) == (file, provider):
                return row
        raise EdgekitError(
            f"no row for {file!r} on {provider!r}",
            where="Validation.row",
            rule=f"one of {', '.join(f'{row.file} on {row.provider}' for row in self.rows)}",
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        rows = [row.to_dict() for row in self.rows]
        return {"baseline": self.baseline, "rows": [*rows, *(row.to_dict() for row in self.unavailable)]}


def validate(
    files: Mapping[str, Path],
    data: Dataset[Any],
    task: Task,
    *,
    spec: IOSpec,
    baseline: str,
    target: str = "any",
    providers: Sequence[str] = ("cpu",),
    threads: int = 1,
    time_s: float = 10.0,
    batch_size: int = 128,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Validation:
    """Score, compare, time and weigh `files` against `baseline`, on every provider.

    Args:
        files: by name; all have the inputs and outputs of `spec`.
        data: map-style data with targets; the first sample is what is timed.
        task: the metric.
        spec: inputs and outputs.
        baseline: the name of the file that drops and ratios refer to, on the same provider.
        target: the kind of CPU that int8 files are for, such as `x86-vnni`: scores are those of such a device,
            latencies those of this machine; `any` takes both here.
        providers: `cpu`, `cuda`, `tensorrt`; one that is not in this onnxruntime gets a row that says so.
        threads: intra-op threads.
        time_s: seconds of timing for each provider.
        batch_size: samples a run while scoring; timing is at batch 1.
        limit: score only so many samples.
        seed: of everything random.
        progress: told all along.

    Raises:
        DataError: the data do not fit, or outputs are not finite.
        ProviderError: a provider is unknown, or a session fell back to another one.
    """
    if baseline not in files:
        raise EdgekitError(
            f"no file {baseline!r}",
            where="baseline",
            rule=f"one of {', '.join(files)}",
            way_out=did_you_mean(baseline, files),
        )
    one = first_feeds(data, spec)
    rows: list[Row] = []
    unavailable: list[Unavailable] = []
    for provider in providers:
        missing = _missing(provider)
        if missing:
            unavailable.append(Unavailable(provider=provider, reason=missing))
            continue
        scores: dict[str, Score] = {}
        placements: dict[str, Placement] = {}
        for index, (name, path) in enumerate(files.items()):
            progress(Step(f"validating on {provider}", index, len(files)))
            placements[name] = nodes_by_provider(path, provider, threads, feeds=one)
            scores[name] = score(
                path,
                data,
                task,
                spec=spec,
                target=target,
                provider=provider,
                threads=threads,
                batch_size=batch_size,
                limit=limit,
                seed=seed,
                progress=progress,
            )
        progress(Step(f"validating on {provider}", len(files), len(files)))
        timings = latency_table(
            files,
            one,
            baseline=baseline,
            provider=provider,
            threads=threads,
            time_s=time_s,
            seed=seed,
            progress=progress,
        )
        rows += [
            Row(
                file=name,
                provider=provider,
                score=scores[name],
                comparison=compare(scores[name], scores[baseline], task, seed=seed),
                timing=timings[name],
                footprint=footprint(path, one, provider=provider, threads=threads),
                placement=placements[name],
            )
            for name, path in files.items()
        ]
    return Validation(baseline=baseline, rows=tuple(rows), unavailable=tuple(unavailable))


def first_feeds(data: Dataset[Any], spec: IOSpec, samples: int = 1) -> Feeds:
    """The first samples of `data` as inputs; as many as the file is fixed to, if it is."""
    batches = loader(data, fixed_batch(spec) or samples, model=signature_of(spec))
    return feeds_of(next(iter(batches)), spec)


def _missing(provider: str) -> str:
    """Why a known provider cannot be had here; empty if it can.

    Raises:
        ProviderError: nobody knows it.
    """
    try:
        provider_name(provider)
    except ProviderError as error:
        if error.problem.startswith("unknown provider"):
            raise
        return f"{error.problem} ({error.rule})"
    return ""
