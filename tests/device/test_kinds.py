"""Bundles of each kind, from raw input to the answer: sound, text and boxes."""

from __future__ import annotations

import json
import wave

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgekit.bundle import Golden, Variant, record_golden, write_bundle
from edgekit.device import (
    DetectionPostprocessing,
    ImagePreprocessing,
    LogMelPreprocessing,
    TextPostprocessing,
    TokenInputs,
    WordpiecePreprocessing,
    load,
)
from edgekit.device.__main__ import main
from edgekit.errors import BundleError, DataError
from edgekit.spec import IOSpec, TensorSpec

TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


def io(name, dtype, *shape):
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def save(path, nodes, inputs, outputs, constants=()):
    values = [
        [helper.make_tensor_value_info(t.name, TYPES[t.dtype], t.shape) for t in side] for side in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "g", *values, list(constants))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path, IOSpec(inputs=tuple(inputs), outputs=tuple(outputs))


def run(capsys, *words):
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


@pytest.fixture
def sound_bundle(tmp_path):
    """Loud or quiet: the mean of the features against a threshold."""
    prepare = LogMelPreprocessing(sample_rate=8000, samples=800, window=64, hop=32, mels=8, mean=-7.0)
    frames = prepare.frames(800)
    weights = np.array([[1.0, -1.0]], np.float32)
    path, spec = save(
        tmp_path / "s.onnx",
        [
            helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
            helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
            helper.make_node("MatMul", ["column", "w"], ["y"]),
        ],
        [io("x", "float32", "batch", frames, 8)],
        [io("y", "float32", "batch", 2)],
        [
            numpy_helper.from_array(np.array([1, 2]), "axes"),
            numpy_helper.from_array(np.array([1]), "last"),
            numpy_helper.from_array(weights, "w"),
        ],
    )
    loud = np.sin(np.arange(900) * 0.7).astype(np.float32)
    golden = record_golden(path, [{"x": prepare.apply(loud)}], raw=[loud])
    folder = write_bundle(
        tmp_path / "sound.edgekit",
        name="loudness",
        variants={"cpu": Variant(path=path)},
        spec=spec,
        preprocessing=prepare,
        labels=("loud", "quiet"),
        golden=golden,
    )
    return folder, loud


