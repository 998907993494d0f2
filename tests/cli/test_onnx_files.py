"""ONNX files in the place of a model."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from PIL import Image

from edgekit.device import load


@pytest.fixture(scope="module")
def samples(project, tmp_path_factory):
    """The project's test data as arrays."""
    x, y = project.source.test_data().tensors
    path = tmp_path_factory.mktemp("samples") / "test.npz"
    np.savez(path, x=x.numpy(), y=y.numpy())
    return path


@pytest.fixture(scope="module")
def small(done, original, samples, tmp_path_factory):
    """What `quantize` makes of the file alone."""
    path = tmp_path_factory.mktemp("small") / "small.int8.onnx"
    answer = done("quantize", original.path, "--data", samples, "--placement", "rules", "--out", path, "--json")
    assert answer.json["files"][0]["int8_nodes"] > 0
    return path


@pytest.fixture
def files(original, small, samples):
    return original, small, samples


def test_a_file_is_quantized_without_its_model(small, original, samples, answers):
    kinds = {node.op_type for node in onnx.load(small).graph.node}
    assert "QuantizeLinear" in kinds
    with np.load(samples) as data:
        right = [(answers(path, data["x"]).argmax(1) == data["y"]).mean() for path in (original.path, small)]
    assert right[0] == 1.0
    assert right[1] > 0.9


