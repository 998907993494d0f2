"""Which nodes go in front of a model and behind it; the inputs, outputs and golden samples that a bundle then has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper

from edgekit.bundle.baking.detection import bake_corners, bake_suppression, way_back
from edgekit.bundle.baking.graph import BakedGraph
from edgekit.bundle.baking.image import Placed, bake_image
from edgekit.bundle.baking.sound import bake_log_mel, bake_waveform
from edgekit.bundle.write import Side
from edgekit.device.golden import Golden
from edgekit.device.model import max_difference
from edgekit.device.processing import (
    ClassificationPostprocessing,
    DetectionPostprocessing,
    ImagePreprocessing,
    LogMelPreprocessing,
    Postprocessing,
    Preprocessing,
    WaveformPreprocessing,
)
from edgekit.device.processing.classification import probabilities
from edgekit.device.session import open_session
from edgekit.errors import BundleError
from edgekit.spec import IOSpec, TensorSpec

SIDES = ("preprocessing", "postprocessing")
_DTYPES = {name: helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in ("float32", "uint8")}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Baked:
    """What goes into a bundle in place of what was given.

    Attributes:
        wrap: makes a variant's ONNX file into one that has the processing inside.
        spec, preprocessing, postprocessing, golden: of the new files.
        provenance: what was baked, and how far its inputs lie from numpy's at most.
    """

    wrap: Callable[[bytes, str], bytes]
    spec: IOSpec
    preprocessing: Preprocessing | None
    postprocessing: Postprocessing | None
    golden: tuple[Golden, ...]
    provenance: Mapping[str, Any]


def bake(
    sides: Sequence[Side],
    *,
    spec: IOSpec,
    preprocessing: Preprocessing | None,
    postprocessing: Postprocessing | None,
    golden: Sequence[Golden],
) -> Baked:
    """Plan files that take raw input, or give answers that need no arithmetic.

    `preprocessing`: an image as it is, uint8 [height, width, 3], in any size; or samples float32 [n]. Where boxes are
    found, they come out as corners in pixels of that image. `postprocessing`: of a classification, probabilities; of a
    detection, what non-maximum suppression leaves, `max_detections` boxes with scores (0 where there are fewer).

    Args:
        sides: what goes into the graph.
        spec: of the files as they are.
        preprocessing: of the bundle.
        postprocessing: of the bundle.
        golden: with raw input, if the preprocessing goes in: it becomes the inputs.

    Raises:
        BundleError: there is nothing to bake, no operators for it, or golden samples lack their raw input.
    """
    if not sides or set(sides) - set(SIDES):
        raise BundleError(f"got {list(sides)}", where="bake", rule=f"some of {', '.join(SIDES)}")
    front, back = "preprocessing" in sides, "postprocessing" in sides
    if front and not isinstance(preprocessing, ImagePreprocessing | LogMelPreprocessing | WaveformPreprocessing):
        raise BundleError(
            "no preprocessing" if preprocessing is None else f"preprocessing of the kind {preprocessing.kind}",
            where="bake",
            rule="ONNX has operators for the kinds image, log_mel and waveform",
        )
    if back and not isinstance(postprocessing, ClassificationPostprocessing | DetectionPostprocessing):
        raise BundleError(
            "no postprocessing" if postprocessing is None else f"postprocessing of the kind {postprocessing.kind}",
            where="bake",
            rule="ONNX has operators for the kinds classification and detection",
        )
    if front and (not golden or any(not isinstance(sample.raw, np.ndarray) for sample in golden)):
        raise BundleError(
            "golden samples without raw input" if golden else "no golden samples",
            where="bake",
            rule="raw input, on which the baked preprocessing is compared with numpy's",
            way_out="record golden samples from raw files (--raw photo.jpg)",
        )
    plan = _Plan(spec, preprocessing, postprocessing, front=front, back=back)
    baked = tuple(plan.golden(sample) for sample in golden)
    about: dict[str, Any] = {}
    if front and preprocessing is not None:
        about["preprocessing"] = preprocessing.to_dict()
        about["input_difference"] = plan.difference(golden)
    if back and postprocessing is not None:
        about["postprocessing"] = postprocessing.to_dict()
    return Baked(
        wrap=plan.wrap,
        spec=plan.spec,
        preprocessing=None if front else preprocessing,
        postprocessing=plan.postprocessing,
        golden=baked,
        provenance={"baked": about},
    )


class _Plan:
    """Names, shapes and nodes of the new files."""

    def __init__(
        self,
        spec: IOSpec,
        before: Preprocessing | None,
        after: Postprocessing | None,
        *,
        front: bool,
        back: bool,
    ) -> None:
        self.old, self.before, self.after = spec, before, after
        self.front, self.back = front, back
        self.inputs = (self._raw_input(),) if front else spec.inputs
        self.moved = isinstance(after, DetectionPostprocessing) and (front or back)
        replaced = self._new_outputs()
        self.spec = IOSpec(inputs=self.inputs, outputs=tuple(replaced.get(each.name, each) for each in spec.outputs))
        self.replaced = {old: new.name for old, new in replaced.items()}
        self.postprocessing = self._answer()

    def _raw_input(self) -> TensorSpec:
        taken = {tensor.name for tensor in (*self.old.inputs, *self.old.outputs)}
        kind, dtype, shape = (
            ("image", "uint8", ("height", "width", 3))
            if isinstance(self.before, ImagePreprocessing)
            else ("samples", "float32", ("samples",))
        )
        return TensorSpec(name=f"raw_{kind}" if kind in taken else kind, dtype=dtype, shape=shape)

    def _new_outputs(self) -> dict[str, TensorSpec]:
        """Outputs that take the place of others, by the others' names."""
        after, shapes = self.after, {each.name: each.shape for each in self.old.outputs}
        if isinstance(after, ClassificationPostprocessing) and self.back:
            name = f"{after.output}_probabilities"
            return {after.output: TensorSpec(name=name, dtype="float32", shape=shapes[after.output])}
        if not isinstance(after, DetectionPostprocessing) or not self.moved:
            return {}
        number: int | str = after.max_detections if self.back else shapes[after.boxes][1]
        boxes = TensorSpec(name=f"{after.boxes}_corners", dtype="float32", shape=(1, number, 4))
        if not self.back:
            return {after.boxes: boxes}
        classes = shapes[after.scores][2]
        return {
            after.boxes: boxes,
            after.scores: TensorSpec(name=f"{after.scores}_kept", dtype="float32", shape=(1, number, classes)),
        }

    def _answer(self) -> Postprocessing | None:
        after = self.after
        if isinstance(after, ClassificationPostprocessing) and self.back:
            return replace(after, output=self.replaced[after.output], scores="probabilities")
        if not isinstance(after, DetectionPostprocessing) or not self.moved:
            return after
        corners = replace(after, boxes=self.replaced[after.boxes], format="xyxy", strides=None, coordinates="pixels")
        if not self.back:
            return corners
        if after.score_threshold <= 0:
            raise BundleError(
                "score_threshold is 0", where="bake", rule="above 0: a score of 0 stands for no detection"
            )
        # What is left overlaps less than it may: nothing more is suppressed by an IoU of over 1.
        return replace(
            corners,
            scores=self.replaced[after.scores],
            activation="probabilities",
            background=None,
            iou_threshold=1.0,
        )

    def wrap(self, data: bytes, where: str) -> bytes:
        """The ONNX file `data` with the processing inside."""
        model = onnx.load_from_string(data)
        graph = BakedGraph(model, where)
        graph.free(self.inputs[0].name)
        placed: Placed | None = None
        if self.front:
            placed = self._front(graph)
        graph.behind()
        if isinstance(self.after, ClassificationPostprocessing) and self.back:
            self._classified(graph, self.after)
        if isinstance(self.after, DetectionPostprocessing) and self.moved:
            self._detected(graph, self.after, placed)
        inputs = [_value(each) for each in self.inputs] if self.front else list(model.graph.input)
        old = {each.name: each for each in model.graph.output}
        outputs = [old.get(each.name) or _value(each) for each in self.spec.outputs]
        made = graph.finish(inputs, outputs)
        return bytes(made.SerializeToString())

    def _front(self, graph: BakedGraph) -> Placed | None:
        source, target = self.inputs[0].name, self.old.inputs[0].name
        if isinstance(self.before, ImagePreprocessing):
            return bake_image(graph, self.before, source, target)
        if isinstance(self.before, WaveformPreprocessing):
            bake_waveform(graph, self.before, source, target)
            return None
        assert isinstance(self.before, LogMelPreprocessing)
        bake_log_mel(graph, self.before, source, target)
        return None

    def _classified(self, graph: BakedGraph, after: ClassificationPostprocessing) -> None:
        operator = {"softmax": "Softmax", "sigmoid": "Sigmoid", "probabilities": "Identity"}[after.scores]
        options: dict[str, Any] = {"axis": -1} if operator == "Softmax" else {}
        graph.add(operator, after.output, into=self.replaced[after.output], **options)

    def _detected(self, graph: BakedGraph, after: DetectionPostprocessing, placed: Placed | None) -> None:
        size = self._size()
        target = self.replaced[after.boxes]
        boxes = bake_corners(graph, after, size)
        if placed is not None:
            boxes = way_back(graph, boxes, placed)
        if self.back:
            bake_suppression(graph, after, boxes, target, self.replaced[after.scores])
        else:
            graph.add("Identity", boxes, into=target)

    def _size(self) -> tuple[int, int]:
        if isinstance(self.before, ImagePreprocessing):
            return self.before.size
        shape = self.old.inputs[0].shape
        if len(shape) != 4 or not isinstance(shape[2], int) or not isinstance(shape[3], int):
            raise BundleError(
                f"an input {list(shape)}", where="bake", rule="boxes need an image preprocessing, or a fixed input"
            )
        return shape[2], shape[3]

    def golden(self, sample: Golden) -> Golden:
        """The sample for the new files: raw input, and outputs as the numpy implementation has them."""
        outputs = {name: value for name, value in sample.outputs.items() if name not in self.replaced}
        after = self.after
        if isinstance(after, ClassificationPostprocessing) and self.back:
            made = probabilities(sample.outputs[after.output], after.scores)
            outputs[self.replaced[after.output]] = made.astype(np.float32)
        if isinstance(after, DetectionPostprocessing) and self.moved:
            outputs |= self._golden_boxes(after, sample)
        ordered = {each.name: outputs[each.name] for each in self.spec.outputs}
        if not self.front:
            return replace(sample, outputs=ordered)
        assert isinstance(sample.raw, np.ndarray)
        raw = sample.raw
        if isinstance(self.before, ImagePreprocessing) and (raw.ndim == 2 or raw.shape[2] == 1):
            raw = np.repeat(raw.reshape(*raw.shape[:2], 1), 3, axis=2)
        return Golden(inputs={self.inputs[0].name: raw}, outputs=ordered)

    def _golden_boxes(self, after: DetectionPostprocessing, sample: Golden) -> dict[str, np.ndarray]:
        boxes = after.decoded(sample.outputs[after.boxes][0], self._size())
        if self.front and isinstance(self.before, ImagePreprocessing) and isinstance(sample.raw, np.ndarray):
            boxes = self.before.geometry((sample.raw.shape[0], sample.raw.shape[1])).back(boxes)
        name = self.replaced[after.boxes]
        if not self.back:
            return {name: boxes.astype(np.float32)[None]}
        scores = probabilities(sample.outputs[after.scores][0], after.activation)
        found, classes, confidences = after.suppressed(boxes, scores)
        kept = np.zeros((1, after.max_detections, 4), np.float32)
        marks = np.zeros((1, after.max_detections, scores.shape[1]), np.float32)
        kept[0, : len(found)] = found
        marks[0, np.arange(len(found)), classes] = confidences
        return {name: kept, self.replaced[after.scores]: marks}

    def difference(self, golden: Sequence[Golden]) -> float:
        """How far the graph's inputs to the model lie from numpy's at most, on the golden samples."""
        tensor = self.old.inputs[0]
        # The model itself is left out: it passes on what it is given.
        shape: list[int | str] = [str(each) for each in range(len(tensor.shape))]
        value = helper.make_tensor_value_info(tensor.name, _DTYPES["float32"], shape)
        through = helper.make_tensor_value_info(f"{tensor.name}_seen", _DTYPES["float32"], shape)
        bare = helper.make_graph(
            [helper.make_node("Identity", [tensor.name], [through.name])], "preprocessing", [value], [through]
        )
        model = helper.make_model(bare, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        graph = BakedGraph(model, "preprocessing")
        self._front(graph)
        made = graph.finish([_value(self.inputs[0])], [through])
        session = open_session(bytes(made.SerializeToString()))
        worst = 0.0
        for sample in golden:
            (seen,) = session.run(None, dict(self.golden(sample).inputs))
            worst = max(worst, max_difference(seen, sample.inputs[tensor.name]))
        return worst


def _value(tensor: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, _DTYPES[tensor.dtype], list(tensor.shape))
