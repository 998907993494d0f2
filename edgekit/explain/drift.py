"""Explanation drift: do the original and the compressed file look at the same places when both are right?

Each map is an occlusion map of an ONNX file (`occlusion`); two maps of a sample are compared by Spearman's rank
correlation over the windows. How much of a difference is noise says the yardstick: the original against itself with
another, equally good way to occlude.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import stats
from edgekit.errors import DataError
from edgekit.explain.grid import Grid, Kind, grid_for, kind_of
from edgekit.explain.occlusion import Run, mean_fill, occlusion_map, runner
from edgekit.explain.samples import Sample, explained, right
from edgekit.progress import Progress, Step, silent
from edgekit.spec import IOSpec
from edgekit.stats import Estimate
from edgekit.tasks import Task

AT_LEAST = 8
"""So many samples are explained whatever the time says."""
WORST = 5
"""So many of the samples with the lowest correlation are named."""
BY_SHIFT = "the original against itself, the grid of windows shifted by half a stride"
BY_FILL = "the original against itself, covered parts filled with another sample's values"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explained:
    """A sample with its maps.

    Args:
        sample: the sample.
        output: the output that is explained: what the original answers.
        maps: by file, float64 [*grid]; positive where the covered part speaks for the output.
        answers: by file, the largest output.
        right: by file, whether the answer is right; None where the task cannot say.
        correlations: by compressed file, the rank correlation of its map with the original's.
    """

    sample: Sample
    output: int
    maps: Mapping[str, np.ndarray]
    answers: Mapping[str, int]
    right: Mapping[str, bool | None]
    correlations: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDrift:
    """One compressed file against the original.

    Args:
        file: its name.
        correlation: mean rank correlation over the samples that both answer right (over all, where the task cannot say
            what is right); None without such samples.
        both_right: how many there are.
        largest: the samples among them with the lowest correlation: `sample`, `output`, `correlation`.
    """

    file: str
    correlation: Estimate | None
    both_right: int
    largest: Sequence[Mapping[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "file": self.file,
            "correlation": None if self.correlation is None else self.correlation.to_dict(),
            "both_right": self.both_right,
            "largest_drift": [dict(each) for each in self.largest],
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drift:
    """Explanation drift of files against the first of them.

    Args:
        original: name of the first file.
        input: name of the input that is occluded.
        grid: the windows, of the first sample.
        fill: what covered parts become, in words.
        yardstick: mean rank correlation of the original with itself under `yardstick_by`, on the same samples.
        yardstick_by: how that was found.
        files: the others.
        samples: what was explained, with maps.
        asked: samples that were to be explained.
        original_right: how many of those that were looked at the original answers right.
        notes: what a reader must know.
    """

    original: str
    input: str
    grid: Grid
    fill: str
    yardstick: Estimate | None
    yardstick_by: str
    files: Sequence[FileDrift]
    samples: Sequence[Explained]
    asked: int
    original_right: int
    notes: Sequence[str] = field(default_factory=tuple)

    def file(self, name: str) -> FileDrift:
        """The row of one file."""
        return next(row for row in self.files if row.file == name)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form without the maps; `edgekit.explain` documents it."""
        return {
            "method": "occlusion",
            "original": self.original,
            "input": {"name": self.input, **self.grid.to_dict(), "fill": self.fill},
            "samples": {"asked": self.asked, "original_right": self.original_right, "explained": len(self.samples)},
            "yardstick": {
                "what": self.yardstick_by,
                "correlation": None if self.yardstick is None else self.yardstick.to_dict(),
            },
            "files": [each.to_dict() for each in self.files],
            "notes": list(self.notes),
        }


