"""Occlusion maps of ONNX files, in numpy and ONNX Runtime alone: the one method that sees what int8 does.

M. Zeiler and R. Fergus, *Visualizing and Understanding Convolutional Networks* (2014), section 4.2: cover a part of the
input and see how far the score of the class falls. Here the score is the class's output less the mean over all classes
(`centred`), since softmax does not see what all outputs share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edgekit.device.session import open_session
from edgekit.explain.grid import Grid, Kind, channel_axis
from edgekit.spec import Feeds, IOSpec
from edgekit.validate.feeds import fixed_batch, padded

Run = Callable[[Feeds], np.ndarray]
"""Takes inputs by name, as many samples as one likes, and gives the model's first output."""

RUN_SAMPLES, RUN_BYTES = 128, 32_000_000
"""At most so many samples, and bytes of input, go into one run of ONNX Runtime."""


def runner(model: Path, spec: IOSpec, *, provider: str = "cpu", threads: int = 1) -> Run:
    """An ONNX file as a function of its inputs; a file with a fixed batch size gets that many, the last run filled up.

    Raises:
        ProviderError: the provider is unknown, absent, or did not take the model.
    """
    session = open_session(model, provider=provider, threads=threads)
    fixed, first = fixed_batch(spec), spec.outputs[0].name

    def run(feeds: Feeds) -> np.ndarray:
        count = len(next(iter(feeds.values())))
        each = sum(array[:1].nbytes for array in feeds.values())
        size = fixed or max(1, min(RUN_SAMPLES, RUN_BYTES // max(each, 1)))
        parts = []
        for start in range(0, count, size):
            part = {name: array[start : start + size] for name, array in feeds.items()}
            (output,) = session.run([first], padded(part, fixed) if fixed else part)
            parts.append(output[: min(size, count - start)])
        return np.concatenate(parts)

    return run


def occlusion_map(
    run: Run, feeds: Feeds, name: str, grid: Grid, *, fill: np.ndarray, target: int, centred: bool
) -> np.ndarray:
    """How far the score of output `target` falls when each window of input `name` is covered.

    Args:
        run: the model.
        feeds: one sample, [1, ...] each.
        name: the input that is covered; the others stay as they are.
        grid: the windows.
        fill: what a covered part becomes; broadcasts to the input.
        target: the output that is explained.
        centred: whether the mean of all outputs is taken off first.

    Returns:
        float64 [*grid.shape]; positive where the covered part speaks for the target.
    """
    sample = feeds[name]
    covered = occluded(sample, grid, fill)
    others = {key: np.repeat(array, len(covered), axis=0) for key, array in feeds.items() if key != name}
    full = scores(run(feeds), target, centred=centred)
    without = scores(run({key: covered if key == name else others[key] for key in feeds}), target, centred=centred)
    return np.asarray((full[0] - without).reshape(grid.shape))


def occluded(sample: np.ndarray, grid: Grid, fill: np.ndarray) -> np.ndarray:
    """`sample` [1, ...] once for each window, that window replaced by `fill`: [windows, ...].

    >>> grid = Grid(kind="features", axes=(1,), sizes=(2,), window=(1,), stride=(1,))
    >>> occluded(np.array([[1.0, 2.0]]), grid, np.zeros(()))
    array([[0., 2.],
           [1., 0.]])
    """
    windows = grid.windows()
    covered = np.repeat(sample, len(windows), axis=0)
    filled = np.broadcast_to(fill, sample.shape).astype(sample.dtype)
    for index, window in enumerate(windows):
        place = [slice(None)] * sample.ndim
        for axis, part in zip(grid.axes, window, strict=True):
            place[axis] = part
        rest = tuple(place[1:])
        covered[index][rest] = filled[0][rest]
    return covered


def scores(outputs: np.ndarray, target: int, *, centred: bool) -> np.ndarray:
    """float64 [n]: output `target` of [n, outputs], less the mean over the outputs where `centred`."""
    values = outputs.astype(np.float64)
    return np.asarray(values[:, target] - values.mean(axis=1) if centred else values[:, target])


def mean_fill(samples: Sequence[np.ndarray], kind: Kind) -> np.ndarray:
    """The mean over samples [1, ...] of each channel or feature, shaped so that it broadcasts; zero for tokens."""
    axis = channel_axis(kind, samples[0].shape)
    if axis is None:
        return np.zeros((), dtype=samples[0].dtype)
    rest = tuple(other for other in range(samples[0].ndim) if other != axis)
    total = np.sum([sample.sum(axis=rest, keepdims=True, dtype=np.float64) for sample in samples], axis=0)
    count = sum(sample.size // sample.shape[axis] for sample in samples)
    return np.asarray(total / count)
