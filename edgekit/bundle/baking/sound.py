"""What a recording goes through before a network, as nodes."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from edgekit.bundle.baking.graph import BakedGraph, int64
from edgekit.device.processing import LogMelPreprocessing, WaveformPreprocessing
from edgekit.device.processing.waveform import EPSILON


def bake_log_mel(graph: BakedGraph, prepare: LogMelPreprocessing, source: str, target: str) -> None:
    """Nodes from `source` float32 [n] to `target`: the windowed transform is a convolution over the samples."""
    length = graph.add("Shape", source)
    wanted = prepare.samples or prepare.shortest
    missing = graph.add("Max", graph.add("Sub", int64(wanted), length), int64(0))
    filled = graph.add("Pad", source, graph.add("Concat", int64(0), missing, axis=0))
    if prepare.samples is not None:
        filled = graph.add("Slice", filled, int64(0), int64(prepare.samples))
    if prepare.centre:
        half = prepare.transform // 2
        filled = graph.add("Pad", filled, int64(half, half), mode="reflect")
    window = prepare.window_values()
    if prepare.centre:
        # Zeros around the window, so that there are as many frames as in numpy.
        before = (prepare.transform - prepare.window) // 2
        window = np.pad(window, (before, prepare.transform - prepare.window - before))
    bins = prepare.transform // 2 + 1
    phase = 2 * np.pi * np.outer(np.arange(bins), np.arange(len(window))) / prepare.transform
    kernels = np.concatenate([np.cos(phase), np.sin(phase)]) * window
    rows = graph.add("Unsqueeze", filled, int64(0, 1))
    waves = graph.add("Conv", rows, kernels.astype(np.float32)[:, None, :], strides=[prepare.hop])
    squares = graph.add("Mul", waves, waves)
    halves = [graph.add("Slice", squares, int64(at), int64(at + bins), int64(1)) for at in (0, bins)]
    energies = graph.add("Add", *halves)
    if prepare.power == 1:
        energies = graph.add("Sqrt", energies)
    mels = graph.add("MatMul", prepare.filters().astype(np.float32), energies)
    floor = np.array(prepare.floor, np.float32)
    logs = graph.add("Log", graph.add("Add" if prepare.floor_by == "add" else "Max", mels, floor))
    scale = 1.0 if prepare.log == "natural" else 1.0 / np.log(10.0)
    normal = graph.add(
        "Div",
        graph.add("Sub", graph.add("Mul", logs, np.array(scale, np.float32)), np.array(prepare.mean, np.float32)),
        np.array(prepare.std, np.float32),
    )
    shaped = graph.add("Transpose", normal, perm=[0, 2, 1]) if prepare.layout.endswith("TF") else normal
    if prepare.layout.startswith("1"):
        graph.add("Unsqueeze", shaped, int64(1), into=target)
    else:
        graph.add("Identity", shaped, into=target)


def bake_waveform(graph: BakedGraph, prepare: WaveformPreprocessing, source: str, target: str) -> None:
    """Nodes from `source` float32 [n] to `target`; figures are taken in float64, as a long recording needs them."""
    samples = source
    if prepare.samples is not None:
        samples = graph.add("Slice", samples, int64(0), int64(prepare.samples))
    if prepare.normalize == "recording":
        samples = _normal(graph, samples)
    if prepare.samples is not None:
        missing = graph.add("Sub", int64(prepare.samples), graph.add("Shape", samples))
        samples = graph.add("Pad", samples, graph.add("Concat", int64(0), missing, axis=0))
    if prepare.normalize == "input":
        samples = _normal(graph, samples)
    graph.add("Unsqueeze", samples, int64(*range(len(prepare.layout))), into=target)


def _normal(graph: BakedGraph, samples: str) -> str:
    wide = graph.add("Cast", samples, to=TensorProto.DOUBLE)
    centred = graph.add("Sub", wide, graph.add("ReduceMean", wide, int64(0), keepdims=1))
    variance = graph.add("ReduceMean", graph.add("Mul", centred, centred), int64(0), keepdims=1)
    spread = graph.add("Sqrt", graph.add("Add", variance, np.array(EPSILON)))
    return graph.add("Cast", graph.add("Div", centred, spread), to=TensorProto.FLOAT)
