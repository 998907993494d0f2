"""Pre- and postprocessing inside the graph: an app then hands over bytes or samples, whatever language it is in.

Only ONNX's own operators. They may round otherwise than the numpy implementation, which is what training saw: how far
the inputs lie apart on the golden samples is measured and recorded, and the variants' tolerances are measured with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgekit.bundle.baked_graph import BakedGraph
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
from edgekit.device.processing.waveform import EPSILON
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """Where an image landed, as values in the graph: int64 [2] each, height or top first."""

    cut: str
    corner: str
    resized: str
    offset: str


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
        placed: _Placed | None = None
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

    def _front(self, graph: BakedGraph) -> _Placed | None:
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

    def _detected(self, graph: BakedGraph, after: DetectionPostprocessing, placed: _Placed | None) -> None:
        size = self._size()
        target = self.replaced[after.boxes]
        boxes = bake_corners(graph, after, size)
        if placed is not None:
            boxes = _way_back(graph, boxes, placed)
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


def bake_image(graph: BakedGraph, prepare: ImagePreprocessing, source: str, target: str) -> _Placed:
    """Nodes from `source` uint8 [height, width, 3] to `target` float32, and where the image landed."""
    pixels = _coloured(graph, prepare, source)
    planes = graph.add("Unsqueeze", graph.add("Transpose", pixels, perm=[2, 0, 1]), _int64(0))
    dims = graph.add("Slice", graph.add("Shape", source), _int64(0), _int64(2))
    size = _int64(*prepare.size)
    placed = _place(graph, prepare, dims)
    if prepare.fit == "crop-resize":
        planes = _slice(graph, planes, placed.corner, placed.cut)
    planes = _resized(graph, prepare, planes, placed.resized)
    if prepare.fit == "resize-crop":
        planes = _slice(graph, planes, graph.add("Neg", placed.offset), graph.constant(size))
    if prepare.fit == "letterbox":
        after = graph.add("Sub", graph.add("Sub", size, placed.resized), placed.offset)
        pads = graph.add("Concat", _int64(0, 0), placed.offset, _int64(0, 0), after, axis=0)
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
        total = graph.add("ReduceSum", luma, _int64(2), keepdims=1)
        grey = graph.add("Div", graph.add("Add", total, np.array(0x8000, np.int32)), np.array(1 << 16, np.int32))
        return graph.add("Cast", grey, to=TensorProto.UINT8)
    return graph.add("Gather", source, _int64(2, 1, 0), axis=2) if prepare.colour == "BGR" else source


def _place(graph: BakedGraph, prepare: ImagePreprocessing, dims: str) -> _Placed:
    """As `edgekit.device.processing.geometry`, of an image whose height and width are the values `dims`."""
    size, nothing = graph.constant(_int64(*prepare.size)), graph.constant(_int64(0, 0))
    one, two = graph.constant(_int64(1)), graph.constant(_int64(2))
    if prepare.fit == "resize-crop":
        side = _int64(prepare.shorter_side or 0)
        resized = graph.add("Div", graph.add("Mul", dims, side), graph.add("ReduceMin", dims, keepdims=1))
        left = graph.add("Sub", resized, size)
        half = graph.add("Div", left, two)
        # Half of an odd number is rounded to the even neighbour.
        odd = graph.add("Mul", graph.add("Mod", left, two), graph.add("Mod", half, two))
        return _Placed(cut=dims, corner=nothing, resized=resized, offset=graph.add("Neg", graph.add("Add", half, odd)))
    if prepare.fit == "crop-resize":
        crosswise = graph.add("Mul", graph.add("Gather", dims, _int64(1, 0)), size)
        wanted = graph.add("Max", graph.add("Div", crosswise, _int64(*prepare.size[::-1])), one)
        cut = graph.add("Min", dims, wanted)
        return _Placed(cut=cut, corner=graph.add("Div", graph.add("Sub", dims, cut), two), resized=size, offset=nothing)
    if prepare.fit == "letterbox":
        exact = graph.add("Cast", dims, to=TensorProto.DOUBLE)
        factor = graph.add("ReduceMin", graph.add("Div", np.array(prepare.size, np.float64), exact), keepdims=1)
        rounded = graph.add("Floor", graph.add("Add", graph.add("Mul", exact, factor), np.array(0.5)))
        whole = graph.add("Cast", rounded, to=TensorProto.INT64)
        resized = graph.add("Max", graph.add("Min", whole, size), one)
        offset = graph.add("Div", graph.add("Sub", size, resized), two)
        return _Placed(cut=dims, corner=nothing, resized=resized, offset=offset)
    return _Placed(cut=dims, corner=nothing, resized=size, offset=nothing)


def _resized(graph: BakedGraph, prepare: ImagePreprocessing, planes: str, size: str) -> str:
    """Float32 planes of whole numbers from uint8 [1, C, h, w]."""
    if prepare.filter == "nearest":
        for axis in (2, 3):
            _, new, step = _lengths(graph, planes, size, axis)
            # Added up as Pillow does, since multiplication rounds differently at ties.
            first = graph.add("Mul", step, np.array([0.5]))
            others = graph.add("Expand", step, graph.add("Sub", new, _int64(1)))
            places = graph.add("CumSum", graph.add("Concat", first, others, axis=0), np.array(0, np.int64))
            planes = graph.add("Gather", planes, graph.add("Cast", places, to=TensorProto.INT64), axis=axis)
        return graph.add("Cast", planes, to=TensorProto.FLOAT)
    sizes = graph.add("Concat", _int64(1, prepare.channels), size, axis=0)
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
    old = graph.add("Slice", graph.add("Shape", planes), _int64(axis), _int64(axis + 1))
    new = graph.add("Slice", size, _int64(axis - 2), _int64(axis - 1))
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
    whole, last = graph.add("Cast", base, to=TensorProto.INT64), graph.add("Sub", old, _int64(1))
    near, far = (1.25, -2.25, 0.0, 1.0), (-0.75, 3.75, -6.0, 3.0)  # Keys' cubic with a = -0.75, highest power first
    total = ""
    for tap, curve in ((-1, far), (0, near), (1, near), (2, far)):
        distance = graph.add("Abs", graph.add("Sub", part, np.array(float(tap))))
        weight = graph.constant(np.array(curve[0]))
        for coefficient in curve[1:]:
            weight = graph.add("Add", graph.add("Mul", weight, distance), np.array(coefficient))
        index = graph.add("Min", graph.add("Max", graph.add("Add", whole, _int64(tap)), _int64(0)), last)
        if axis == 2:
            weight = graph.add("Unsqueeze", weight, _int64(1))
        share = graph.add("Mul", graph.add("Gather", planes, index, axis=axis), weight)
        total = graph.add("Add", total, share) if total else share
    return total


def _slice(graph: BakedGraph, planes: str, corner: str, size: str) -> str:
    return graph.add("Slice", planes, corner, graph.add("Add", corner, size), _int64(2, 3))


def bake_log_mel(graph: BakedGraph, prepare: LogMelPreprocessing, source: str, target: str) -> None:
    """Nodes from `source` float32 [n] to `target`: the windowed transform is a convolution over the samples."""
    length = graph.add("Shape", source)
    wanted = prepare.samples or prepare.shortest
    missing = graph.add("Max", graph.add("Sub", _int64(wanted), length), _int64(0))
    filled = graph.add("Pad", source, graph.add("Concat", _int64(0), missing, axis=0))
    if prepare.samples is not None:
        filled = graph.add("Slice", filled, _int64(0), _int64(prepare.samples))
    if prepare.centre:
        half = prepare.transform // 2
        filled = graph.add("Pad", filled, _int64(half, half), mode="reflect")
    window = prepare.window_values()
    if prepare.centre:
        # Zeros around the window, so that there are as many frames as in numpy.
        before = (prepare.transform - prepare.window) // 2
        window = np.pad(window, (before, prepare.transform - prepare.window - before))
    bins = prepare.transform // 2 + 1
    phase = 2 * np.pi * np.outer(np.arange(bins), np.arange(len(window))) / prepare.transform
    kernels = np.concatenate([np.cos(phase), np.sin(phase)]) * window
    rows = graph.add("Unsqueeze", filled, _int64(0, 1))
    waves = graph.add("Conv", rows, kernels.astype(np.float32)[:, None, :], strides=[prepare.hop])
    squares = graph.add("Mul", waves, waves)
    halves = [graph.add("Slice", squares, _int64(at), _int64(at + bins), _int64(1)) for at in (0, bins)]
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
        graph.add("Unsqueeze", shaped, _int64(1), into=target)
    else:
        graph.add("Identity", shaped, into=target)


def bake_waveform(graph: BakedGraph, prepare: WaveformPreprocessing, source: str, target: str) -> None:
    """Nodes from `source` float32 [n] to `target`; figures are taken in float64, as a long recording needs them."""
    samples = source
    if prepare.samples is not None:
        samples = graph.add("Slice", samples, _int64(0), _int64(prepare.samples))
    if prepare.normalize == "recording":
        samples = _normal(graph, samples)
    if prepare.samples is not None:
        missing = graph.add("Sub", _int64(prepare.samples), graph.add("Shape", samples))
        samples = graph.add("Pad", samples, graph.add("Concat", _int64(0), missing, axis=0))
    if prepare.normalize == "input":
        samples = _normal(graph, samples)
    graph.add("Unsqueeze", samples, _int64(*range(len(prepare.layout))), into=target)


def _normal(graph: BakedGraph, samples: str) -> str:
    wide = graph.add("Cast", samples, to=TensorProto.DOUBLE)
    centred = graph.add("Sub", wide, graph.add("ReduceMean", wide, _int64(0), keepdims=1))
    variance = graph.add("ReduceMean", graph.add("Mul", centred, centred), _int64(0), keepdims=1)
    spread = graph.add("Sqrt", graph.add("Add", variance, np.array(EPSILON)))
    return graph.add("Cast", graph.add("Div", centred, spread), to=TensorProto.FLOAT)


def bake_corners(graph: BakedGraph, after: DetectionPostprocessing, size: tuple[int, int]) -> str:
    """Corners float32 [1, n, 4] in pixels of the model's input, from its boxes."""
    boxes = after.boxes
    if after.format != "xyxy":
        first = graph.add("Slice", boxes, _int64(0), _int64(2), _int64(2))
        second = graph.add("Slice", boxes, _int64(2), _int64(4), _int64(2))
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