def test_a_file_climbs_the_ladder_without_its_model(edgekit, original, samples, tmp_path, answers):
    """No labels and no model: half of the data decide, by how much answers differ; nothing is trained."""
    with np.load(samples) as data:
        x = data["x"]
    np.savez(tmp_path / "x.npz", x=x)
    out = tmp_path / "best.onnx"
    words = ["--data", tmp_path / "x.npz", "--task", "imitation", "--max-drop", "0", "--time", "15s"]
    answer = edgekit("quantize", original.path, *words, "--placement", "rules", "--out", out, "--json")
    assert answer.code == 3, answer.err  # No int8 file answers exactly alike; the best is kept.
    (row,) = answer.json["files"]
    assert [rung["name"] for rung in row["rungs"]] == ["post-training", "learned rounding", "mixed precision"]
    deciding = np.sort(np.random.default_rng(0).permutation(len(x))[len(x) // 2 :])
    first, second = (answers(path, x[deciding]).astype(float) for path in (original.path, out))
    cosine = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    assert row["drop"] == pytest.approx(100 - 100 * cosine.mean(), abs=1e-3)
    assert row["drop"] <= row["rungs"][0]["drop"]


def test_gates_alone_are_limits_too(edgekit, original, samples, tmp_path, answers):
    out = tmp_path / "best.onnx"
    words = ["--data", samples, "--max-churn", "0", "--time", "10s", "--placement", "rules", "--out", out, "--json"]
    answer = edgekit("quantize", original.path, *words)
    with np.load(samples) as data:
        x = data["x"]
    deciding = np.sort(np.random.default_rng(0).permutation(len(x))[len(x) // 2 :])
    first, second = (answers(path, x[deciding]).argmax(1) for path in (original.path, out))
    (row,) = answer.json["files"]
    # An excess is a share of the limit, which counts as half a point where it is 0.
    assert row["excess"] == pytest.approx(100 * (first != second).mean() / 0.5)
    assert answer.code == (3 if row["excess"] else 0)


def test_a_gate_without_a_figure_is_refused(edgekit, original, samples, tmp_path):
    words = ["--data", samples, "--task", "imitation", "--max-worst-class-drop", "1", "--placement", "rules"]
    answer = edgekit("quantize", original.path, *words, "--out", tmp_path / "best.onnx")
    assert answer.code == 4
    assert "to hold against a limit" in answer.err


def test_files_are_validated_without_their_model(done, original, small, samples, answers):
    words = ["--data", samples, "--time", "1s", "--robustness-time", "0", "--json"]
    rows = done("validate", original.path, small, *words).json["rows"]
    with np.load(samples) as data:
        right = [100 * (answers(path, data["x"]).argmax(1) == data["y"]).mean() for path in (original.path, small)]
    assert [row["score"]["metric"]["value"] for row in rows] == pytest.approx(right)
    assert rows[0]["score"]["n"] == 96


def test_without_labels_the_first_file_is_the_reference(done, files, tmp_path, answers):
    original, small, samples = files
    with np.load(samples) as data:
        np.savez(tmp_path / "x.npz", x=data["x"])
        first, second = (answers(path, data["x"]).astype(float) for path in (original.path, small))
    words = ["--data", tmp_path / "x.npz", "--task", "imitation", "--time", "1s", "--robustness-time", "0", "--json"]
    rows = done("validate", original.path, small, *words).json["rows"]
    cosine = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    assert rows[1]["score"]["metric"]["value"] == pytest.approx(100 * cosine.mean(), abs=1e-3)


def test_files_are_bundled_without_their_model(done, project, files, tmp_path):
    original, small, samples = files
    words = ["--data", samples, "--labels", ",".join(project.classes), "--out", tmp_path / "net.edgekit", "--json"]
    done("bundle", small, original.path, *words)
    manifest = json.loads((tmp_path / "net.edgekit" / "edgekit" / "bundle.json").read_text())
    assert manifest["labels"] == list(project.classes)
    assert len(load(tmp_path / "net.edgekit").check().to_dict()) > 0


def test_images_go_through_the_preprocessing_that_is_named(done, original, tmp_path):
    rng = np.random.default_rng(0)
    for index in range(4):
        folder = tmp_path / "images" / ("ant" if index % 2 else "bee")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / f"{index}.png")
    words = ["--image-size", "16", "--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2", "--samples", "1", "--json"]
    done("bundle", original.path, "--data", tmp_path / "images", *words, "--out", tmp_path / "net.edgekit")
    manifest = json.loads((tmp_path / "net.edgekit" / "edgekit" / "bundle.json").read_text())
    assert (manifest["preprocessing"]["size"], manifest["preprocessing"]["std"]) == ([16, 16], [0.2, 0.2, 0.2])


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["quantize", "{file}"], "no data"),
        (["quantize", "{file}", "{file}", "--data", "{data}"], "got 2 files"),
        (["quantize", "{file}", "--data", "{data}", "--max-drop", "1", "--limit-test", "1"], "1 sample"),
        (["quantize", "{file}", "--data", "{data}", "--weights", "w.pth"], "--weights beside ONNX files"),
        (["validate", "{file}", "--data", "{data}", "--file", "{file}"], "--file beside "),
        (["validate", "--data", "{data}"], "no file"),
        (["validate", "net.py:model", "--data", "{data}", "--file", "{file}"], "--data "),
        (["validate", "net.py:model", "net.py:other", "--file", "{file}"], "got net.py:model net.py:other"),
        (["validate", "{file}", "--data", "{data}", "--task", "clasification"], "task is 'clasification'"),
        (["validate", "{file}", "--data", "{file}x"], "is no function and no such directory exists"),
    ],
)
def test_what_does_not_go_together(edgekit, original, samples, words, problem):
    answer = edgekit(*(word.format(file=original.path, data=samples) for word in words))
    assert answer.code == 4, answer.err
    assert answer.err.startswith(f"error: {problem}") or problem in answer.err.splitlines()[0]


CODE = """
import contextlib, io, json, sys
from edgekit.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(sys.stderr):
    code = main(sys.argv[1:])
print(json.dumps([code, "torch" in sys.modules]))
"""


@pytest.mark.parametrize(
    "words",
    [
        ["quantize", "{file}", "--data", "{data}", "--placement", "rules", "--out", "{folder}/q.onnx"],
        ["bundle", "{file}", "--data", "{data}", "--samples", "1", "--out", "{folder}/b.edgekit"],
        ["bench", "{file}", "--time", "1s", "--starts", "1"],
    ],
)
def test_files_alone_do_not_load_torch(original, samples, tmp_path, words):
    named = [word.format(file=original.path, data=samples, folder=tmp_path) for word in words]
    done = subprocess.run([sys.executable, "-c", CODE, *named], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [0, False], done.stderr
