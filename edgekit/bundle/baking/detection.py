"""What a detector's boxes and scores go through, as nodes: decoding, the way back to the picture, suppression."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from edgekit.bundle.baking.graph import BakedGraph, int64
from edgekit.bundle.baking.image import Placed
from edgekit.device.processing import DetectionPostprocessing


def bake_corners(graph: BakedGraph, after: DetectionPostprocessing, size: tuple[int, int]) -> str:
    """Corners float32 [1, n, 4] in pixels of the model's input, from its boxes."""
    boxes = after.boxes
    if after.format != "xyxy":
        first = graph.add("Slice", boxes, int64(0), int64(2), int64(2))
        second = graph.add("Slice", boxes, int64(2), int64(4), int64(2))
        if after.format == "cxcywh":
            centre, low = first, graph.add("Mul", second, np.array(0.5, np.float32))
            high = low
        else:
            cells = after.cells(size).astype(np.float32)
            low, high = (graph.add("Mul", each, cells[:, 2:]) for each in (first, second))
            centre = graph.constant(cells[:, :2])
        boxes = graph.add("Concat", graph.add("Sub", centre, low), graph.add("Add", centre, high), axis=2)
    if after.coordinates == "relative":
        boxes = graph.add("Mul", boxes, np.array([size[1], size[0]] * 2, np.float32))
    return boxes


def way_back(graph: BakedGraph, boxes: str, placed: Placed) -> str:
    """Corners in pixels of the image as it was given."""

    def sides(value: str) -> str:
        return graph.add("Cast", graph.add("Gather", value, int64(1, 0, 1, 0)), to=TensorProto.FLOAT)

    factors = graph.add("Div", sides(placed.cut), sides(placed.resized))
    moved = graph.add("Mul", graph.add("Sub", boxes, sides(placed.offset)), factors)
    return graph.add("Add", moved, sides(placed.corner))


def bake_suppression(
    graph: BakedGraph, after: DetectionPostprocessing, boxes: str, to_boxes: str, to_scores: str
) -> None:
    """What non-maximum suppression leaves of corners [1, n, 4]: boxes, and scores that are 0 but for one class."""
    operator = {"softmax": "Softmax", "sigmoid": "Sigmoid", "probabilities": "Identity"}[after.activation]
    options: dict[str, Any] = {"axis": -1} if operator == "Softmax" else {}
    scores = graph.add(operator, after.scores, **options)  # [1, n, classes]
    classes = graph.add("Slice", graph.add("Shape", scores), int64(2), int64(3))
    if after.background is not None:
        kinds = graph.add("Range", np.array(0, np.int64), graph.add("Squeeze", classes), np.array(1, np.int64))
        is_object = graph.add("Not", graph.add("Equal", kinds, int64(after.background)))
        scores = graph.add("Mul", scores, graph.add("Cast", is_object, to=TensorProto.FLOAT))
    # ONNX wants a score above the threshold, and we one that is not below it.
    threshold = np.nextafter(np.float32(after.score_threshold), np.float32(0))
    limits = (
        int64(after.max_detections),
        np.array([after.iou_threshold], np.float32),
        np.array([threshold], np.float32),
    )
    if after.class_agnostic:
        # Each pair of box and class is a box of its own, all of one class.
        spread = graph.add("Concat", int64(1, 1), classes, int64(1), axis=0)
        pairs = graph.add(
            "Reshape", graph.add("Expand", graph.add("Unsqueeze", boxes, int64(2)), spread), int64(1, -1, 4)
        )
        kept = graph.add("NonMaxSuppression", pairs, graph.add("Reshape", scores, int64(1, 1, -1)), *limits)
        number = graph.add("Gather", kept, int64(2), axis=1)  # [k, 1]
        box, kind = graph.add("Div", number, classes), graph.add("Mod", number, classes)
    else:
        kept = graph.add("NonMaxSuppression", boxes, graph.add("Transpose", scores, perm=[0, 2, 1]), *limits)
        box, kind = (graph.add("Gather", kept, int64(column), axis=1) for column in (2, 1))
    batch = graph.add("Sub", box, box)
    found = graph.add("GatherND", scores, graph.add("Concat", batch, box, kind, axis=1))  # [k]
    count = graph.add("Min", graph.add("Shape", found), int64(after.max_detections))
    best, order = graph.add_pair("TopK", found, count, axis=0)
    # [count, classes]: the score in the column of its class.
    marks = graph.add(
        "OneHot",
        graph.add("Gather", graph.add("Squeeze", kind, int64(1)), order),
        classes,
        np.array([0, 1], np.float32),
    )
    rows = graph.add("Mul", marks, graph.add("Unsqueeze", best, int64(1)))
    corners = graph.add(
        "Gather",
        graph.add("Squeeze", boxes, int64(0)),
        graph.add("Gather", graph.add("Squeeze", box, int64(1)), order),
    )
    missing = graph.add("Sub", int64(after.max_detections), count)
    pads = graph.add("Concat", int64(0, 0), missing, int64(0), axis=0)
    for value, target in ((corners, to_boxes), (rows, to_scores)):
        graph.add("Unsqueeze", graph.add("Pad", value, pads), int64(0), into=target)
