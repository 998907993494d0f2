from __future__ import annotations

import json

import jsonschema
import pytest

from edgekit.bundle import Variant, bundle_schema
from edgekit.device import (
    ClassificationPostprocessing,
    DetectionPostprocessing,
    ImagePreprocessing,
    LogMelPreprocessing,
    TextPostprocessing,
    TokenInputs,
    WaveformPreprocessing,
    WordpiecePreprocessing,
)
from edgekit.device.manifest import Manifest
from edgekit.errors import BundleError

SCHEMA = bundle_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture
def about(write):
    return json.loads((write() / "edgekit/bundle.json").read_text())


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_real_bundles_fit(write, save, about):
    VALIDATOR.validate(about)
    gpu = Variant(path=save(), provider="cuda", precision="fp16", target="cuda")
    trt = Variant(path=save(), provider="tensorrt", precision="int8", target="tensorrt")
    bare = write("bare", golden=(), labels=(), variants={"cpu": Variant(path=save()), "gpu": gpu, "trt": trt})
    VALIDATOR.validate(json.loads((bare / "edgekit/bundle.json").read_text()))


PROCESSING = [
    ImagePreprocessing(size=(32, 32), colour="BGR"),
    ImagePreprocessing(size=(32, 32), fit="resize-crop", shorter_side=40, filter="nearest"),
    ImagePreprocessing(size=(32, 32), fit="letterbox", pad=114, mean=(0.5,), std=(0.5,)),
    LogMelPreprocessing(sample_rate=8000, window=256, hop=80),
    LogMelPreprocessing(sample_rate=8000, window=256, hop=80, samples=8000, fft=512, centre=True, norm="slaney"),
    WaveformPreprocessing(sample_rate=16000),
    WaveformPreprocessing(sample_rate=16000, samples=8000, normalize="input", layout="1T"),
    WordpiecePreprocessing(inputs=TokenInputs(ids="x"), length=8, first=None),
    ClassificationPostprocessing(output="y"),
    DetectionPostprocessing(boxes="y", scores="z", background=0),
    DetectionPostprocessing(boxes="y", scores="z", format="ltrb", strides=(8, 16)),
    TextPostprocessing(output="y", stop="[SEP]", skip=("[CLS]",)),
]


@pytest.mark.parametrize("one", PROCESSING)
def test_every_kind_fits_and_is_read_back(about, one):
    about[one.side] = one.to_dict()
    about["io"]["outputs"].append({**about["io"]["outputs"][0], "name": "z"})
    for variant in about["variants"]:
        variant["tolerance"]["z"] = 0.1
    about["files"]["edgekit/vocabulary.txt"] = {"sha256": "0" * 64, "size": 1}
    VALIDATOR.validate(about)
    assert getattr(Manifest.from_dict(about), one.side) == one
    for key in one.to_dict():
        broken = {**about, one.side: {name: value for name, value in one.to_dict().items() if name != key}}
        assert not VALIDATOR.is_valid(broken), key
        with pytest.raises(BundleError):
            Manifest.from_dict(broken)
    about[one.side]["surprise"] = 1
    assert not VALIDATOR.is_valid(about)


def put(*keys_and_value):
    *keys, last, value = keys_and_value

    def change(about):
        for key in keys:
            about = about[key]
        about[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        put("format", "zip"),
        put("version", "2.0"),
        put("name", ""),
        put("surprise", 1),
        lambda about: about.pop("io"),
        put("labels", [1, 2, 3, 4]),
        put("scores", "softmax"),
        put("postprocessing", "scores", "relu"),
        put("postprocessing", "kind", "magic"),
        put("postprocessing", "top", 0),
        put("postprocessing", {"kind": "text", "output": "y"}),
        put("golden_samples", -1),
        put("io", "inputs", []),
        put("io", "inputs", 0, "dtype", "object"),
        put("io", "inputs", 0, "shape", [-1]),
        put("preprocessing", {"size": [1, 2]}),
        put("preprocessing", {**ImagePreprocessing(size=(4, 4)).to_dict(), "std": [0, 1, 1]}),
        put("preprocessing", {**ImagePreprocessing(size=(4, 4)).to_dict(), "fit": "resize-crop"}),
        put("preprocessing", {**ImagePreprocessing(size=(4, 4)).to_dict(), "pad": 114}),
        put("preprocessing", {**ImagePreprocessing(size=(4, 4)).to_dict(), "filter": "nearest"}),
        put("preprocessing", {**ImagePreprocessing(size=(4, 4)).to_dict(), "colour": "grey"}),
        put("preprocessing", {**ImagePreprocessing(size=(4, 4)).to_dict(), "antialias": None}),
        put("preprocessing", {**LogMelPreprocessing(sample_rate=8000, window=256, hop=80).to_dict(), "fft": None}),
        put("preprocessing", {**LogMelPreprocessing(sample_rate=8000, window=256, hop=80).to_dict(), "floor": 0}),
        put("preprocessing", {**WaveformPreprocessing(sample_rate=8000).to_dict(), "normalize": "both"}),
        put("preprocessing", {**WaveformPreprocessing(sample_rate=8000).to_dict(), "samples": 0}),
        put("variants", []),
        put("variants", 0, "provider", "npu"),
        put("variants", 0, "target", "z80"),
        put("variants", 0, "tolerance", "y", -1),
        put("variants", 0, "name", "../up"),
        put("variants", 0, "file", "/etc/passwd"),
        put("files", "../up", {"sha256": "0" * 64, "size": 1}),
        put("files", "x", {"sha256": "0" * 63, "size": 1}),
        put("files", "x", {"sha256": "0" * 64, "size": -1}),
        put("files", "edgekit/bundle.json", {"sha256": "0" * 64, "size": 1}),
        lambda about: about["files"].pop("manifest.json"),
    ],
)
def test_the_schema_and_the_reader_refuse_alike(about, change):
    change(about)
    assert not VALIDATOR.is_valid(about)
    with pytest.raises(BundleError):
        Manifest.from_dict(about)
