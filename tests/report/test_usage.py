"""The section "Use it" of a bundle's README: real names, shapes and labels, in every language."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgekit.bundle import Variant, write_bundle
from edgekit.device import load
from edgekit.device.processing import ImagePreprocessing
from edgekit.report import readme
from edgekit.report.snippets import OURS, snippets
from edgekit.report.usage import fenced, wanted
from edgekit.spec import IOSpec, TensorSpec
from tests.marks import seldom

ROOT = Path(__file__).parents[2]
IMAGE = {
    "kind": "image",
    "size": [4, 6],
    "fit": "letterbox",
    "shorter_side": None,
    "pad": 114,
    "filter": "bilinear",
    "antialias": True,
    "colour": "BGR",
    "scale": 1 / 255,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.4],
    "layout": "NCHW",
}
SOUND = {
    "kind": "log_mel",
    "sample_rate": 8000,
    "samples": 8000,
    "window": 256,
    "fft": 512,
    "hop": 80,
    "centre": False,
    "window_function": "hann",
    "power": 2,
    "mels": 40,
    "low_hz": 0,
    "high_hz": 4000,
    "mel_scale": "htk",
    "norm": None,
    "log": "natural",
    "floor": 1e-5,
    "floor_by": "add",
    "mean": -4,
    "std": 4,
    "layout": "TF",
}
WAVES = {"kind": "waveform", "sample_rate": 16000, "samples": 4000, "normalize": "recording", "layout": "1T"}
WORDS = {
    "kind": "wordpiece",
    "vocabulary": "edgekit/vocabulary.txt",
    "lowercase": True,
    "length": 16,
    "unknown": "[UNK]",
    "first": "[CLS]",
    "last": "[SEP]",
    "padding": "[PAD]",
    "inputs": {"ids": "ids", "mask": None, "types": None},
}
KINDS = {
    "image": ([("image", "float32", ["batch", 3, 4, 6])], IMAGE),
    "baked": ([("pixels", "uint8", ["height", "width", 3])], None),
    "sound": ([("features", "float32", ["batch", 97, 40])], SOUND),
    "waves": ([("samples", "float32", ["batch", 1, 4000])], WAVES),
    "text": ([("ids", "int64", [1, 16])], WORDS),
    "tensors": ([("a", "float32", ["batch", 7]), ("input.1", "int64", [1, 5])], None),
}
NAMES = {"Kotlin (Android)", "Swift (iOS)", "C#", "Rust", *OURS}


def about(kind="image", labels=("circle", "squ\"a're", "st`ar$"), scores="softmax", **changes):
    inputs, before = KINDS[kind]
    return {
        "name": "shapes",
        "io": {
            "inputs": [{"name": name, "dtype": dtype, "shape": shape} for name, dtype, shape in inputs],
            "outputs": [
                {"name": "more", "dtype": "float32", "shape": ["batch", 2]},
                {"name": "the scores", "dtype": "float32", "shape": ["batch", len(labels)]},
            ],
        },
        "labels": list(labels),
        "preprocessing": before,
        "postprocessing": {"kind": "classification", "output": "the scores", "scores": scores, "top": 1},
        "variants": [
            {"file": "models/model/int8/model.onnx", "precision": "int8", "target": "arm64"},
            {"file": "models/model/fp32/model.onnx", "precision": "fp32", "target": "any"},
        ],
        **changes,
    }


@pytest.fixture
def bundle(tmp_path):
    """Writes a small classifier of images."""

    def write(folder, **changes):
        weights = np.random.default_rng(0).standard_normal((72, 3)).astype(np.float32)
        graph = helper.make_graph(
            [helper.make_node("Flatten", ["image"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["scores"])],
            "classifier",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 4, 6])],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])],
            [numpy_helper.from_array(weights, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.save(model, tmp_path / "m.onnx")
        arguments = {
            "name": "shapes",
            "variants": {"fp32": Variant(path=tmp_path / "m.onnx")},
            "spec": IOSpec(
                inputs=(TensorSpec(name="image", dtype="float32", shape=("batch", 3, 4, 6)),),
                outputs=(TensorSpec(name="scores", dtype="float32", shape=("batch", 3)),),
            ),
            "preprocessing": ImagePreprocessing(size=(4, 6)),
            "labels": ("circle", "square", "star"),
        }
        return write_bundle(tmp_path / folder, **{**arguments, **changes})

    return write


def code_of(found):
    return {snippet.language: snippet.code for snippet in found}


@pytest.mark.parametrize("kind", KINDS)
def test_every_language_has_the_names_and_shapes_of_this_bundle(kind):
    found = code_of(snippets(about(kind), "shapes.edgekit"))
    assert set(found) == NAMES
    inputs, before = KINDS[kind]
    for language, code in found.items():
        if language in OURS:
            assert '"shapes.edgekit' in code
            if before is not None or kind == "baked":
                continue  # These prepare the input themselves.
        else:
            assert '"the scores"' in code
            assert "labels[best]" in code
        for name, _, shape in inputs:
            sizes = [1 if isinstance(size, str) else size for size in shape]
            assert f'"{name}"' in code
            plain = code.replace("_usize", "")
            assert ", ".join(map(str, sizes)) in plain, (language, sizes)


def test_types_are_those_of_each_language():
    found = code_of(snippets(about("tensors"), "x"))
    for language, words in {
        "C++": ["std::vector<float>(7)", "std::vector<std::int64_t>(5)"],
        "JavaScript": ["new Float32Array(7)", "new BigInt64Array(5)"],
        "Kotlin (Android)": ["FloatBuffer.wrap(FloatArray(7)), longArrayOf(1, 7)", "LongBuffer.wrap(LongArray(5))"],
        "Swift (iOS)": ["[Float](repeating: 0, count: 7)", "elementType: .int64, shape: [1, 5]"],
        "C#": ["new float[7]", "new long[5]", "new long[] { 1, 5 }"],
        "Rust": ["([1_usize, 7], vec![0_f32; 7])", "([1_usize, 5], vec![0_i64; 5])"],
    }.items():
        for each in words:
            assert each in found[language]
    pixels = code_of(snippets(about("baked"), "x"))["Kotlin (Android)"]
    assert "ByteBuffer.wrap(ByteArray(3)), longArrayOf(1, 1, 3), OnnxJavaType.UINT8)" in pixels
    assert "import ai.onnxruntime.OnnxJavaType" in pixels


def test_awkward_labels_stay_literals():
    odd = ("a\x01\f\\", 'q"${x}', "\\(x)")
    found = code_of(snippets(about(labels=odd), "x"))
    assert r'"a\u0001\u000c\\", "q\"\${x}", "\\(x)"' in found["Kotlin (Android)"]
    assert r'"a\u{1}\u{c}\\", "q\"${x}", "\\(x)"' in found["Swift (iOS)"]
    assert r'"a\u{1}\u{c}\\", "q\"${x}", "\\(x)"' in found["Rust"]
    assert r'"a\u0001\f\\", "q\"${x}", "\\(x)"' in found["C#"]


def test_many_labels_are_not_written_out():
    found = code_of(snippets(about(labels=[f"label {index}" for index in range(1000)]), "x"))
    assert not any("label 7" in code for code in found.values())
    assert "Console.WriteLine(best);" in found["C#"]


def test_a_type_that_a_language_has_not_leaves_its_code_out():
    changed = about("tensors")
    changed["io"]["inputs"][0]["dtype"] = "float16"
    assert set(code_of(snippets(changed, "x"))) == {"Python"}
    changed["io"]["inputs"][0]["dtype"] = "float64"
    assert set(code_of(snippets(changed, "x"))) == set(OURS)


def test_without_labels_the_numbers_are_printed():
    found = code_of(snippets(about("tensors", labels=(), postprocessing=None), "x"))
    assert 'println!("{scores:?}");' in found["Rust"]
    assert "labels" not in found["Swift (iOS)"]
    assert found["JavaScript"].endswith('console.log(answer["more"].data);')


def test_the_readme_says_what_runs_where_and_what_was_not_run():
    text = readme(about(), "shapes.edgekit")
    assert text.startswith("# shapes\n\n## Use it\n")
    assert "| `models/model/int8/model.onnx` | int8 | 64-bit ARM processors" in text
    for language in NAMES - set(OURS):
        assert f"<summary>{language}, not run here</summary>" in text
    assert len(re.findall("^```", text, re.MULTILINE)) == 2 * len(NAMES)


def test_what_the_input_is_made_of():
    image = "\n".join(wanted(about()))
    for words in (
        "blue, green, red",
        "fit into 4 × 6",
        "the rest with 114",
        "divided by 255",
        "[0.2, 0.3, 0.4]",
        "NCHW",
    ):
        assert words in image
    sound = "\n".join(wanted(about("sound")))
    for words in ("8000 Hz", "windows of 256 samples", "frames of 512", "every 80", "40 mel", "x + 1e-05", "minus -4"):
        assert words in sound
    waves = "\n".join(wanted(about("waves")))
    for words in ("16000 Hz, cut or filled with zeros to 4000", "taken before zeros are filled in", "layout 1T"):
        assert words in waves
    text = "\n".join(wanted(about("text")))
    for words in ("lower case", "edgekit/vocabulary.txt", "first `[CLS]`", "padded to 16"):
        assert words in text
    assert wanted(about("tensors")) == ["The input: `a` is float32 [batch, 7]; `input.1` is int64 [1, 5]."]
    for fit in ("stretch", "resize-crop", "crop-resize"):
        changed = {**IMAGE, "fit": fit, "pad": None, "shorter_side": 8 if fit == "resize-crop" else None}
        assert "4 × 6" in "\n".join(wanted(about(preprocessing=changed)))


def test_a_fence_is_longer_than_what_it_holds():
    assert fenced("py", "a = '````'") == ["`````py", "a = '````'", "`````"]


@pytest.mark.parametrize("kind", [kind if kind == "image" else seldom(kind) for kind in KINDS])
def test_our_cpp_compiles(kind, tmp_path):
    include, compiler = ROOT / "tools/device_apps/cpp/include", shutil.which("c++")
    if compiler is None or not include.is_dir():
        pytest.skip("no C++ compiler, or the header is not in this checkout: the code is only read")
    source = tmp_path / "use.cpp"
    source.write_text(code_of(snippets(about(kind), "x.edgekit"))["C++"])
    command = [compiler, "-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-I", include, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_our_javascript_parses(kind, tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the code is only read")
    source = tmp_path / "use.mjs"
    source.write_text(code_of(snippets(about(kind), "x.edgekit"))["JavaScript"])
    done = subprocess.run([node, "--check", source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_our_python_runs(bundle, tmp_path, monkeypatch, capsys):
    """As it stands in the README that the bundle carries, in a folder with the bundle and a photo."""
    monkeypatch.chdir(tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    folder = bundle("shapes.edgekit", readme=lambda about: readme(about, "shapes.edgekit"))
    Image.fromarray(picture).save("photo.png")
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    exec(compile(code.replace("photo.jpg", "photo.png"), "README.md", "exec"), {})  # noqa: S102 - our own
    assert capsys.readouterr().out == f"{load(folder).predict(picture)}\n"


def test_our_python_runs_on_tensors(bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = bundle(
        "shapes.edgekit", preprocessing=None, golden=(), readme=lambda about: readme(about, "shapes.edgekit")
    )
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - our own
    assert "circle (33.3%)" in capsys.readouterr().out  # All zeros: all scores are equal.