def drift(
    files: Mapping[str, Path],
    samples: Sequence[Sample],
    task: Task,
    *,
    spec: IOSpec,
    window: int | None = None,
    stride: int | None = None,
    value: float | None = None,
    time_s: float | None = None,
    provider: str = "cpu",
    threads: int = 1,
    seed: int = 0,
    progress: Progress = silent,
    clock: Callable[[], float] = time.monotonic,
) -> Drift:
    """Compare where files look by occlusion; the first file is the original.

    The maps explain what the original answers. Only samples that it answers right are occluded, and of those a file is
    judged by the ones that it answers right, too.

    Args:
        files: by name.
        samples: as `draw` gives them.
        task: says what is right.
        spec: inputs and outputs of all files; the first input is occluded.
        window: size of what is covered, in pixels, steps, features or tokens.
        stride: how far it moves.
        value: what a covered part becomes. Without it the mean of each channel or feature over `samples`; token 0.
        time_s: explain no further sample after so many seconds, but eight at least.
        provider: `cpu`, `cuda` or `tensorrt`.
        threads: intra-op threads.
        seed: of the bootstrap.
        progress: told after each sample.
        clock: seconds.

    Raises:
        DataError: the input is nothing that can be occluded in parts, or the output no row of scores.
    """
    name = spec.inputs[0].name
    kind = kind_of(spec.inputs[0], samples[0].feeds[name].ndim)
    runs = {file: runner(path, spec, provider=provider, threads=threads) for file, path in files.items()}
    original, *others = files
    fill = mean_fill([sample.feeds[name] for sample in samples], kind) if value is None else np.asarray(value)
    centred = task.name == "classification"
    begin = clock()
    found: list[Explained] = []
    again: list[float] = []
    notes: list[str] = []
    original_right = 0
    for done, sample in enumerate(samples, 1):
        if time_s is not None and len(found) >= AT_LEAST and clock() - begin > time_s:
            notes.append(f"time was up after {done - 1} of {len(samples)} samples")
            break
        grid = grid_for(kind, sample.feeds[name].shape, window=window, stride=stride)
        each = _explained(sample, runs, task, name=name, grid=grid, fill=fill, centred=centred)
        if each is not None:
            original_right += 1
            found.append(each)
            other = _other_way(
                runs[original],
                sample,
                samples,
                name=name,
                grid=grid,
                fill=fill,
                output=each.output,
                centred=centred,
            )
            again += [] if other is None else [spearman(each.maps[original], other)]
        figures = {file: _mean(found, file) for file in others if found}
        progress(Step("explaining", done, len(samples), figures))
    if found and any(value is None for value in found[0].right.values()):
        notes.append("nothing says what is right here: all samples are compared, not only those that both get right")
    first_grid = grid_for(kind, samples[0].feeds[name].shape, window=window, stride=stride)
    return Drift(
        original=original,
        input=name,
        grid=first_grid,
        fill=_fill_in_words(kind, value),
        yardstick=stats.mean(np.array(again), seed=seed) if again else None,
        yardstick_by=BY_FILL if first_grid.shifted() is None else BY_SHIFT,
        files=[_file_drift(file, found, seed) for file in others],
        samples=found,
        asked=len(samples),
        original_right=original_right,
        notes=notes,
    )


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two arrays of one shape, ties at their mean rank.

    Equal arrays give 1, also where all values are one; where only one of two is constant there is no order to share: 0.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0]))
    1.0
    """
    if a.shape != b.shape:
        raise DataError(f"maps of {list(a.shape)} and {list(b.shape)}", where="spearman", rule="maps of one shape")
    if np.array_equal(a, b):
        return 1.0
    first, second = (_ranks(each.reshape(-1)) for each in (a, b))
    first, second = first - first.mean(), second - second.mean()
    length = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum() / length) if length else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (counts.cumsum() - (counts - 1) / 2)[inverse]
    return ranks


def _explained(
    sample: Sample, runs: Mapping[str, Run], task: Task, *, name: str, grid: Grid, fill: np.ndarray, centred: bool
) -> Explained | None:
    """The sample with its maps; None where the original is wrong."""
    outputs = {file: run(sample.feeds) for file, run in runs.items()}
    original, *others = runs
    output = explained(outputs[original])
    rights = {file: right(task, given, sample) for file, given in outputs.items()}
    if rights[original] is False:
        return None
    maps = {
        file: occlusion_map(run, sample.feeds, name, grid, fill=fill, target=output, centred=centred)
        for file, run in runs.items()
    }
    return Explained(
        sample=sample,
        output=output,
        maps=maps,
        answers={file: int(given[0].argmax()) for file, given in outputs.items()},
        right=rights,
        correlations={file: spearman(maps[original], maps[file]) for file in others},
    )


def _other_way(
    run: Run,
    sample: Sample,
    samples: Sequence[Sample],
    *,
    name: str,
    grid: Grid,
    fill: np.ndarray,
    output: int,
    centred: bool,
) -> np.ndarray | None:
    """The original's map, found in another way that is as good: on a shifted grid, or with another fill."""
    shifted = grid.shifted()
    if shifted is not None:
        values = occlusion_map(run, sample.feeds, name, shifted, fill=fill, target=output, centred=centred)
        return grid.gathered(shifted.spread(values))
    at = next(index for index, each in enumerate(samples) if each is sample)
    alike = (each.feeds[name] for each in (*samples[at + 1 :], *samples[:at]))
    other = next((each for each in alike if each.shape == sample.feeds[name].shape), None)
    if other is None:
        return None
    return occlusion_map(run, sample.feeds, name, grid, fill=other, target=output, centred=centred)


def _file_drift(file: str, found: Sequence[Explained], seed: int) -> FileDrift:
    both = [each for each in found if each.right[file] is not False]
    worst = sorted(both, key=lambda each: each.correlations[file])[:WORST]
    return FileDrift(
        file=file,
        correlation=stats.mean(np.array([each.correlations[file] for each in both]), seed=seed) if both else None,
        both_right=len(both),
        largest=[
            {"sample": each.sample.index, "output": each.output, "correlation": each.correlations[file]}
            for each in worst
        ],
    )


def _mean(found: Sequence[Explained], file: str) -> float:
    return float(np.mean([each.correlations[file] for each in found]))


def _fill_in_words(kind: Kind, value: float | None) -> str:
    if value is not None:
        return f"the value {value:g}"
    means = {"image": "the mean of each channel", "steps": "the mean of each feature", "tokens": "token 0"}
    return means.get(kind, "the mean of each feature")
