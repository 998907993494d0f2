from __future__ import annotations

import json

import jsonschema
import pytest

from edgekit.bundle import Variant, bundle_schema
from edgekit.device import Preprocessing
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


@pytest.mark.parametrize("shorter_side", [None, 40])
def test_preprocessing_fits(about, shorter_side):
    about["preprocessing"] = Preprocessing(size=(32, 32), shorter_side=shorter_side, colour="BGR").to_dict()
    VALIDATOR.validate(about)
    Manifest.from_dict(about)


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
        put("scores", "relu"),
        put("golden_samples", -1),
        put("io", "inputs", []),
        put("io", "inputs", 0, "dtype", "object"),
        put("io", "inputs", 0, "shape", [-1]),
        put("preprocessing", {"size": [1, 2]}),
        put("preprocessing", {**Preprocessing(size=(4, 4)).to_dict(), "std": [0, 1, 1]}),
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
