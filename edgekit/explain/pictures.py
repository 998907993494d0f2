"""Maps as pictures: over an image in colours, along a sequence as a strip of bars."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.device import ImagePreprocessing
from edgekit.explain.attention import Attention
from edgekit.explain.drift import Drift, Explained
from edgekit.explain.gradients import Gradients
from edgekit.explain.grid import Grid, channel_axis, grid_for

SMALL_BYTES = 15_000
"""A panel in a report is no larger, so that a report with eight of them can be mailed."""
DPI, SMALL_DPI = 110, (80, 64, 52, 44, 36)
COLOURS = 48
MOST_HEADS, MOST_LAYERS = 4, 6
"""Of a module, so many are drawn."""
FOR, AGAINST = "#b2182b", "#2166ac"
"""Red speaks for the answer, blue against it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Map:
    """One map to be drawn: its title, and float64 over the axes of the input that the grid has."""

    title: str
    values: np.ndarray


def draw(
    sample: np.ndarray,
    grid: Grid,
    rows: Sequence[Sequence[Map]],
    title: str,
    *,
    preprocessing: ImagePreprocessing | None = None,
    dpi: int = DPI,
) -> bytes:
    """A PNG: the input at the left, then the maps, row by row; each map in the scale of its own largest value.

    Args:
        sample: the input, [1, ...].
        grid: of the sample.
        rows: maps side by side, the original's first.
        title: over all.
        preprocessing: undone for images, where it is known.
        dpi: pixels an inch.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    image = grid.kind == "image"
    columns = max(map(len, rows)) + 1 if image else max(map(len, rows))
    height, width = (len(rows), columns) if image else (len(rows) + 1, columns)
    size = (1.7 * width, 1.75 * height + 0.35) if image else (3.2 * width, 1.25 * height + 0.4)
    figure = Figure(figsize=size, dpi=dpi, layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=8)
    axes = figure.subplots(height, width, squeeze=False)
    picture = shown(sample, preprocessing) if image else sample
    for each in axes.flat:
        each.axis("off")
    if image:
        _photo(axes[0, 0], picture)
    else:
        for each in axes[0]:
            _sequence(each, sample, grid)
    for number, row in enumerate(rows):
        for column, each in enumerate(row):
            if image:
                _over(axes[number, column + 1], picture, each)
            else:
                _bars(axes[number + 1, column], each)
    canvas.draw()
    return _png(np.asarray(canvas.buffer_rgba())[..., :3])


def occlusion_row(drift: Drift, each: Explained, files: Sequence[str] | None = None) -> list[Map]:
    """The occlusion maps of one sample, the original's first, spread over the input."""
    grid = _grid_of(drift, each)
    return [
        Map(title=_heading(drift, each, file), values=grid.spread(each.maps[file]))
        for file in (drift.original, *(files or [row.file for row in drift.files]))
    ]


def side_by_side(
    drift: Drift,
    found: Gradients | None,
    index: int,
    *,
    labels: Sequence[str] = (),
    preprocessing: ImagePreprocessing | None = None,
) -> bytes:
    """A PNG with all maps of one sample, the original's and the compressed ones' next to each other."""
    each = drift.samples[index]
    rows = [occlusion_row(drift, each)]
    if found is not None and index < len(found.maps):
        of_modules = found.maps[index]
        methods = dict.fromkeys(method for maps in of_modules.values() for method in maps.maps)
        rows += [
            [
                Map(title=f"{method}\n{name}", values=maps.maps[method])
                for name, maps in of_modules.items()
                if method in maps.maps
            ]
            for method in methods
        ]
    title = f"sample {each.sample.index}: why {name_of(each.output, labels)} (red: for it, blue: against it)"
    return draw(each.sample.feeds[drift.input], _grid_of(drift, each), rows, title, preprocessing=preprocessing)


