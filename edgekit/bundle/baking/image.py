"""What a picture goes through before a network, as nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from edgekit.bundle.baking.graph import BakedGraph, int64
from edgekit.device.processing import ImagePreprocessing


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where an image landed, as values in the graph: int64 [2] each, height or top first."""

    cut: str
    corner: str
    resized: str
    offset: str


def bake_image(graph: BakedGraph, prepare: ImagePreprocessing, source: str, target: str) -> Placed:
    """Nodes from `source` uint8 [height, width, 3] to `target` float32, and where the image landed."""
    pixels = _coloured(graph, prepare, source)
    planes = graph.add("Unsqueeze", graph.add("Transpose", pixels, perm=[2, 0, 1]), int64(0))
    dims = graph.add("Slice", graph.add("Shape", source), int64(0), int64(2))
    size = int64(*prepare.size)
    placed = _place(graph, prepare, dims)
    if prepare.fit == "crop-resize":
        planes = _slice(graph, planes, placed.corner, placed.cut)
    planes = _resized(graph, prepare, planes, placed.resized)
    if prepare.fit == "resize-crop":
        planes = _slice(graph, planes, graph.add("Neg", placed.offset), graph.constant(size))
    if prepare.fit == "letterbox":
        after = graph.add("Sub", graph.add("Sub", size, placed.resized), placed.offset)
        pads = graph.add("Concat", int64(0, 0), placed.offset, int64(0, 0), after, axis=0)
        planes = graph.add("Pad", planes, pads, np.array(prepare.pad, np.float32))
    scaled = graph.add("Div", planes, np.array(1 / prepare.scale, np.float32))
    mean, std = (np.array(each, np.float32).reshape(-1, 1, 1) for each in (prepare.mean, prepare.std))
    normal = graph.add("Div", graph.add("Sub", scaled, mean), std)
    if prepare.layout == "NHWC":
        graph.add("Transpose", normal, perm=[0, 2, 3, 1], into=target)
    else:
        graph.add("Identity", normal, into=target)
    return placed


def _coloured(graph: BakedGraph, prepare: ImagePreprocessing, source: str) -> str:
    """Uint8 [height, width, channels] in the model's colours."""
    if prepare.colour == "grey":
        wide = graph.add("Cast", source, to=TensorProto.INT32)
        luma = graph.add("Mul", wide, np.array([19595, 38470, 7471], np.int32))
        total = graph.add("ReduceSum", luma, int64(2), keepdims=1)
        grey = graph.add("Div", graph.add("Add", total, np.array(0x8000, np.int32)), np.array(1 << 16, np.int32))
        return graph.add("Cast", grey, to=TensorProto.UINT8)
    return graph.add("Gather", source, int64(2, 1, 0), axis=2) if prepare.colour == "BGR" else source


def _place(graph: BakedGraph, prepare: ImagePreprocessing, dims: str) -> Placed:
    """As `edgekit.device.processing.geometry`, of an image whose height and width are the values `dims`."""
    size, nothing = graph.constant(int64(*prepare.size)), graph.constant(int64(0, 0))
    one, two = graph.constant(int64(1)), graph.constant(int64(2))
    if prepare.fit == "resize-crop":
        side = int64(prepare.shorter_side or 0)
        resized = graph.add("Div", graph.add("Mul", dims, side), graph.add("ReduceMin", dims, keepdims=1))
        left = graph.add("Sub", resized, size)
        half = graph.add("Div", left, two)
        # Half of an odd number is rounded to the even neighbour.
        odd = graph.add("Mul", graph.add("Mod", left, two), graph.add("Mod", half, two))
        return Placed(cut=dims, corner=nothing, resized=resized, offset=graph.add("Neg", graph.add("Add", half, odd)))
    if prepare.fit == "crop-resize":
        crosswise = graph.add("Mul", graph.add("Gather", dims, int64(1, 0)), size)
        wanted = graph.add("Max", graph.add("Div", crosswise, int64(*prepare.size[::-1])), one)
        cut = graph.add("Min", dims, wanted)
        return Placed(cut=cut, corner=graph.add("Div", graph.add("Sub", dims, cut), two), resized=size, offset=nothing)
    if prepare.fit == "letterbox":
        exact = graph.add("Cast", dims, to=TensorProto.DOUBLE)
        factor = graph.add("ReduceMin", graph.add("Div", np.array(prepare.size, np.float64), exact), keepdims=1)
        rounded = graph.add("Floor", graph.add("Add", graph.add("Mul", exact, factor), np.array(0.5)))
        whole = graph.add("Cast", rounded, to=TensorProto.INT64)
        resized = graph.add("Max", graph.add("Min", whole, size), one)
        offset = graph.add("Div", graph.add("Sub", size, resized), two)
        return Placed(cut=dims, corner=nothing, resized=resized, offset=offset)
    return Placed(cut=dims, corner=nothing, resized=size, offset=nothing)


