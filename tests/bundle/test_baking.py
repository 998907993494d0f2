from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.bundle import Golden, Variant, inspect, record_golden
from edgekit.bundle.baking import bake
from edgekit.device import (
    ClassificationPostprocessing,
    DetectionPostprocessing,
    ImagePreprocessing,
    LogMelPreprocessing,
    WaveformPreprocessing,
    load,
)
from edgekit.errors import BundleError
from edgekit.spec import IOSpec, TensorSpec

RANDOM = np.random.default_rng(0)
MEAN = {"mean": (0.5, 0.4, 0.3), "std": (0.25, 0.2, 0.3)}
FITS = {
    "stretch": {},
    "resize-crop": {"shorter_side": 13},
    "crop-resize": {},
    "letterbox": {"pad": 114},
}
FILTERS = [("bilinear", True), ("bilinear", False), ("bicubic", True), ("bicubic", False), ("nearest", False)]


def spec_of(x, outputs):
    return IOSpec(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", *x.shape[1:])),),
        outputs=tuple(TensorSpec(name=name, dtype="float32", shape=shape) for name, shape in outputs.items()),
    )


def noise(height, width):
    return RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("fit", "how"), list(itertools.product(FITS, FILTERS)))
def test_images_come_out_to_the_level(fit, how):
    filter_, antialias = how
    prepare = ImagePreprocessing(
        size=(12, 10), fit=fit, filter=filter_, antialias=antialias, scale=1.0, **FITS[fit], layout="NHWC"
    )
    images = [noise(*size) for size in ((12, 10), (31, 19), (19, 31), (5, 40), (9, 8), (40, 13))]
    golden = [Golden(inputs={"x": prepare.apply(image)}, outputs={"y": np.zeros(1)}, raw=image) for image in images]
    spec = spec_of(golden[0].inputs["x"], {"y": (1,)})
    made = bake(["preprocessing"], spec=spec, preprocessing=prepare, postprocessing=None, golden=golden)
    # A level at most, where float32 and 22-bit fixed point round differently.
    assert made.provenance["baked"]["input_difference"] <= 1.0
    assert made.preprocessing is None
    assert made.spec.inputs == (TensorSpec(name="image", dtype="uint8", shape=("height", "width", 3)),)


@pytest.mark.parametrize(
    "options", [{"colour": "BGR", **MEAN}, {"mean": (0.5,), "std": (0.2,)}, MEAN, {"layout": "NHWC", **MEAN}]
)
def test_colours_and_layouts(options):
    prepare = ImagePreprocessing(size=(7, 9), **options)
    golden = [Golden(inputs={"x": prepare.apply(noise(7, 9))}, outputs={"y": np.zeros(1)}, raw=noise(7, 9))]
    image = golden[0].raw
    golden = [Golden(inputs={"x": prepare.apply(image)}, outputs={"y": np.zeros(1)}, raw=image)]
    spec = spec_of(golden[0].inputs["x"], {"y": (1,)})
    made = bake(["preprocessing"], spec=spec, preprocessing=prepare, postprocessing=None, golden=golden)
    assert made.provenance["baked"]["input_difference"] <= 1e-5


@pytest.mark.parametrize(
    "options",
    [
        {"samples": 800},
        {"fft": 80, "window_function": "hann_symmetric", "power": 1, "layout": "1FT"},
        {"fft": 100, "centre": True, "mel_scale": "slaney", "norm": "slaney", "log": "log10"},
        {"fft": 75, "centre": True, "floor_by": "max", "mean": -4.0, "std": 4.0, "layout": "FT"},
    ],
)
def test_sound_comes_out_to_float32(options):
    prepare = LogMelPreprocessing(sample_rate=8000, window=64, hop=24, mels=9, **options)
    sounds = [(0.2 * RANDOM.standard_normal(n)).astype(np.float32) for n in (800, 650, 1300, 20)]
    golden = [Golden(inputs={"x": prepare.apply(sound)}, outputs={"y": np.zeros(1)}, raw=sound) for sound in sounds]
    spec = spec_of(golden[0].inputs["x"], {"y": (1,)})
    made = bake(["preprocessing"], spec=spec, preprocessing=prepare, postprocessing=None, golden=golden)
    assert made.provenance["baked"]["input_difference"] <= 2e-4
    assert made.spec.inputs == (TensorSpec(name="samples", dtype="float32", shape=("samples",)),)