def test_sound(sound_bundle, tmp_path, capsys):
    folder, loud = sound_bundle
    model = load(folder)
    assert model.check().samples == 1
    assert model.predict(loud).label == "loud"
    assert model.predict(loud / 10_000).label == "quiet"
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((2, 2, 8000, 0, "NONE", ""))
        file.writeframes(np.repeat((loud * 30000).astype("<i2"), 2).tobytes())
    assert model.predict(tmp_path / "a.wav").label == model.predict(str(tmp_path / "a.wav")).label == "loud"
    assert [label for label, _ in model.predict(loud).top()] == ["loud", "quiet"]
    out = run(capsys, "run", folder, tmp_path / "a.wav")
    assert out.startswith("loud (")
    assert "quiet (" in out
    features = model.preprocessing.apply(loud)
    assert model.predict(features).label == model.predict(features[0]).label == "loud"
    with wave.open(str(tmp_path / "b.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(bytes(200))
    with pytest.raises(DataError, match="the model takes 8000 Hz"):
        model.predict(tmp_path / "b.wav")
    with pytest.raises(DataError, match="where: sound"):
        model.predict(np.zeros((3, 3), np.float32))


@pytest.fixture
def text_bundle(tmp_path):
    """Every word again: the ids go through, where the mask says that there is a word."""
    before = WordpiecePreprocessing(inputs=TokenInputs(ids="ids", mask="mask"), length=8)
    after = TextPostprocessing(output="again", skip=("[CLS]", "[PAD]"), stop="[SEP]")
    shape = ("batch", 8)
    path, spec = save(
        tmp_path / "t.onnx",
        [helper.make_node("Mul", ["ids", "mask"], ["again"])],
        [io("ids", "int64", *shape), io("mask", "int64", *shape)],
        [io("again", "int64", *shape)],
    )
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nhello\nworld\n##s\né\n", encoding="utf-8")
    from edgekit.device import Vocabulary

    known = Vocabulary.parse(vocabulary.read_bytes())
    texts = ["Hello worlds", "é?"]
    arguments = {
        "name": "echo",
        "variants": {"cpu": Variant(path=path)},
        "spec": spec,
        "preprocessing": before,
        "postprocessing": after,
        "golden": record_golden(path, [before.apply(text, known) for text in texts], raw=texts),
        "files": {"edgekit/vocabulary.txt": vocabulary},
    }
    return write_bundle(tmp_path / "text.edgekit", **arguments), arguments


def test_text(text_bundle, tmp_path, capsys):
    folder, _ = text_bundle
    model = load(folder)
    assert model.check().samples == 2
    assert [sample.raw for sample in model.golden()] == ["Hello worlds", "é?"]
    assert model.predict("HELLO  worlds") == "hello worlds"
    assert model.predict("something.npz") == "[UNK] [UNK] [UNK]"
    (tmp_path / "a.txt").write_text("hello", encoding="utf-8")
    assert model.predict(tmp_path / "a.txt") == "hello"
    with pytest.raises(DataError, match="cannot read"):
        model.predict(tmp_path / "absent.txt")
    with pytest.raises(DataError, match="inputs ids, mask"):
        model.predict(np.zeros((1, 8), np.int64))
    assert run(capsys, "run", folder, "hello world") == "hello world\n"
    assert run(capsys, "run", folder, tmp_path / "a.txt") == "hello\n"
    assert json.loads(run(capsys, "run", "--json", folder, "hello")) == "hello"


def test_a_vocabulary_is_needed_and_must_fit(text_bundle, tmp_path, reseal):
    folder, arguments = text_bundle
    with pytest.raises(BundleError, match=r"edgekit/vocabulary\.txt is not there"):
        write_bundle(tmp_path / "b", **{**arguments, "files": {}})
    with pytest.raises(BundleError, match=r"got '\[PAD\]'\n  where: preprocessing\.padding"):
        write_bundle(tmp_path / "b", **{**arguments, "files": {"edgekit/vocabulary.txt": b"[UNK]\n[CLS]\n[SEP]"}})
    reseal(folder, **{"edgekit/vocabulary.txt": b"a\na\n"})
    with pytest.raises(BundleError, match="stands there twice"):
        load(folder)
    reseal(folder, lambda about: about["files"].pop("edgekit/vocabulary.txt"))
    with pytest.raises(BundleError, match=r"edgekit/vocabulary\.txt is not listed"):
        load(folder)


@pytest.fixture
def detector_bundle(tmp_path):
    """Two boxes for any image."""
    prepare = ImagePreprocessing(size=(8, 8), fit="letterbox", pad=0)
    boxes = np.array([[[1, 3, 3, 5], [4, 3, 8, 5], [4, 3, 8, 4.8]]], np.float32)
    scores = np.array([[[0.9, 0.1], [0.2, 0.8], [0.1, 0.7]]], np.float32)
    path, spec = save(
        tmp_path / "d.onnx",
        [helper.make_node("Identity", ["b"], ["boxes"]), helper.make_node("Identity", ["s"], ["scores"])],
        [io("x", "float32", "batch", 3, 8, 8)],
        [io("boxes", "float32", 1, 3, 4), io("scores", "float32", 1, 3, 2)],
        [numpy_helper.from_array(boxes, "b"), numpy_helper.from_array(scores, "s")],
    )
    image = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    x = prepare.apply(image)
    return write_bundle(
        tmp_path / "d.edgekit",
        name="two",
        variants={"cpu": Variant(path=path)},
        spec=spec,
        preprocessing=prepare,
        postprocessing=DetectionPostprocessing(
            boxes="boxes", scores="scores", activation="probabilities", score_threshold=0.5
        ),
        labels=("cat", "dog"),
        golden=[Golden(inputs={"x": x}, outputs={"boxes": boxes, "scores": scores}, raw=image)],
    ), image


def test_boxes(detector_bundle, tmp_path, capsys):
    folder, image = detector_bundle
    model = load(folder)
    assert model.check().samples == 1
    # 40 x 80 becomes 4 x 8 in the middle: rows from 2 on, ten pixels to one.
    first, second = model.predict(image)
    assert (first.label, second.label) == ("cat", "dog")
    assert first.box == pytest.approx((10, 10, 30, 30))
    assert second.box == pytest.approx((40, 10, 80, 30))
    Image.fromarray(image).save(tmp_path / "a.png")
    assert model.predict(tmp_path / "a.png") == (first, second)
    # A prepared tensor is its own image.
    assert model.predict(model.preprocessing.apply(image))[0].box == pytest.approx((1, 3, 3, 5))
    lines = run(capsys, "run", folder, tmp_path / "a.png").splitlines()
    assert lines[0] == "cat (90.0%) at 10.0, 10.0, 30.0, 30.0"
    assert [each["label"] for each in json.loads(run(capsys, "run", "--json", folder, tmp_path / "a.png"))] == [
        "cat",
        "dog",
    ]


def test_nothing_found_is_said(detector_bundle, tmp_path, capsys, reseal):
    folder, image = detector_bundle
    reseal(folder, lambda about: about["postprocessing"].update(score_threshold=1.0))
    assert load(folder).predict(image) == ()
    np.save(tmp_path / "a.npy", image)
    assert run(capsys, "run", folder, tmp_path / "a.npy") == "nothing found\n"


def test_processing_must_name_what_the_model_has(text_bundle, detector_bundle, reseal):
    for folder, change, place in (
        (text_bundle[0], lambda about: about["preprocessing"]["inputs"].update(mask=None), "preprocessing.inputs"),
        (text_bundle[0], lambda about: about["postprocessing"].update(vocabulary="other.txt"), "vocabulary"),
        (detector_bundle[0], lambda about: about["postprocessing"].update(boxes="b"), "postprocessing.boxes"),
    ):
        reseal(folder, change)
        with pytest.raises(BundleError) as caught:
            load(folder)
        assert place in caught.value.where
