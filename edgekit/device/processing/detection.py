"""From a detector's outputs to boxes in the pixels of the image that it was given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np

from edgekit.device.processing import fields
from edgekit.device.processing.classification import SCORES, Scores, probabilities
from edgekit.device.processing.geometry import Geometry
from edgekit.errors import BundleError

BoxFormat = Literal["xyxy", "cxcywh", "ltrb"]
MAX_DETECTIONS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """One object: its label, the class's index, how sure the model is, and its box.

    `box` is x1, y1, x2, y2 in pixels of the image as it was given: left, top, right and bottom, from 0 to width or
    height.
    """

    label: str
    index: int
    confidence: float
    box: tuple[float, float, float, float]

    def __str__(self) -> str:
        return f"{self.label} ({self.confidence:.1%}) at " + ", ".join(f"{side:.1f}" for side in self.box)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {"label": self.label, "index": self.index, "confidence": self.confidence, "box": list(self.box)}


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionPostprocessing:
    """How boxes and scores become detections: activation, decoding, threshold, non-maximum suppression, the way back.

    In float64, in this order: scores become probabilities; boxes are decoded; each (box, class) with a probability of
    at least `score_threshold` is a candidate (a box that is not finite is none); candidates are sorted by probability,
    ties by box, then by class; the first that is left is kept, and all that overlap it by an IoU over `iou_threshold`
    go (of its class, or of any); and so on up to `max_detections`. Boxes go back through the preprocessing's `fit` and
    are clipped to the image. The IoU of two boxes without area is 0.

    Attributes:
        boxes, scores: the model's outputs [1, n, 4] and [1, n, classes].
        format: `xyxy` corners; `cxcywh` centre and size; `ltrb` distances to the four sides, in strides, from the
            centre of a cell; cells in the order of level, row, column (FCOS, YOLOv6 and YOLOv8's decoded heads).
        strides: for `ltrb` alone: pixels of a cell on each level, whose grid is ceil(size / stride).
        coordinates: of the model's input: `pixels`, or `relative` from 0 to 1. `ltrb` has pixels.
        activation: `softmax`, `sigmoid` or `probabilities`: what the scores are.
        background: index of a class that is no object, or None.
        score_threshold, iou_threshold, max_detections, class_agnostic: of the suppression.

    Raises:
        DataError: a field is out of range; the text names it.
    """

    kind: ClassVar[str] = "detection"
    side: ClassVar[str] = "postprocessing"

    boxes: str
    scores: str
    format: BoxFormat = "xyxy"
    strides: tuple[int, ...] | None = None
    coordinates: Literal["pixels", "relative"] = "pixels"
    activation: Scores = "sigmoid"
    background: int | None = None
    score_threshold: float = 0.25
    iou_threshold: float = 0.5
    max_detections: int = 100
    class_agnostic: bool = False

    def __post_init__(self) -> None:
        fields.check_text(self, "boxes")
        fields.check_text(self, "scores")
        if self.boxes == self.scores:
            fields.refuse(self, "scores", "another output than boxes")
        fields.check_choice(self, "format", ("xyxy", "cxcywh", "ltrb"))
        fields.check_choice(self, "coordinates", ("pixels", "relative"))
        if self.format != "ltrb":
            if self.strides is not None:
                fields.refuse(self, "strides", "null, but for the format ltrb")
        elif not isinstance(self.strides, tuple) or not (
            1 <= len(self.strides) <= 16 and all(fields.is_whole(each, 1, 16_384) for each in self.strides)
        ):
            fields.refuse(self, "strides", "a list of 1 to 16 numbers of pixels")
        elif self.coordinates != "pixels":
            fields.refuse(self, "coordinates", "pixels, for the format ltrb")
        fields.check_choice(self, "activation", SCORES)
        fields.check_whole(self, "background", 0, 1_000_000, optional=True)
        fields.check_number(self, "score_threshold", 0.0, 1.0)
        fields.check_number(self, "iou_threshold", 0.0, 1.0)
        fields.check_whole(self, "max_detections", 1, MAX_DETECTIONS)
        fields.check_flag(self, "class_agnostic")

    def apply(
        self,
        outputs: Mapping[str, np.ndarray],
        labels: Sequence[str],
        *,
        size: tuple[int, int],
        placed: Geometry | None = None,
        image: tuple[int, int] | None = None,
    ) -> tuple[Detection, ...]:
        """The objects of one image, the surest first.

        Args:
            outputs: what the model put out, by name.
            labels: the classes' names, the background among them; () numbers them.
            size: height and width of the model's input.
            placed: how the image came into the input; None where the input is the image.
            image: height and width of the image that boxes are clipped to; None for `size`.

        Raises:
            BundleError: the outputs are no such boxes and scores, or there are not as many classes as labels.
        """
        boxes, scores = self._checked(outputs, labels, size)
        found, classes, confidences = self.suppressed(self.decoded(boxes, size), probabilities(scores, self.activation))
        found = found if placed is None else placed.back(found)
        height, width = image or size
        found = np.clip(found, 0.0, np.array([width, height, width, height], np.float64))
        return tuple(
            Detection(
                label=labels[index] if labels else str(index),
                index=index,
                confidence=confidence,
                box=(box[0], box[1], box[2], box[3]),
            )
            for box, index, confidence in zip(found.tolist(), classes.tolist(), confidences.tolist(), strict=True)
        )

    def cells(self, size: tuple[int, int]) -> np.ndarray:
        """Of `ltrb`: centre x, centre y and stride of each cell of an input of `size`, float64 [n, 3]."""
        levels = []
        for stride in self.strides or ():
            rows, columns = (math.ceil(side / stride) for side in size)
            y, x = np.mgrid[:rows, :columns].reshape(2, -1)
            levels.append(np.stack([(x + 0.5) * stride, (y + 0.5) * stride, np.full(x.size, float(stride))], axis=1))
        return np.concatenate(levels)

    def decoded(self, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Corners float64 [n, 4] in pixels of an input of `size`, from what the model puts out, [n, 4]."""
        exact = boxes.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):  # What is not finite is no candidate.
            if self.format == "cxcywh":
                half = exact[:, 2:] / 2
                exact = np.concatenate([exact[:, :2] - half, exact[:, :2] + half], axis=1)
            elif self.format == "ltrb":
                cells = self.cells(size)
                far = exact * cells[:, 2:]
                exact = np.concatenate([cells[:, :2] - far[:, :2], cells[:, :2] + far[:, 2:]], axis=1)
            if self.coordinates == "relative":
                exact = exact * np.array([size[1], size[0]] * 2, np.float64)
        return exact

    def suppressed(self, boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is left of `boxes` [n, 4] and probabilities [n, classes]: boxes, classes and probabilities, in order."""
        wanted = (scores >= self.score_threshold) & np.all(np.isfinite(boxes), axis=1)[:, None]
        if self.background is not None:
            wanted[:, self.background : self.background + 1] = False
        box, kind = np.nonzero(wanted)
        order = np.argsort(-scores[box, kind], kind="stable")
        box, kind = box[order], kind[order]
        corners = boxes[box]
        left = np.arange(len(box))
        kept: list[int] = []
        while left.size and len(kept) < self.max_detections:
            best, others = left[0], left[1:]
            kept.append(int(best))
            overlaps = iou(corners[best], corners[others]) > self.iou_threshold
            left = others[~(overlaps if self.class_agnostic else overlaps & (kind[others] == kind[best]))]
        return corners[kept], kind[kept], scores[box[kept], kind[kept]]

    def _checked(
        self, outputs: Mapping[str, np.ndarray], labels: Sequence[str], size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        boxes, scores = outputs[self.boxes], outputs[self.scores]
        fits = boxes.ndim == scores.ndim == 3 and boxes.shape[::2] == (1, 4) and scores.shape[:2] == boxes.shape[:2]
        if not fits or (labels and scores.shape[2] != len(labels)):
            raise BundleError(
                f"boxes {list(boxes.shape)} and scores {list(scores.shape)} for {len(labels)} labels",
                where=f"outputs {self.boxes!r} and {self.scores!r}",
                rule="[1, n, 4] and [1, n, classes], with one class for each label",
                way_out="use `run` for the raw outputs",
            )
        if self.format == "ltrb" and len(self.cells(size)) != boxes.shape[1]:
            raise BundleError(
                f"{boxes.shape[1]} boxes",
                where=f"output {self.boxes!r}",
                rule=f"one for each of the {len(self.cells(size))} cells of an input of {size[0]} x {size[1]}",
                way_out="name the strides of all levels, in the order of the boxes",
            )
        return boxes[0], scores[0]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` takes it back."""
        return fields.write(self)

    @classmethod
    def from_dict(cls, data: object, where: str = "postprocessing", *, complete: bool = True) -> Self:
        """Read what `to_dict` wrote; without `complete`, keys that are missing have their defaults.

        Raises:
            DataError: a key is missing, unknown or of another type, or a value is out of range; the text says which.
        """
        return fields.read(cls, data, where, complete=complete)


def iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of one box [4] with others [n, 4]; 0 where the union is empty."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    with np.errstate(over="ignore", invalid="ignore"):
        shared = np.prod(np.maximum(high - low, 0.0), axis=1)
        areas = [np.prod(np.maximum(each[:, 2:] - each[:, :2], 0.0), axis=1) for each in (box[None], others)]
        union = areas[0] + areas[1] - shared
    share: np.ndarray = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return share