def _resized(graph: BakedGraph, prepare: ImagePreprocessing, planes: str, size: str) -> str:
    """Float32 planes of whole numbers from uint8 [1, C, h, w]."""
    if prepare.filter == "nearest":
        for axis in (2, 3):
            _, new, step = _lengths(graph, planes, size, axis)
            # Added up as Pillow does, since multiplication rounds differently at ties.
            first = graph.add("Mul", step, np.array([0.5]))
            others = graph.add("Expand", step, graph.add("Sub", new, int64(1)))
            places = graph.add("CumSum", graph.add("Concat", first, others, axis=0), np.array(0, np.int64))
            planes = graph.add("Gather", planes, graph.add("Cast", places, to=TensorProto.INT64), axis=axis)
        return graph.add("Cast", planes, to=TensorProto.FLOAT)
    sizes = graph.add("Concat", int64(1, prepare.channels), size, axis=0)
    mode = "linear" if prepare.filter == "bilinear" else "cubic"
    options: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": "half_pixel"}
    if prepare.antialias:
        # On bytes and without what lies outside, ONNX Runtime computes as Pillow does, to the byte.
        options |= {"antialias": 1, "exclude_outside": 1, "cubic_coeff_a": -0.5}
        return graph.add("Cast", graph.add("Resize", planes, "", "", sizes, **options), to=TensorProto.FLOAT)
    if mode == "linear":
        made = graph.add("Resize", graph.add("Cast", planes, to=TensorProto.FLOAT), "", "", sizes, **options)
    else:
        # ONNX Runtime's cubic Resize does not reduce without antialiasing.
        made = graph.add("Cast", planes, to=TensorProto.DOUBLE)
        for axis in (3, 2):
            made = _bicubic(graph, made, size, axis)
        made = graph.add("Cast", made, to=TensorProto.FLOAT)
    rounded = graph.add("Floor", graph.add("Add", made, np.array(0.5, np.float32)))
    return graph.add("Clip", rounded, np.array(0, np.float32), np.array(255, np.float32))


def _lengths(graph: BakedGraph, planes: str, size: str, axis: int) -> tuple[str, str, str]:
    """Along an axis of the planes: old and new length, int64 [1], and old by new, float64 [1]."""
    old = graph.add("Slice", graph.add("Shape", planes), int64(axis), int64(axis + 1))
    new = graph.add("Slice", size, int64(axis - 2), int64(axis - 1))
    exact = [graph.add("Cast", each, to=TensorProto.DOUBLE) for each in (old, new)]
    return old, new, graph.add("Div", *exact)


def _bicubic(graph: BakedGraph, planes: str, size: str, axis: int) -> str:
    """Float64 planes with one axis resized by four taps, as `edgekit.device.processing.resize`."""
    old, new, step = _lengths(graph, planes, size, axis)
    zero, one = np.array(0, np.int64), np.array(1, np.int64)
    counted = graph.add("Cast", graph.add("Range", zero, graph.add("Squeeze", new), one), to=TensorProto.DOUBLE)
    places = graph.add("Sub", graph.add("Mul", graph.add("Add", counted, np.array(0.5)), step), np.array(0.5))
    base = graph.add("Floor", places)
    part = graph.add("Sub", places, base)
    whole, last = graph.add("Cast", base, to=TensorProto.INT64), graph.add("Sub", old, int64(1))
    near, far = (1.25, -2.25, 0.0, 1.0), (-0.75, 3.75, -6.0, 3.0)  # Keys' cubic with a = -0.75, highest power first
    total = ""
    for tap, curve in ((-1, far), (0, near), (1, near), (2, far)):
        distance = graph.add("Abs", graph.add("Sub", part, np.array(float(tap))))
        weight = graph.constant(np.array(curve[0]))
        for coefficient in curve[1:]:
            weight = graph.add("Add", graph.add("Mul", weight, distance), np.array(coefficient))
        index = graph.add("Min", graph.add("Max", graph.add("Add", whole, int64(tap)), int64(0)), last)
        if axis == 2:
            weight = graph.add("Unsqueeze", weight, int64(1))
        share = graph.add("Mul", graph.add("Gather", planes, index, axis=axis), weight)
        total = graph.add("Add", total, share) if total else share
    return total


def _slice(graph: BakedGraph, planes: str, corner: str, size: str) -> str:
    return graph.add("Slice", planes, corner, graph.add("Add", corner, size), int64(2, 3))
