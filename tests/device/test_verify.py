"""The tamper matrix: whatever is done to a bundle, it is refused with a text that names the file."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.device import inspect, load
from edgekit.device.manifest import Manifest
from edgekit.device.verify import open_bundle
from edgekit.errors import BundleError

FILES = [
    "manifest.json",
    "models/model/component.json",
    "models/model/exact/model.onnx",
    "models/model/near/model.onnx",
    "edgekit/golden.npz",
]


def refused(folder, **options):
    with pytest.raises(BundleError) as caught:
        load(folder, **options)
    return str(caught.value)


def test_the_matrix_holds_every_file(bundle):
    found = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert found == {*FILES, "edgekit/bundle.json"}


@pytest.mark.parametrize("name", FILES)
def test_a_changed_bit(bundle, name):
    path = bundle / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    text = refused(bundle)
    assert text.startswith("changed: its SHA-256 is not the manifest's")
    assert f"where: {bundle}/{name}" in text
    assert "do not run this one" in text


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("sixteenths", range(0, 16, 5))
def test_truncation(bundle, name, sixteenths):
    size = (bundle / name).stat().st_size
    os.truncate(bundle / name, size * sixteenths // 16)
    text = refused(bundle)
    assert text.startswith(f"{size * sixteenths // 16} bytes\n  where: {bundle}/{name}\n  rule: {size} bytes")


@pytest.mark.parametrize("sixteenths", range(16))
def test_truncated_bundle_json(bundle, sixteenths):
    path = bundle / "edgekit/bundle.json"
    os.truncate(path, path.stat().st_size * sixteenths // 16)
    assert refused(bundle).startswith("not JSON")


@pytest.mark.parametrize("name", FILES)
def test_a_removed_file(bundle, name):
    (bundle / name).unlink()
    text = refused(bundle)
    assert "missing" in text or "an empty folder" in text
    assert name.rpartition("/")[0] in text


@pytest.mark.parametrize("name", ["extra.txt", "edgekit/.hidden", "models/model/exact/weights.bin", "a/b/c/d"])
def test_an_extra_file(bundle, name):
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle / name).touch()
    assert refused(bundle).startswith(f"not in the manifest\n  where: {bundle}/{name}")


def test_a_name_that_is_no_text(bundle):
    (bundle / os.fsdecode(b"\xff")).touch()
    assert refused(bundle).startswith(f"not in the manifest\n  where: {bundle}/\\udcff")


def test_an_empty_folder(bundle):
    (bundle / "empty").mkdir()
    assert refused(bundle).startswith("an empty folder")


@pytest.mark.parametrize("name", [*FILES, "edgekit/bundle.json"])
def test_a_symlink(bundle, name, tmp_path):
    shutil.move(bundle / name, tmp_path / "real")
    (bundle / name).symlink_to(tmp_path / "real")
    assert refused(bundle).startswith(f"a symbolic link\n  where: {bundle}/{name}")


def test_a_folder_that_is_a_symlink(bundle, tmp_path):
    shutil.move(bundle / "models", tmp_path / "elsewhere")
    (bundle / "models").symlink_to(tmp_path / "elsewhere")
    assert refused(bundle).startswith(f"a symbolic link\n  where: {bundle}/models")


@pytest.mark.parametrize("name", [*FILES, "edgekit/bundle.json"])
def test_a_hard_link(bundle, name, tmp_path):
    os.link(bundle / name, tmp_path / "second")
    assert refused(bundle).startswith(f"a file with 2 hard links\n  where: {bundle}/{name}")


def test_a_pipe(bundle):
    (bundle / FILES[0]).unlink()
    os.mkfifo(bundle / FILES[0])
    assert refused(bundle).startswith("not a regular file")


def test_no_folder_no_bundle(tmp_path, model_file):
    assert refused(tmp_path / "none").startswith("no such folder or file")
    assert refused(model_file).startswith("neither a folder nor a .zip")
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty").startswith("no edgekit/bundle.json")


BAD_PATHS = [
    "../secret",
    "a/../../secret",
    "/etc/passwd",
    "a\\..\\b",
    "C:/x",
    "a//b",
    "./a",
    "a/.",
    "",
    "a/\0",
    "ä",
    "~/x",
]


@pytest.mark.parametrize("path", [*BAD_PATHS, "/".join(["x" * 60] * 5), "/".join("abcdefghi")])
def test_a_path_that_leads_out_of_the_bundle(bundle, reseal, path):
    reseal(bundle, lambda about: about["files"].update({path: {"sha256": "0" * 64, "size": 1}}))
    assert refused(bundle).startswith(f"path {path!r}\n  where: edgekit/bundle.json.files[{path!r}]")


def drop(key):
    return lambda about: about.pop(key)


def put(*keys_and_value):
    *keys, last, value = keys_and_value

    def change(about):
        for key in keys:
            about = about[key]
        about[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (put("format", "zip"), "got 'zip'\n  where: edgekit/bundle.json.format\n  rule: 'edgekit-bundle'"),
        (put("version", "2.0"), "version 2.0\n  where: edgekit/bundle.json.version\n  rule: this edgekit reads 1.x"),
        (put("version", 1.0), "got 1.0\n  where: edgekit/bundle.json.version\n  rule: major.minor"),
        (put("version", "1.x"), "got '1.x'"),
        (drop("io"), "missing\n  where: edgekit/bundle.json.io"),
        (put("surprise", 1), "unknown key 'surprise'"),
        (put("name", ""), "a name of 0 characters"),
        (put("name", 7), "got int\n  where: edgekit/bundle.json.name\n  rule: expected a text"),
        (put("created", "yesterday"), "where: edgekit/bundle.json.created"),
        (put("created", "2026-01-31"), "where: edgekit/bundle.json.created"),
        (put("labels", ["a", 1, "b"]), "a label is no text"),
        (put("labels", []), "no labels\n  where: edgekit/bundle.json.labels"),
        (put("postprocessing", "scores", "relu"), "where: edgekit/bundle.json.postprocessing.scores"),
        (put("postprocessing", "output", "z"), "got 'z'\n  where: edgekit/bundle.json.postprocessing.output"),
        (put("postprocessing", "kind", "magic"), "got 'magic'\n  where: edgekit/bundle.json.postprocessing.kind"),
        (put("preprocessing", "kind", []), "got []\n  where: edgekit/bundle.json.preprocessing.kind"),
        (put("golden_samples", True), "where: edgekit/bundle.json.golden_samples"),
        (put("golden_samples", 10**6), "where: edgekit/bundle.json.golden_samples"),
        (put("golden_samples", 0), "where: edgekit/bundle.json.variants[0].tolerance"),
        (put("golden_samples", 3), "got nothing for input 'image' of sample 2\n  where: edgekit/golden.npz"),
        (put("golden_samples", 1), "unexpected array '1/"),
        (put("io", "inputs", 0, "dtype", "object"), "where: edgekit/bundle.json.io.inputs[0].dtype"),
        (put("io", "inputs", 0, "dtype", "f4,f4"), "where: edgekit/bundle.json.io.inputs[0].dtype"),
        (put("io", "inputs", 0, "shape", [-1]), "got -1\n  where: edgekit/bundle.json.io.inputs[0].shape[0]"),
        (put("io", "outputs", []), "where: edgekit/bundle.json.io.outputs"),
        (put("preprocessing", "std", [0, 0, 0]), "where: edgekit/bundle.json.preprocessing.std"),
        (put("variants", []), "no variant"),
        (put("variants", 0, "provider", "npu"), "where: edgekit/bundle.json.variants[0].provider"),
        (put("variants", 0, "target", "z80"), "where: edgekit/bundle.json.variants[0].target"),
        (put("variants", 0, "name", "../up"), "where: edgekit/bundle.json.variants[0].name"),
        (put("variants", 0, "name", "EXACT"), "where: edgekit/bundle.json.variants[0].file"),
        (put("variants", 0, "file", "models/model/exact/model.onnx"), "variants[0].file"),
        (put("variants", 0, "tolerance", "scores", -1), "where: edgekit/bundle.json.variants[0].tolerance['scores']"),
        (put("variants", 0, "tolerance", {}), "where: edgekit/bundle.json.variants[0].tolerance"),
        (put("files", "x", {"sha256": "0" * 63, "size": 1}), "where: edgekit/bundle.json.files['x'].sha256"),
        (put("files", "x", {"sha256": "0" * 64, "size": -1}), "where: edgekit/bundle.json.files['x'].size"),
        (put("files", "x", {"sha256": "0" * 64, "size": 2**40}), "where: edgekit/bundle.json.files['x'].size"),
        (put("files", "MANIFEST.JSON", {"sha256": "0" * 64, "size": 1}), "two paths differ only in case"),
        (put("files", "edgekit/bundle.json", {"sha256": "0" * 64, "size": 1}), "edgekit/bundle.json lists itself"),
        (put("files", {f"f{i}": {"sha256": "0" * 64, "size": 1} for i in range(1001)}), "1001 files"),
        (lambda about: about["files"].pop("manifest.json"), "manifest.json is not listed"),
    ],
)
def test_a_manifest_that_is_not_what_it_must_be(bundle, reseal, change, text):
    reseal(bundle, change)
    with pytest.raises(BundleError) as caught:
        load(bundle).check()
    assert text in str(caught.value)


def test_duplicate_keys_in_the_manifest(bundle):
    path = bundle / "edgekit/bundle.json"
    path.write_text(path.read_text().replace('"version": "1.0"', '"version": "1.0", "version": "1.0"'))
    assert refused(bundle).startswith("key 'version' stands there twice")


def test_a_manifest_without_end(bundle):
    (bundle / "edgekit/bundle.json").write_bytes(b" " * 9_000_000)
    assert "at most 8000000 bytes" in refused(bundle)


def test_a_newer_minor_version_is_read_with_a_warning(bundle, reseal):
    def newer(about):
        about["version"] = "1.7"
        about["signature"] = "..."

    package = json.loads((bundle / "manifest.json").read_text())
    assert package["additional_metadata"]["edgekit"]["version"] == "1.0"
    reseal(bundle, newer)
    with pytest.warns(UserWarning, match="version 1.7 is newer"):
        assert refused(bundle).startswith("says something else than edgekit/bundle.json")
    # An edgekit of that version writes it into both files.
    package["additional_metadata"]["edgekit"]["version"] = "1.7"
    reseal(bundle, newer, **{"manifest.json": json.dumps(package).encode()})
    with pytest.warns(UserWarning, match="version 1.7 is newer than 1.0"):
        assert load(bundle).labels == ("circle", "square", "star")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("manifest.json", {"components": {"model": "/etc"}}),
        ("models/model/component.json", {"variants": {}}),
    ],
)
def test_package_files_that_say_something_else(bundle, reseal, name, change):
    data = {**json.loads((bundle / name).read_text()), **change}
    reseal(bundle, **{name: json.dumps(data).encode()})
    assert refused(bundle).startswith(f"says something else than edgekit/bundle.json\n  where: {bundle}/{name}")


def test_a_resealed_model_with_external_data_is_refused_before_onnx_runtime_sees_it(bundle, reseal, reference):
    model = reference.classifier()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    tensor.external_data.add(key="location", value="golden.npz")
    reseal(bundle, **{"models/model/exact/model.onnx": model.SerializeToString()})
    assert refused(bundle).startswith("a tensor keeps its data in another file")


def test_a_resealed_model_that_is_no_model(bundle, reseal):
    reseal(bundle, **{"models/model/exact/model.onnx": b"\x3a\x00\x42\x02\x10\x14"})
    assert refused(bundle).startswith("ONNX Runtime refuses the model")


def test_a_resealed_model_with_other_names(bundle, reseal, reference):
    model = reference.classifier()
    model.graph.input[0].name = model.graph.node[0].input[0] = "other"
    reseal(bundle, **{"models/model/exact/model.onnx": model.SerializeToString()})
    assert refused(bundle).startswith("inputs ['other']")


def test_unverified_loading_still_checks_what_it_uses(bundle):
    near, exact = (bundle / f"models/model/{name}/model.onnx" for name in ("near", "exact"))
    near.write_bytes(bytes(near.stat().st_size))
    assert load(bundle, verify=False).variant.name == "exact"
    exact.write_bytes(bytes(exact.stat().st_size))
    assert refused(bundle, verify=False).startswith("changed")


def test_limits(bundle, monkeypatch):
    monkeypatch.setattr("edgekit.device.verify.MAX_TOTAL_BYTES", 1000)
    assert "at most 1000 bytes in all" in refused(bundle)
    monkeypatch.setattr("edgekit.device.opening.folder.MAX_FILES", 2)
    assert refused(bundle).startswith("more than 4 files and folders")


def test_folders_without_end(bundle):
    (bundle / "/".join("abcdefghij")).mkdir(parents=True)
    assert refused(bundle).startswith("folders nested too deeply")


def test_the_digest_of_a_trusted_source(bundle):
    digest = inspect(bundle)["digest"]
    assert load(bundle, digest=digest).digest == digest
    assert refused(bundle, digest="0" * 64).startswith(f"another bundle: its digest is {digest}")


def test_a_file_swapped_for_a_link_after_the_listing(bundle):
    opened = open_bundle(bundle)
    path = bundle / FILES[2]
    shutil.move(path, bundle.parent / "real")
    path.symlink_to(bundle.parent / "real")
    with pytest.raises(BundleError, match="cannot read"):
        opened.read(FILES[2])


texts = st.text(max_size=8)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
EXAMPLE = {
    "format": "edgekit-bundle",
    "version": "1.0",
    "name": "x",
    "created": "2026-01-31T12:00:00+00:00",
    "io": {
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["n", 2]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["n", 2]}],
    },
    "labels": ["a", "b"],
    "postprocessing": {"kind": "classification", "output": "y", "scores": "softmax", "top": 2},
    "preprocessing": {
        "kind": "image",
        "size": [4, 4],
        "fit": "stretch",
        "shorter_side": None,
        "pad": None,
        "filter": "bilinear",
        "antialias": True,
        "colour": "RGB",
        "scale": 1.0,
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
        "layout": "NCHW",
    },
    "metrics": {},
    "provenance": {},
    "variants": [
        {
            "name": "cpu",
            "provider": "cpu",
            "precision": "fp32",
            "target": "any",
            "tolerance": {},
            "tolerance_from": "measured",
            "file": "models/model/cpu/model.onnx",
        }
    ],
    "golden_samples": 0,
    "files": {
        name: {"sha256": "0" * 64, "size": 1}
        for name in ("manifest.json", "models/model/component.json", "models/model/cpu/model.onnx")
    },
}


def places(value, path=()):
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


PLACES = list(places(EXAMPLE))


def test_the_example_is_read():
    assert Manifest.from_dict(json.loads(json.dumps(EXAMPLE))).to_dict() == EXAMPLE


@settings(max_examples=600)
@given(st.sampled_from(PLACES), junk)
@pytest.mark.filterwarnings("ignore:.*is newer than")
def test_any_junk_anywhere_gives_a_manifest_or_a_bundle_error(place, value):
    about = json.loads(json.dumps(EXAMPLE))
    if not place:
        about = value
    else:
        target = about
        for key in place[:-1]:
            target = target[key]
        target[place[-1]] = value
    with suppress(BundleError):
        Manifest.from_dict(about)