@pytest.mark.parametrize("samples", [None, 800])
@pytest.mark.parametrize(("normalize", "layout"), [(None, "T"), ("recording", "1T"), ("input", "T")])
def test_waveforms_come_out_to_float32(samples, normalize, layout):
    prepare = WaveformPreprocessing(sample_rate=8000, samples=samples, normalize=normalize, layout=layout)
    sounds = [(0.2 + 0.1 * RANDOM.standard_normal(n)).astype(np.float32) for n in (800, 650, 1300, 20)]
    golden = [Golden(inputs={"x": prepare.apply(sound)}, outputs={"y": np.zeros(1)}, raw=sound) for sound in sounds]
    spec = spec_of(golden[0].inputs["x"], {"y": (1,)})
    made = bake(["preprocessing"], spec=spec, preprocessing=prepare, postprocessing=None, golden=golden)
    assert made.provenance["baked"]["input_difference"] <= 1e-6
    assert made.spec.inputs == (TensorSpec(name="samples", dtype="float32", shape=("samples",)),)


PREPARE = ImagePreprocessing(size=(6, 6), fit="letterbox", pad=0, **MEAN)


def classifier(path, *, int8=False):
    """y [batch, 4] = flatten(x) @ w, with Q and DQ around the input or without."""
    weights = np.random.default_rng(1).standard_normal((108, 4)).astype(np.float32)
    nodes = [helper.make_node("Flatten", ["x"], ["flat"])]
    constants = [numpy_helper.from_array(weights, "w")]
    if int8:
        nodes += [
            helper.make_node("QuantizeLinear", ["flat", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["dq"]),
        ]
        constants += [helper.make_tensor("s", TensorProto.FLOAT, [], [0.04])]
        constants += [helper.make_tensor("z", TensorProto.UINT8, [], [128])]
    nodes += [helper.make_node("MatMul", ["dq" if int8 else "flat", "w"], ["y"])]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["batch", 3, 6, 6])],
        [value("y", TensorProto.FLOAT, ["batch", 4])],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.parametrize("sides", [("preprocessing",), ("postprocessing",), ("preprocessing", "postprocessing")])
def test_a_baked_bundle_says_what_the_other_says(write, tmp_path, sides):
    fp32, int8 = classifier(tmp_path / "f.onnx"), classifier(tmp_path / "q.onnx", int8=True)
    images = [noise(9, 14), noise(6, 6), noise(20, 7)]
    inputs = [{"x": PREPARE.apply(image)} for image in images]
    arguments = {
        "variants": {"cpu": Variant(path=fp32), "arm": Variant(path=int8, precision="int8", target="arm64")},
        "spec": spec_of(inputs[0]["x"], {"y": ("batch", 4)}),
        "preprocessing": PREPARE,
        "golden": record_golden(fp32, inputs, raw=images),
    }
    plain, baked = load(write("plain", **arguments)), load(write("baked", **arguments, bake=sides))
    assert baked.check().samples == 3
    for image in (*images, noise(50, 31)):
        one, other = plain.predict(image), baked.predict(image)
        assert one.label == other.label
        assert np.allclose(one.probabilities, other.probabilities, atol=0.02)
    assert (baked.preprocessing is None) == ("preprocessing" in sides)
    about = baked.metadata["baked"]
    if "preprocessing" in sides:
        assert about["preprocessing"] == PREPARE.to_dict()
        assert about["input_difference"] <= 1 / 255 / 0.2 * 1.001
        from PIL import Image

        Image.fromarray(images[0]).save(tmp_path / "a.png")
        assert baked.predict(tmp_path / "a.png").label == plain.predict(images[0]).label
    if "postprocessing" in sides:
        assert baked.postprocessing.scores == "probabilities"
        assert baked.spec.outputs[0].name == "y_probabilities"
    # The int8 file has it inside, too, and its Q and DQ are still there.
    operators = inspect(tmp_path / "baked")["variants"][1]["graph"]["operators"]
    assert operators["QuantizeLinear"] == 1
    assert ("Resize" in operators) == ("preprocessing" in sides)
    assert ("Softmax" in operators) == ("postprocessing" in sides)