def draw_attention(found: Attention, index: int, title: str) -> bytes:
    """A PNG with the attention of one sample: a row for each layer, the modules' heads side by side; rollout below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    modules = found.maps[index]
    heads = min(MOST_HEADS, max(each.weights.shape[1] for maps in modules.values() for each in maps))
    layers = min(MOST_LAYERS, max(map(len, modules.values())))
    rolled = found.rollouts[index]
    height, width = layers + bool(rolled), heads * len(modules)
    figure = Figure(figsize=(1.5 * width + 0.3, 1.6 * height + 0.4), dpi=DPI, layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    figure.suptitle(f"attention, {title} (queries down, keys across)", fontsize=8)
    axes = figure.subplots(height, width, squeeze=False)
    for each in axes.flat:
        each.axis("off")
    for block, (module, maps) in enumerate(modules.items()):
        for row, layer in enumerate(maps[:layers]):
            for head in range(min(heads, layer.weights.shape[1])):
                place = axes[row, block * heads + head]
                place.imshow(layer.weights[0, head], cmap="magma", aspect="auto", interpolation="nearest")
                place.set_title(f"{module}\n{layer.name[-24:]} head {head}", fontsize=5)
        if module in rolled:
            axes[-1, block * heads].imshow(rolled[module], cmap="magma", aspect="auto", interpolation="nearest")
            axes[-1, block * heads].set_title(f"{module}\nrollout", fontsize=5)
    canvas.draw()
    return _png(np.asarray(canvas.buffer_rgba())[..., :3])


def panels(
    drift: Drift,
    file: str,
    *,
    labels: Sequence[str] = (),
    preprocessing: ImagePreprocessing | None = None,
    count: int = 6,
) -> list[dict[str, Any]]:
    """Small pictures for a report: the input, the original's map and `file`'s, for `count` samples.

    The first half are those with the lowest correlation among the samples that both get right, the others are evenly
    spread over the rest, so that a reader sees the worst and the usual.

    Returns:
        For each: `sample`, `file`, `class`, `correlation`, `caption` and `png_base64`, at most 15 kB of PNG.
    """
    both = sorted(
        (each for each in drift.samples if each.right[file] is not False), key=lambda each: each.correlations[file]
    )
    worst, rest = both[: (count + 1) // 2], both[(count + 1) // 2 :]
    others = (
        [rest[index * len(rest) // (count // 2)] for index in range(count // 2)] if len(rest) >= count // 2 else rest
    )
    return [_panel(drift, file, each, labels, preprocessing) for each in (*worst, *others)]


def shown(sample: np.ndarray, preprocessing: ImagePreprocessing | None = None) -> np.ndarray:
    """An image input [1, ...] as float64 [h, w, 3] in 0 to 1: preprocessing undone, or stretched to what it holds."""
    channels = channel_axis("image", sample.shape)
    pixels = np.moveaxis(sample.astype(np.float64), channels or 1, -1)[0]
    if preprocessing is not None and pixels.shape[-1] == preprocessing.channels:
        pixels = (pixels * np.array(preprocessing.std) + np.array(preprocessing.mean)) / (preprocessing.scale * 255)
        pixels = pixels[..., ::-1] if preprocessing.colour == "BGR" else pixels
    else:
        low, high = pixels.min(), pixels.max()
        pixels = (pixels - low) / ((high - low) or 1.0)
    grey = pixels.shape[-1] != 3
    coloured = np.repeat(pixels.mean(axis=-1, keepdims=True), 3, axis=-1) if grey else pixels
    return np.asarray(np.clip(coloured, 0.0, 1.0))


def name_of(output: int, labels: Sequence[str]) -> str:
    """What an output is called."""
    return labels[output] if output < len(labels) else f"output {output}"


def _panel(
    drift: Drift, file: str, each: Explained, labels: Sequence[str], preprocessing: ImagePreprocessing | None
) -> dict[str, Any]:
    what, correlation = name_of(each.output, labels), each.correlations[file]
    caption = f"sample {each.sample.index}, {what}: rank correlation {correlation:.2f}"
    sample, rows = each.sample.feeds[drift.input], [occlusion_row(drift, each, [file])]
    for dpi in SMALL_DPI:
        png = draw(sample, _grid_of(drift, each), rows, caption, preprocessing=preprocessing, dpi=dpi)
        if len(png) <= SMALL_BYTES:
            break
    return {
        "sample": each.sample.index,
        "file": file,
        "class": what,
        "correlation": correlation,
        "caption": caption,
        "png_base64": base64.b64encode(png).decode(),
    }


def _grid_of(drift: Drift, each: Explained) -> Grid:
    grid = drift.grid
    shape = each.sample.feeds[drift.input].shape
    return grid_for(grid.kind, shape, window=grid.window[0], stride=grid.stride[0]) if _differs(grid, shape) else grid


def _differs(grid: Grid, shape: Sequence[int]) -> bool:
    return tuple(shape[axis] for axis in grid.axes) != grid.sizes


def _heading(drift: Drift, each: Explained, file: str) -> str:
    return file if file == drift.original else f"{file} ({each.correlations[file]:.2f})"


def _photo(axes: Any, picture: np.ndarray) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set_title("input", fontsize=7)


def _over(axes: Any, picture: np.ndarray, each: Map) -> None:
    grey = 0.35 + 0.65 * picture.mean(axis=-1)
    limit = float(np.abs(each.values).max()) or 1.0
    axes.imshow(grey, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.imshow(each.values, cmap="RdBu_r", vmin=-limit, vmax=limit, alpha=0.65, interpolation="nearest")
    axes.set_title(each.title, fontsize=7)


def _sequence(axes: Any, sample: np.ndarray, grid: Grid) -> None:
    axes.axis("on")
    axes.tick_params(labelsize=6)
    axes.set_title("input", fontsize=7)
    if grid.kind == "steps":
        values = np.moveaxis(sample[0], grid.axes[0] - 1, -1)
        axes.imshow(values, aspect="auto", cmap="viridis", interpolation="nearest", origin="lower")
        axes.set_yticks([])
        return
    axes.bar(range(grid.sizes[0]), sample[0], width=0.9, color="0.5")
    axes.set_xlim(-0.5, grid.sizes[0] - 0.5)


def _bars(axes: Any, each: Map) -> None:
    axes.axis("on")
    axes.tick_params(labelsize=6)
    axes.set_title(each.title, fontsize=7)
    values = each.values
    axes.bar(
        range(len(values)), values, width=1.0 if len(values) > 40 else 0.9, color=np.where(values > 0, FOR, AGAINST)
    )
    axes.axhline(0, color="0.3", linewidth=0.5)
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.set_yticks([])


def _png(pixels: np.ndarray) -> bytes:
    """As a PNG with a palette: a third of the bytes, and heat maps have few colours."""
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels)).quantize(COLOURS, method=Image.Quantize.MEDIANCUT)
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