def _way_back(graph: BakedGraph, boxes: str, placed: _Placed) -> str:
    """Corners in pixels of the image as it was given."""

    def sides(value: str) -> str:
        return graph.add("Cast", graph.add("Gather", value, _int64(1, 0, 1, 0)), to=TensorProto.FLOAT)

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
    classes = graph.add("Slice", graph.add("Shape", scores), _int64(2), _int64(3))
    if after.background is not None:
        kinds = graph.add("Range", np.array(0, np.int64), graph.add("Squeeze", classes), np.array(1, np.int64))
        is_object = graph.add("Not", graph.add("Equal", kinds, _int64(after.background)))
        scores = graph.add("Mul", scores, graph.add("Cast", is_object, to=TensorProto.FLOAT))
    # ONNX wants a score above the threshold, and we one that is not below it.
    threshold = np.nextafter(np.float32(after.score_threshold), np.float32(0))
    limits = (
        _int64(after.max_detections),
        np.array([after.iou_threshold], np.float32),
        np.array([threshold], np.float32),
    )
    if after.class_agnostic:
        # Each pair of box and class is a box of its own, all of one class.
        spread = graph.add("Concat", _int64(1, 1), classes, _int64(1), axis=0)
        pairs = graph.add(
            "Reshape", graph.add("Expand", graph.add("Unsqueeze", boxes, _int64(2)), spread), _int64(1, -1, 4)
        )
        kept = graph.add("NonMaxSuppression", pairs, graph.add("Reshape", scores, _int64(1, 1, -1)), *limits)
        number = graph.add("Gather", kept, _int64(2), axis=1)  # [k, 1]
        box, kind = graph.add("Div", number, classes), graph.add("Mod", number, classes)
    else:
        kept = graph.add("NonMaxSuppression", boxes, graph.add("Transpose", scores, perm=[0, 2, 1]), *limits)
        box, kind = (graph.add("Gather", kept, _int64(column), axis=1) for column in (2, 1))
    batch = graph.add("Sub", box, box)
    found = graph.add("GatherND", scores, graph.add("Concat", batch, box, kind, axis=1))  # [k]
    count = graph.add("Min", graph.add("Shape", found), _int64(after.max_detections))
    best, order = graph.add_pair("TopK", found, count, axis=0)
    # [count, classes]: the score in the column of its class.
    marks = graph.add(
        "OneHot",
        graph.add("Gather", graph.add("Squeeze", kind, _int64(1)), order),
        classes,
        np.array([0, 1], np.float32),
    )
    rows = graph.add("Mul", marks, graph.add("Unsqueeze", best, _int64(1)))
    corners = graph.add(
        "Gather",
        graph.add("Squeeze", boxes, _int64(0)),
        graph.add("Gather", graph.add("Squeeze", box, _int64(1)), order),
    )
    missing = graph.add("Sub", _int64(after.max_detections), count)
    pads = graph.add("Concat", _int64(0, 0), missing, _int64(0), axis=0)
    for value, target in ((corners, to_boxes), (rows, to_scores)):
        graph.add("Unsqueeze", graph.add("Pad", value, pads), _int64(0), into=target)


def _value(tensor: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, _DTYPES[tensor.dtype], list(tensor.shape))


def _int64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)