def detector(path, boxes, scores):
    """An input that nobody looks at, and the same boxes always."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"{name}_"], [name]) for name in ("boxes", "scores")],
        "g",
        [value("x", TensorProto.FLOAT, ["batch", 3, 6, 6])],
        [value("boxes", TensorProto.FLOAT, boxes.shape), value("scores", TensorProto.FLOAT, scores.shape)],
        [numpy_helper.from_array(boxes, "boxes_"), numpy_helper.from_array(scores, "scores_")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.parametrize("sides", [("preprocessing",), ("postprocessing",), ("preprocessing", "postprocessing")])
@pytest.mark.parametrize(
    "options",
    [
        {"activation": "sigmoid"},
        {"activation": "softmax", "format": "cxcywh", "coordinates": "relative", "background": 1},
        {"activation": "sigmoid", "format": "ltrb", "strides": (2, 3), "class_agnostic": True},
        {"activation": "sigmoid", "score_threshold": 1.0},
    ],
)
def test_a_baked_detector_finds_what_the_other_finds(write, tmp_path, sides, options):
    after = DetectionPostprocessing(
        boxes="boxes", scores="scores", **{"score_threshold": 0.4, "max_detections": 8, "iou_threshold": 0.3, **options}
    )
    random = np.random.default_rng(3)
    n = len(after.cells((6, 6))) if after.format == "ltrb" else 20
    corners = np.sort(random.uniform(0, 6, (1, n, 2, 2)), axis=2).reshape(1, n, 4)
    boxes = {"xyxy": corners, "cxcywh": corners / 6, "ltrb": random.uniform(0, 2, (1, n, 4))}[after.format]
    path = detector(tmp_path / "d.onnx", boxes.astype(np.float32), random.normal(0, 2, (1, n, 3)).astype(np.float32))
    images = [noise(9, 14), noise(20, 7)]
    inputs = [{"x": PREPARE.apply(image)} for image in images]
    outputs = {"boxes": (1, n, 4), "scores": (1, n, 3)}
    arguments = {
        "variants": {"cpu": Variant(path=path)},
        "spec": spec_of(inputs[0]["x"], outputs),
        "preprocessing": PREPARE,
        "postprocessing": after,
        "labels": ("a", "b", "c"),
        "golden": record_golden(path, inputs, raw=images),
    }
    plain, baked = load(write("plain", **arguments)), load(write("baked", **arguments, bake=sides))
    assert baked.check().samples == 2
    for image in (*images, noise(31, 40)):
        expected, found = plain.predict(image), baked.predict(image)
        assert bool(expected) == (after.score_threshold < 1)
        assert [each.label for each in found] == [each.label for each in expected]
        assert np.allclose([each.confidence for each in found], [each.confidence for each in expected], atol=1e-5)
        boxes_of = [[each.box for each in answer] for answer in (found, expected)]
        assert np.allclose(*boxes_of, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"sides": ()}, "got []\n  where: bake"),
        ({"sides": ("magic",)}, "some of preprocessing, postprocessing"),
        ({"preprocessing": None}, "no preprocessing\n  where: bake"),
        ({"golden": []}, "no golden samples"),
        ({"golden": [Golden(inputs={}, outputs={})]}, "golden samples without raw input"),
        ({"sides": ("postprocessing",)}, "no postprocessing\n  where: bake"),
    ],
)
def test_what_cannot_be_baked(change, text):
    arguments = {
        "sides": ("preprocessing",),
        "spec": spec_of(np.zeros((1, 3, 6, 6)), {"y": ("batch", 4)}),
        "preprocessing": PREPARE,
        "postprocessing": None,
        "golden": [],
    }
    with pytest.raises(BundleError) as caught:
        bake(**{**arguments, **change})
    assert text in str(caught.value)


def test_an_old_operator_set_is_refused(tmp_path):
    path = classifier(tmp_path / "m.onnx")
    old = onnx.load(path)
    old.opset_import[0].version = 17
    made = bake(
        ["postprocessing"],
        spec=spec_of(np.zeros((1, 3, 6, 6)), {"y": ("batch", 4)}),
        preprocessing=None,
        postprocessing=ClassificationPostprocessing(output="y"),
        golden=[],
    )
    with pytest.raises(BundleError, match="operator set 17"):
        made.wrap(old.SerializeToString(), "m.onnx")
