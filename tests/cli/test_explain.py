"""`edgekit explain` on a user's project: tables, explain.json, pictures, and the gate."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from edgekit.bundle import pack


@pytest.fixture(scope="module")
def smaller(done, project, made, pruned):
    path = made / "pruned.onnx"
    done("export", *project.words, "--pruned", pruned.folder, "--out", path)
    return SimpleNamespace(path=path, folder=pruned.folder)


@pytest.fixture(scope="module")
def explained(done, project, made, original, int8, smaller):  # noqa: PLR0917 - fixtures
    reddish = np.random.default_rng(0).standard_normal((12, 3, 16, 16)).astype(np.float32)
    reddish[:, 0] += 3
    np.savez(made / "red.npz", x=reddish)
    files = ["-f", original.path, "-f", int8.path, "-f", smaller.path]
    words = ["--pruned", smaller.folder, "--samples", 12, "--concept", f"red={made / 'red.npz'}", "--repetitions", 3]
    words += ["--pictures", 2, "--out", made / "explained"]
    return done("explain", *project.words, *files, *words, "--json").json


def test_the_drift_of_each_file_is_told_with_its_yardstick(explained):
    drift = explained["drift"]
    assert [each["file"] for each in drift["files"]] == ["original.int8", "pruned"]
    assert drift["input"]["kind"] == "image"
    int8, pruned = (each["correlation"]["value"] for each in drift["files"] if each["correlation"])
    assert int8 > 0.9
    assert -1 <= pruned < int8
    assert drift["yardstick"]["correlation"]["n"] == drift["samples"]["original_right"] == 12


def test_modules_are_compared_and_the_concept_is_scored(explained):
    assert set(explained["gradients"]["correlations"]) == {"saliency", "integrated gradients", "Grad-CAM"}
    assert explained["gradients"]["layers"] == {"original": "block", "compressed": "block"}
    assert {(each["concept"], each["module"]) for each in explained["concepts"]} == {
        ("red", "original"),
        ("red", "compressed"),
    }
    assert explained["notes"] == ["no attention maps: the network has no attention"]


def test_files_are_written(explained, made):
    assert json.loads((made / "explained" / "explain.json").read_text())["drift"] == explained["drift"]
    assert len(explained["pictures"]) == 2
    for path in explained["pictures"]:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 200


def test_the_gate_ends_with_3_and_says_why(edgekit, project, original, int8, tmp_path):
    files = ["-f", original.path, "-f", int8.path, "--samples", 4, "--pictures", 0, "--out", tmp_path]
    kept = edgekit("explain", *project.words, *files, "--min-explanation-correlation", 0.5)
    assert kept.code == 0, kept.err
    assert "note: gradients, attention and concepts are the original's alone" in kept.out
    assert "gate broken" not in kept.out
    broken = edgekit("explain", *project.words, *files, "--min-explanation-correlation", 1)
    assert broken.code == 3
    assert "gate broken: original.int8: rank correlation 0.9" in broken.out


def test_a_bundle_is_as_good_as_a_file(edgekit, project, original, bundle, tmp_path):
    zipped = pack(bundle.folder, tmp_path / "net.edgekit.zip")
    files = ["-f", original.path, "-f", bundle.folder, "-f", zipped]
    answer = edgekit("explain", *project.words, *files, "--samples", 4, "--pictures", 0, "--out", tmp_path, "--json")
    assert answer.code == 0, answer.err
    found = {each["file"]: each["correlation"] for each in answer.json["drift"]["files"]}
    assert list(found) == [str(bundle.folder), str(zipped)]
    assert found[str(bundle.folder)] == found[str(zipped)]


def test_one_file_has_nothing_to_be_compared_with(edgekit, project, original, error_text):
    answer = edgekit("explain", *project.words, "-f", original.path)
    assert answer.code == 4
    assert answer.err == error_text("got 1 file", "--file", "the original and at least one compressed file")
