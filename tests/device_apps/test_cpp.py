"""The C++ loader against the Python one, the shared vectors, and bundles that want to do harm."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import runpy
import shutil
import struct
import subprocess
import sys
import wave
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.bundle import Golden, Variant, write_bundle
from edgekit.device import inspect, load, onnx_scan, strict_json
from edgekit.device.environment import isa_target
from edgekit.device.model import plain
from edgekit.device.processing import (
    ClassificationPostprocessing,
    DetectionPostprocessing,
    ImagePreprocessing,
    LogMelPreprocessing,
    TextPostprocessing,
    TokenInputs,
    Vocabulary,
    WordpiecePreprocessing,
    prepared,
)
from edgekit.device.variants import rank
from edgekit.errors import BundleError
from edgekit.spec import IOSpec, TensorSpec
from tests.required import absent

pytestmark = pytest.mark.slow  # They install or compile what the default tests need not wait for.

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tools/device_apps/vectors"
ARTIFACT = ROOT / "artifacts/resnet20-cifar10/resnet20.edgekit"
MADE_FOR = {each["target"] for each in inspect(ARTIFACT)["variants"] if each["provider"] == "cpu"}
on_its_processor = pytest.mark.skipif(
    not MADE_FOR & {isa_target(), "any"},
    reason=f"{ARTIFACT.name} was made for {', '.join(sorted(MADE_FOR))}, this processor is {isa_target()}",
)
OLD = "1.20.1"
"""An ONNX Runtime far older than the installed one; its wheel needs no other version of Python than any."""

HERE = Path(__file__).parent
cpp = runpy.run_path(str(HERE / "cpp.py"))
Programs, build = cpp["Programs"], cpp["build"]


@pytest.fixture(scope="session")
def old_library(tmp_path_factory):
    """The library of an older ONNX Runtime, from its wheel, which stays in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edgekit"
    wheel = f"onnxruntime=={OLD}"
    if not list(cache.glob(f"onnxruntime-{OLD}-*.whl")):
        command = [sys.executable, "-m", "pip", "download", wheel, "--no-deps", "--python-version", "3.11"]
        fetched = subprocess.run(
            [*command, "--only-binary", ":all:", "-q", "--retries", "0", "--timeout", "15", "-d", cache],
            capture_output=True,
            text=True,
            check=False,
        )
        if fetched.returncode:
            pytest.skip(f"{wheel} cannot be fetched: {fetched.stderr.strip().splitlines()[-1:]}")
    folder = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(next(cache.glob(f"onnxruntime-{OLD}-*.whl"))) as archive:
        name = next(name for name in archive.namelist() if "capi/libonnxruntime.so" in name)
        return Path(archive.extract(name, folder))


# --- bundles ----------------------------------------------------------------------------------------------------------


def value(name, kind, *shape):
    return helper.make_tensor_value_info(name, kind, shape)


def network(nodes, inputs, outputs, **weights):
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(array, name) for name, array in weights.items()]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def spec_of(model):
    def side(values):
        return tuple(
            TensorSpec(
                name=each.name,
                dtype=helper.tensor_dtype_to_np_dtype(each.type.tensor_type.elem_type).name,
                shape=tuple(dim.dim_param or dim.dim_value for dim in each.type.tensor_type.shape.dim),
            )
            for each in values
        )

    return IOSpec(inputs=side(model.graph.input), outputs=side(model.graph.output))


def linear(inputs, outputs, scale=1.0):
    """y [n, outputs] = flatten(x) @ w."""
    rows = int(np.prod([size for size in inputs[1:] if isinstance(size, int)]))
    weights = np.random.default_rng(3).standard_normal((rows, outputs)).astype(np.float32) * np.float32(
        scale / rows**0.5
    )
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"])]
    ends = [value("x", TensorProto.FLOAT, *inputs)], [value("y", TensorProto.FLOAT, inputs[0], outputs)]
    return network(nodes, *ends, w=weights)


def write(folder, model, *, variants=None, raw=(), inputs=(), preprocessing=None, vocabulary=None, **options):
    """A bundle of `model`, whose golden vectors come from `raw` or `inputs`."""
    folder.mkdir(parents=True)
    files = {"cpu": (model, {})} if variants is None else variants
    for name, (each, _) in files.items():
        onnx.save(each, folder / f"{name}.onnx")
    spec = spec_of(model)
    tokens = None if vocabulary is None else Vocabulary.parse(vocabulary)
    feeds = [*inputs, *(dict(prepared(preprocessing, each, spec, tokens)) for each in raw)]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    origins = [*[None] * len(inputs), *raw]
    golden = [
        Golden(inputs=feed, outputs=dict(zip(names, session.run(names, feed), strict=True)), raw=origin)
        for feed, origin in zip(feeds, origins, strict=True)
    ]
    return write_bundle(
        folder / "made.edgekit",
        name="made",
        variants={name: Variant(path=folder / f"{name}.onnx", **about) for name, (_, about) in files.items()},
        spec=spec,
        preprocessing=preprocessing,
        golden=golden,
        files={} if vocabulary is None else {"edgekit/vocabulary.txt": vocabulary},
        **options,
    )


def zipped(bundle, path):
    """The bundle as one file."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(bundle.rglob("*")):
            if file.is_file():
                archive.writestr(zipfile.ZipInfo(file.relative_to(bundle).as_posix()), file.read_bytes())
    return path


LABELS = ("ant", "bee", "cat", "größe")
LETTERBOX = ImagePreprocessing(
    size=(12, 16), fit="letterbox", pad=114, filter="bicubic", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)
)
SOUND = LogMelPreprocessing(
    sample_rate=8000,
    samples=2000,
    window=200,
    fft=300,
    hop=160,
    mels=12,
    centre=True,
    mel_scale="slaney",
    norm="slaney",
)
WORDS = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\nquick\nfox\njump\n##s\n##ed\n!\n"


def photo(seed, height, width):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tone(seed, samples):
    return np.clip(np.random.default_rng(seed).standard_normal(samples) / 4, -1, 1).astype(np.float32)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """Bundles of every kind, by name."""
    out = tmp_path_factory.mktemp("bundles")
    classifier = linear(("n", 3, 12, 16), 4)
    top = ClassificationPostprocessing(output="y", top=2)
    made = SimpleNamespace()
    made.image = write(
        out / "image",
        classifier,
        variants={
            "near": (linear(("n", 3, 12, 16), 4, 1.001), {"precision": "int8", "target": "arm64"}),
            "cpu": (classifier, {}),
        },
        raw=[photo(1, 20, 17), photo(2, 5, 9)],
        preprocessing=LETTERBOX,
        labels=LABELS,
        postprocessing=top,
    )
    made.only_arm = write(
        out / "only_arm",
        classifier,
        variants={"arm": (classifier, {"precision": "int8", "target": "arm64"})},
        raw=[photo(1, 20, 17)],
        preprocessing=LETTERBOX,
        labels=LABELS,
        postprocessing=top,
    )
    made.sound = write(
        out / "sound",
        linear(("n", SOUND.frames(2000), 12), 4),
        raw=[tone(1, 2500), tone(2, 300)],
        preprocessing=SOUND,
        labels=LABELS,
        postprocessing=ClassificationPostprocessing(output="y", scores="sigmoid", top=4),
    )
    tokens = WordpiecePreprocessing(length=12, inputs=TokenInputs(ids="ids", mask="mask"))
    numbers = [value(name, TensorProto.INT64, 1, 12) for name in ("ids", "mask", "out")]
    made.text = write(
        out / "text",
        network([helper.make_node("Mul", ["ids", "mask"], ["out"])], numbers[:2], numbers[2:]),
        raw=["The quick fox jumped!", "Größe"],
        preprocessing=tokens,
        vocabulary=WORDS,
        postprocessing=TextPostprocessing(output="out", stop="[SEP]", skip=("[CLS]",)),
    )
    made.objects = write(
        out / "objects",
        detector(),
        raw=[photo(4, 30, 50)],
        preprocessing=LETTERBOX,
        labels=LABELS,
        postprocessing=DetectionPostprocessing(
            boxes="boxes", scores="scores", format="cxcywh", coordinates="relative", background=3, score_threshold=0.3
        ),
    )
    made.tensors = write(out / "tensors", linear(("n", 6), 2), inputs=[{"x": tone(3, 6)[None]}])
    pixels = network(
        [
            helper.make_node("Cast", ["x"], ["real"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["real", "axes"], ["y"], keepdims=0),
            helper.make_node("Unsqueeze", ["y", "first"], ["scores"]),
        ],
        [value("x", TensorProto.UINT8, "height", "width", 3)],
        [value("scores", TensorProto.FLOAT, 1, 3)],
        axes=np.array([0, 1]),
        first=np.array([0]),
    )
    made.baked = write(
        out / "baked",
        pixels,
        inputs=[{"x": photo(5, 4, 6)}],
        labels=LABELS[:3],
        postprocessing=ClassificationPostprocessing(output="scores"),
    )
    return made


def detector():
    """30 boxes and scores of four classes, all of which depend on the image."""
    dice = np.random.default_rng(5)
    rows = 3 * 12 * 16
    boxes = np.concatenate([dice.uniform(0.2, 0.8, (30, 2)), dice.uniform(0.1, 0.6, (30, 2))], axis=1)
    weights = {
        "w": dice.standard_normal((rows, 120)).astype(np.float32) / 1000,
        "b": boxes.astype(np.float32).reshape(1, 120),
        "v": dice.standard_normal((rows, 120)).astype(np.float32) / 12,
        "shape": np.array([1, 30, 4]),
    }
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["rows"]),
        helper.make_node("MatMul", ["flat", "v"], ["likely"]),
        helper.make_node("Reshape", ["rows", "shape"], ["boxes"]),
        helper.make_node("Reshape", ["likely", "shape"], ["scores"]),
    ]
    outputs = [value(name, TensorProto.FLOAT, 1, 30, 4) for name in ("boxes", "scores")]
    return network(nodes, [value("x", TensorProto.FLOAT, 1, 3, 12, 16)], outputs, **weights)


def save_ppm(path, image):
    kind = b"P6" if image.ndim == 3 else b"P5"
    path.write_bytes(kind + f"\n# a comment\n{image.shape[1]} {image.shape[0]}\n255\n".encode() + image.tobytes())
    return path


def save_wav(path, samples, *, rate=8000, width=2, channels=1):
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        whole = np.round(np.clip(samples, -1, 1) * (2 ** (8 * width - 1) - 1)).astype(np.int64)
        rows = (whole + 128 if width == 1 else whole).astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width]
        file.writeframes(np.repeat(rows, channels, axis=0).tobytes())
    return path


def same(found, expected, tolerance=1e-5):
    """Whether two JSON-ready values agree, numbers to within `tolerance` of 1 or of themselves."""
    if isinstance(expected, dict):
        return set(found) == set(expected) and all(same(found[key], expected[key], tolerance) for key in expected)
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(same(a, b, tolerance) for a, b in zip(found, expected, strict=True))
    if isinstance(expected, float):
        return abs(found - expected) <= tolerance * max(1.0, abs(expected))
    return found == expected


def spoiled(data, count, alphabet=None):
    """Copies of `data` with a few bytes changed (to bytes of the alphabet, or by a bit), some of them cut off."""
    dice = np.random.default_rng(0)
    for _ in range(count):
        copy = bytearray(data)
        for place in dice.integers(len(copy), size=dice.integers(1, 4)):
            copy[place] = copy[place] ^ (1 << dice.integers(8)) if alphabet is None else dice.choice(list(alphabet))
        yield bytes(copy[: len(copy) if dice.random() < 0.5 else dice.integers(len(copy))])


# --- the loader's parts -----------------------------------------------------------------------------------------------


def test_sha256_of_the_standard_and_of_all_lengths(programs, tmp_path):
    # The examples of NIST (FIPS 180-4; CSRC examples), and lengths around the blocks of 64 bytes.
    nist = {
        b"": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        b"abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq": "248d6a61d20638b8e5c026930c3e6039"
        "a33ce45964ff2167f6ecedd419db06c1",
        b"a" * 1_000_000: "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
    }
    messages = [*nist, *(np.random.default_rng(n).bytes(n) for n in [*range(54, 131), (1 << 20) + 3])]
    for number, message in enumerate(messages):
        (tmp_path / str(number)).write_bytes(message)
    lines = programs.probe("sha256", *(tmp_path / str(number) for number in range(len(messages)))).splitlines()
    for line, message in zip(lines, messages, strict=True):
        expected = nist.get(message, hashlib.sha256(message).hexdigest())
        assert line == f"{expected} {expected}"  # at once, and in pieces


DOCUMENTS = [
    b'{"a": [1, -2.5e3, true, false, null, "x\\u00e9\\ud83d\\ude00\\n"], "b": {}}',
    b' {"a": 9223372036854775807} ',
    b'{"a": 1e-400}',
    '{"ä": "\U0001f600"}'.encode(),
    b"[" * 23 + b"]" * 23,
    b'{"a": ' + b"[" * 22 + b"1" + b"]" * 22 + b"}",
    b'{"a": ' + b"[" * 23 + b"1" + b"]" * 23 + b"}",
    b'{"a": ' + b"[" * 23 + b"]" * 23 + b"}",
    b'{"a": ' + b"[" * 100_000,
    b'{"a": ' + b"[" + b"1," * 400_000 + b"1]}",
    b'{"a": 1, "a": 1}',
    b'{"a": 1, "\\u0061": 1}',
    b'{"a": NaN}',
    b'{"a": -Infinity}',
    b'{"a": 1e999}',
    b'{"a": 9223372036854775808}',
    b'{"a": -9223372036854775808}',
    b'{"a": 01}',
    b'{"a": +1}',
    b'{"a": .5}',
    b'{"a": 1.}',
    b'{"a": 1e}',
    b'{"a": "\\ud800"}',
    b'{"a": "\\ud800\\u0041"}',
    b'{"a": "\\udc00\\ud800"}',
    b'{"a": "\xff"}',
    b'{"a": "\xed\xa0\x80"}',
    b'{"a": "\xc0\x80"}',
    b'{"a": "\x01"}',
    b'{"a": "\\x41"}',
    b'{"a": 1} {}',
    b'{"a": 1,}',
    b"{'a': 1}",
    b'\xef\xbb\xbf{"a": 1}',
    b"[1]",
    b"1",
    b"",
    b'{"a": tru}',
    b'{"a" 1}',
    b"{1: 1}",
]


def test_json_is_taken_and_refused_as_in_python(programs, tmp_path):
    whole = (ARTIFACT / "edgekit/bundle.json").read_bytes()
    changed = spoiled(whole, 200, b'\x00 "\\{}[],:0-.eEnN\xff')
    documents = [*DOCUMENTS, whole, *changed]
    for number, data in enumerate(documents):
        (tmp_path / str(number)).write_bytes(data)
    lines = programs.probe("json", *(tmp_path / str(number) for number in range(len(documents)))).splitlines()
    taken = 0
    for line, data in zip(lines, documents, strict=True):
        try:
            strict_json.parse(data, "file")
            expected = "dict"
        except BundleError:
            expected = "refused"
        assert line.split(":")[0] == expected, (data[:200], line)
        taken += expected == "dict"
    assert 10 < taken < len(documents) - 10


def test_the_scan_counts_as_python_does_and_takes_no_more(programs, tmp_path):
    models = [path.read_bytes() for path in sorted(ROOT.glob("artifacts/*/*.edgekit/models/model/*/model.onnx"))]
    small = linear(("n", 6), 2).SerializeToString()
    changed = spoiled(small, 300)
    files = [*models, small, *changed]
    for number, data in enumerate(files):
        (tmp_path / str(number)).write_bytes(data)
    lines = programs.probe("scan", *(tmp_path / str(number) for number in range(len(files)))).splitlines()
    assert len(lines) == len(files)
    for number, (line, data) in enumerate(zip(lines, files, strict=True)):
        if line.startswith("refused"):
            assert number > len(models), line
            continue
        about = onnx_scan.scan(data, "file").to_dict()  # which raises where it refuses
        found = json.loads(line)
        assert {key: found[key] for key in ("ir_version", "nodes", "tensors")} == {
            key: about[key] for key in ("ir_version", "nodes", "tensors")
        }
        if number < len(models):
            assert (found["operators"], found["opsets"]) == (about["operators"], about["opsets"])
            assert found["nodes"] == len(onnx.load_from_string(data).graph.node)


@pytest.mark.parametrize("kind", ["image", "log_mel", "waveform", "wordpiece", "classification", "detection", "text"])
def test_the_shared_vectors(programs, tmp_path, kind):
    cases = json.loads((VECTORS / f"{kind}.json").read_text())
    given = [{key: each for key, each in case.items() if key != "expected"} for case in cases]
    (tmp_path / "cases.json").write_text(json.dumps({"cases": given}))
    made = json.loads(programs.probe("process", kind, tmp_path / "cases.json"))
    assert len(made) == len(cases) > 0
    for case, found in zip(cases, made, strict=True):
        if kind == "wordpiece" and not case["raw"]["text"].isascii():
            # Rather no answer than a wrong one: there are no Unicode tables in C++.
            assert "ASCII" in found["error"], case["name"]
        else:
            # Numbers in JSON may come out whole.
            assert same(json.loads(json.dumps(found)), _real(case["expected"]), case["tolerance"]), case["name"]


def _real(data):
    """Numbers as floats, so that they are compared as numbers."""
    if isinstance(data, dict):
        return {key: _real(each) for key, each in data.items()}
    if isinstance(data, list):
        return [_real(each) for each in data]
    return float(data) if isinstance(data, int) and not isinstance(data, bool) else data


def test_the_processor(programs):
    assert programs.probe("isa").strip() == isa_target()


# --- ONNX Runtime by the numbers of its functions ---------------------------------------------------------------------


def check_functions(programs, version):
    found = json.loads(programs.probe("runtime"))
    assert found["version"] == version
    assert (found["code"], found["text"]) == (2, "a text of our own")
    assert "Config key is empty" in found["config"]
    assert "CPUExecutionProvider" in found["providers"]
    if "CUDAExecutionProvider" not in found["providers"]:
        assert "CUDA" in found["cuda"]
        assert "TensorRT" in found["tensorrt"]
        assert found["append_cuda"]
        assert found["append_tensorrt"]


def test_the_functions_of_the_installed_onnxruntime(programs):
    check_functions(programs, onnxruntime.__version__)


def test_an_old_onnxruntime_gives_the_same_answers(programs, bundles, old_library, tmp_path):
    old = Programs(programs.folder, old_library)
    check_functions(old, OLD)
    file = save_ppm(tmp_path / "photo.ppm", photo(7, 33, 21))
    for bundle in (bundles.image, bundles.objects):
        assert same(old.answer(bundle, file), programs.answer(bundle, file))
    assert old.classify(bundles.text, "--check")["model"]["runtime"] == OLD


@on_its_processor
def test_an_old_onnxruntime_reproduces_the_bundle_of_the_repository(programs, old_library):
    old = Programs(programs.folder, old_library)
    assert old.classify(ARTIFACT, "--check")["check"]["samples"] == 4


@pytest.mark.parametrize(("name", "problem"), [("none.so", "cannot open ONNX Runtime"), ("libm", "no OrtGetApiBase")])
def test_a_library_that_is_none(programs, bundles, tmp_path, name, problem):
    library = "libm.so.6" if name == "libm" else tmp_path / name
    error = programs.refused("--runtime", library, bundles.tensors, "--check")
    assert error["kind"] == "provider"
    assert error["problem"].startswith(problem)
    assert error["where"] == str(library)


# --- predictions, as Python makes them --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["folder", "zip"])
@pytest.mark.parametrize("size", [(33, 21), (12, 16), (4, 50)])
def test_classes_of_an_image(programs, bundles, tmp_path, form, size):
    file = save_ppm(tmp_path / "photo.ppm", photo(8, *size))
    bundle = bundles.image if form == "folder" else zipped(bundles.image, tmp_path / "made.edgekit.zip")
    found = programs.answer(bundle, file)
    assert same(found, plain(load(bundles.image).predict(file)))
    assert [each["label"] for each in found["top"]] == [
        LABELS[i] for i in np.argsort(-np.array(found["probabilities"]))
    ][:2]


def test_a_grey_image_and_arrays(programs, bundles, tmp_path):
    grey = photo(9, 14, 15)[:, :, 0]
    model = load(bundles.image)
    assert same(programs.answer(bundles.image, save_ppm(tmp_path / "grey.pgm", grey)), plain(model.predict(grey)))
    batch = np.random.default_rng(0).standard_normal((2, 3, 12, 16)).astype(np.float32)
    for array in (photo(9, 14, 15), grey, batch[0], batch):
        np.save(tmp_path / "array.npy", array)
        assert same(programs.answer(bundles.image, tmp_path / "array.npy"), plain(model.predict(array)))


@pytest.mark.parametrize(("width", "channels"), [(1, 1), (2, 2), (3, 1), (4, 1)])
def test_classes_of_a_recording(programs, bundles, tmp_path, width, channels):
    file = save_wav(tmp_path / "sound.wav", tone(4, 1700), width=width, channels=channels)
    assert same(programs.answer(bundles.sound, file), plain(load(bundles.sound).predict(file)))


def test_samples_in_arrays(programs, bundles, tmp_path):
    for samples in (tone(4, 1700), (tone(4, 2600) * 32767).astype(np.int16), tone(4, 1700).astype(np.float64)):
        np.save(tmp_path / "samples.npy", samples)
        assert same(
            programs.answer(bundles.sound, tmp_path / "samples.npy"), plain(load(bundles.sound).predict(samples))
        )


def test_a_text(programs, bundles, tmp_path):
    (tmp_path / "text.txt").write_text("The QUICK fox jumps, the fox jumped!\n")
    found = programs.answer(bundles.text, tmp_path / "text.txt")
    assert found == plain(load(bundles.text).predict((tmp_path / "text.txt").read_text()))
    assert found.startswith("the quick fox jumps [UNK] the fox jumped")


def test_objects_in_an_image(programs, bundles, tmp_path):
    for height, width in ((30, 50), (70, 20)):
        file = save_ppm(tmp_path / "photo.ppm", photo(10, height, width))
        found = programs.answer(bundles.objects, file)
        assert same(found, plain(load(bundles.objects).predict(file)), 1e-4)
        assert len(found) > 3
        assert all(0 <= each["box"][0] <= each["box"][2] <= width for each in found)


def test_pixels_for_a_graph_that_preprocesses(programs, bundles, tmp_path):
    file = save_ppm(tmp_path / "photo.ppm", photo(11, 9, 8))
    found = programs.answer(bundles.baked, file)
    means = photo(11, 9, 8).mean(axis=(0, 1))
    assert found["index"] == means.argmax()
    assert same(found, plain(load(bundles.baked).predict(photo(11, 9, 8))))


def test_tensors(programs, bundles, tmp_path):
    np.save(tmp_path / "x.npy", tone(6, 6))
    assert same(programs.answer(bundles.tensors, tmp_path / "x.npy"), plain(load(bundles.tensors).predict(tone(6, 6))))


@on_its_processor
def test_a_bundle_of_the_repository(programs, tmp_path):
    file = save_ppm(tmp_path / "photo.ppm", photo(12, 40, 36))
    # Kernels may be others than Python's only if the variant is: the library is the same.
    assert same(programs.answer(ARTIFACT, file), plain(load(ARTIFACT).predict(file)), 1e-6)


@pytest.mark.parametrize("name", ["image", "only_arm", "sound", "text", "objects", "tensors", "baked"])
@pytest.mark.filterwarnings("ignore:.*it was made for")
def test_golden_vectors(programs, bundles, name):
    bundle = getattr(bundles, name)
    done = programs.run("classify", "--json", "--check", bundle)
    found, expected = json.loads(done.stdout), load(bundle).check()
    assert found["check"]["samples"] == expected.samples == len(found["answers"])
    assert same(found["check"]["differences"], dict(expected.differences))
    assert found["check"]["tolerances"] == pytest.approx(dict(expected.tolerances))
    assert bool(found["check"]["notes"]) == (name == "text")  # one of whose texts is not ASCII
    plainly = programs.run("classify", "--check", bundle).stdout
    assert f"{expected.samples} samples agree" in plainly
    assert "differs by" in plainly


def test_golden_vectors_that_come_out_otherwise(programs, bundles, tmp_path):
    bundle = shutil.copytree(bundles.tensors, tmp_path / "bundle")
    model = linear(("n", 6), 2, 1.5).SerializeToString()
    reseal(bundle, {"models/model/cpu/model.onnx": model})
    error = programs.refused("--check", bundle)
    assert error["kind"] == "bundle"
    assert error["problem"].startswith("output 'y' of golden sample 0 differs by")


# --- which file runs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", ["x86-vnni", "x86-avx2", "x86", "arm64", "riscv64"])
@pytest.mark.parametrize("name", ["image", "only_arm"])
def test_the_variant_that_python_would_take(programs, bundles, isa, name):
    bundle = getattr(bundles, name)
    done = programs.run("classify", "--json", "--explain", "--isa", isa, bundle)
    found = json.loads(done.stdout)["model"]
    variants = load_variants(bundle)
    best = rank(variants, provider=None, available=["CPUExecutionProvider"], isa=isa)[0]
    assert found["variant"] == best.variant.name
    assert best.reason in found["explain"]
    assert best.compromise in found["explain"]
    assert (best.compromise != "") == done.stderr.startswith("note: ")  # a compromise is announced, never silent
    assert best.compromise in done.stderr


def load_variants(bundle):
    from edgekit.device.verify import open_bundle

    return open_bundle(bundle).manifest.variants


def test_a_provider_that_is_not_there(programs, bundles):
    error = programs.refused("--provider", "cuda", bundles.image, "--explain")
    assert error["problem"] == "provider 'cuda' is not in this onnxruntime"
    assert programs.refused("--provider", "tpu", bundles.image, "--explain")["problem"] == "unknown provider 'tpu'"


def test_the_identity_of_a_bundle(programs, bundles):
    digest = load(bundles.tensors).digest
    assert programs.classify("--digest", digest, "--explain", bundles.tensors)["model"]["digest"] == digest
    assert programs.refused("--digest", "0" * 64, "--explain", bundles.tensors)["problem"].endswith(digest)


def test_a_newer_minor_version_is_read_with_a_note(programs, bundles, tmp_path):
    bundle = shutil.copytree(bundles.tensors, tmp_path / "bundle")
    package = (bundle / "manifest.json").read_text().replace('"version": "1.0"', '"version": "1.7"')
    reseal(bundle, {"manifest.json": package.encode()}, edit=lambda about: about.update(version="1.7", more={"a": 1}))
    done = programs.run("classify", "--json", "--check", bundle)
    assert "version 1.7 is newer than 1.0" in done.stderr
    assert "version 1.7 is newer" in json.loads(done.stdout)["model"]["explain"]


# --- what is wrong is said --------------------------------------------------------------------------------------------


def test_inputs_that_do_not_fit(programs, bundles, tmp_path):
    def refused(bundle, name, data):
        path = tmp_path / name
        if isinstance(data, np.ndarray):
            np.save(path, data)
        else:
            path.write_bytes(data)
        error = programs.refused(bundle, path)
        assert error["kind"] == "data", error
        return error

    wrong = refused(bundles.tensors, "x.npy", np.zeros((1, 5), np.float32))
    assert (wrong["problem"], wrong["where"]) == ("got float32 [1, 5]", "tensor 'x'")
    assert wrong["rule"] == "expected float32 [n, 6]"
    assert refused(bundles.tensors, "x.npy", np.zeros((1, 6)))["problem"] == "got float64 [1, 6]"
    assert refused(bundles.tensors, "t.txt", b"a text")["problem"] == "got a text"
    assert "ASCII" in refused(bundles.text, "t.txt", "Größe".encode())["rule"]
    assert "P6 or P5" in refused(bundles.image, "x.ppm", b"P3 1 1 255 1 1 1")["rule"]
    assert refused(bundles.image, "x.ppm", b"P6 4 4 255 123")["problem"].startswith("3 bytes for 4 x 4")
    assert refused(bundles.image, "x.ppm", b"P6 99999999 99999999 255 123")["problem"].startswith("3 bytes for")
    assert refused(bundles.image, "x.jpg", b"")["problem"] == "a file that ends in '.jpg'"
    assert refused(bundles.image, "x.npy", b"\x93NUMPY\x01\x00\x03\x00{}\n")["problem"] == "a malformed header"
    assert refused(bundles.image, "x.npy", np.array([None]).dumps())["problem"] == "not an .npy file"
    assert refused(bundles.sound, "x.npy", np.array([np.nan], np.float32))["where"] == "sound"
    assert programs.refused(bundles.image, tmp_path / "none.ppm")["problem"] == "no such file"
    slow = save_wav(tmp_path / "slow.wav", tone(1, 100), rate=4000)
    assert programs.refused(bundles.sound, slow)["rule"] == "the model takes 8000 Hz"
    assert programs.refused(bundles.image, slow)["problem"] == "got sound"


@pytest.mark.parametrize(
    "arguments", [[], ["bundle"], ["--threads", "x", "b", "i"], ["--colour", "b", "i"], ["b", "--digest"]]
)
def test_a_command_line_that_is_none(programs, arguments):
    assert programs.run("classify", *arguments, code=2).stderr.startswith("usage: classify")


def test_the_help(programs):
    assert programs.run("classify", "--help").stdout.startswith("usage: classify")


def test_one_model_in_many_threads(programs, bundles, tmp_path):
    np.save(tmp_path / "photo.npy", photo(13, 20, 30))
    assert json.loads(programs.probe("threads", bundles.image, tmp_path / "photo.npy")) == {"same": 100, "others": 0}


# --- bundles that want to do harm -------------------------------------------------------------------------------------


def reseal(bundle, files=None, edit=None):
    """Change files, or the manifest, and make the digests fit, as an attacker can."""
    path = bundle / "edgekit/bundle.json"
    about = json.loads(path.read_text())
    for name, data in (files or {}).items():
        (bundle / name).write_bytes(data)
    if edit:
        edit(about)
    for name, entry in about["files"].items():
        if (bundle / name).is_file():
            data = (bundle / name).read_bytes()
            entry.update(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    path.write_text(json.dumps(about))


def flip(bundle):
    data = bytearray((bundle / "edgekit/golden.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "edgekit/golden.npz").write_bytes(data)


def symlink(bundle):
    shutil.move(bundle / "manifest.json", bundle.parent / "elsewhere")
    (bundle / "manifest.json").symlink_to(bundle.parent / "elsewhere")


def external(bundle):
    model = linear(("n", 6), 2)
    weights = model.graph.initializer[0]
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../../../../secret")
    weights.ClearField("raw_data")
    reseal(bundle, {"models/model/cpu/model.onnx": model.SerializeToString()})


def node(domain, operator):
    def change(bundle):
        model = linear(("n", 6), 2)
        model.graph.node.append(helper.make_node(operator, ["x"], ["z"], domain=domain))
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, 1))
        reseal(bundle, {"models/model/cpu/model.onnx": model.SerializeToString()})

    return change


def text_of_manifest(old, new):
    def change(bundle):
        path = bundle / "edgekit/bundle.json"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return change


def listed(path):
    return lambda bundle: reseal(
        bundle, edit=lambda about: about["files"].update({path: {"sha256": "0" * 64, "size": 1}})
    )


ATTACKS = {
    "a changed byte": (flip, "changed: its SHA-256 is not the manifest's", "edgekit/golden.npz"),
    "a missing file": (lambda bundle: (bundle / "manifest.json").unlink(), "missing", "manifest.json"),
    "a file too many": (lambda bundle: (bundle / ".x").touch(), "not in the manifest", ".x"),
    "an empty folder": (lambda bundle: (bundle / "x").mkdir(), "an empty folder", "x"),
    "a symbolic link": (symlink, "a symbolic link", "manifest.json"),
    "a hard link": (
        lambda bundle: os.link(bundle / "manifest.json", bundle.parent / "second"),
        "a file with 2 hard links",
        "manifest.json",
    ),
    "a pipe": (
        lambda bundle: ((bundle / "manifest.json").unlink(), os.mkfifo(bundle / "manifest.json")),
        "not a regular file",
        "manifest.json",
    ),
    "traversal": (listed("../secret"), "path '../secret'", "edgekit/bundle.json.files['../secret']"),
    "an absolute path": (listed("/etc/passwd"), "path '/etc/passwd'", "edgekit/bundle.json.files['/etc/passwd']"),
    "a key twice": (
        text_of_manifest('"name"', '"name": "a", "name"'),
        "key 'name' stands there twice",
        "edgekit/bundle.json",
    ),
    "NaN": (text_of_manifest('"metrics": {}', '"metrics": {"a": NaN}'), "got NaN", "edgekit/bundle.json"),
    "external data": (external, "a tensor keeps its data in another file", "models/model/cpu/model.onnx"),
    "a foreign domain": (node("evil", "Run"), "operator domain 'evil'", "models/model/cpu/model.onnx"),
    "compiled code": (node("com.microsoft", "EPContext"), "operator EPContext", "models/model/cpu/model.onnx"),
    "another package": (
        lambda bundle: reseal(bundle, {"manifest.json": b'{"schema_version": "1.0"}'}),
        "says something else than edgekit/bundle.json",
        "manifest.json",
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_with_its_place(programs, bundles, tmp_path, name):
    attack, problem, where = ATTACKS[name]
    bundle = shutil.copytree(bundles.tensors, tmp_path / "bundle")
    attack(bundle)
    error = programs.refused("--check", bundle)
    assert (error["kind"], error["problem"]) == ("bundle", problem)
    assert error["where"] in {where, f"{bundle}/{where}"}


def zip_attack(change):
    """A function that writes a zip of a bundle with `change(files)` done to its [(name, data, options)]."""

    def write_zip(bundle, path):
        entries = [
            [file.relative_to(bundle).as_posix(), file.read_bytes(), zipfile.ZIP_STORED]
            for file in sorted(bundle.rglob("*"))
            if file.is_file()
        ]
        change(entries)
        with zipfile.ZipFile(path, "w") as archive:
            for name, data, method in entries:
                archive.writestr(zipfile.ZipInfo(name), data, method)

    return write_zip


def bytes_attack(change):
    def write_zip(bundle, path):
        path.write_bytes(change(zipped(bundle, path).read_bytes()))

    return write_zip


ZIP_ATTACKS = {
    "slip": (zip_attack(lambda entries: entries.append(["../evil", b"", 0])), "path '../evil'"),
    "compressed": (
        zip_attack(lambda entries: entries[0].__setitem__(2, zipfile.ZIP_DEFLATED)),
        "compression method 8",
    ),
    "a name of a folder": (zip_attack(lambda entries: entries.append(["folder/", b"", 0])), "path 'folder/'"),
    "bytes before": (bytes_attack(lambda data: b"#!/bin/sh\n" + data), "a directory of"),
    "bytes after": (bytes_attack(lambda data: data + b"x"), "no end of a zip at the end of the file"),
    "half of it": (bytes_attack(lambda data: data[: len(data) // 2]), "no end of a zip at the end of the file"),
    "headers that disagree": (
        bytes_attack(lambda data: data[:14] + struct.pack("<L", 1) + data[18:]),
        "the local header says something else",
    ),
}


@pytest.mark.parametrize("name", ZIP_ATTACKS)
def test_an_attack_in_a_zip_is_refused(programs, bundles, tmp_path, name):
    write_zip, problem = ZIP_ATTACKS[name]
    path = tmp_path / "made.edgekit.zip"
    write_zip(bundles.tensors, path)
    error = programs.refused("--check", path)
    assert error["kind"] == "bundle"
    assert error["problem"].startswith(problem)
    assert error["where"].startswith(str(path))


@pytest.fixture(scope="session")
def attacks(tmp_path_factory):
    """What the script of attacks for all loaders writes: its folder and its index."""
    script = VECTORS / "attacks.py"
    if not script.is_file():
        pytest.skip(f"no {script.relative_to(ROOT)} here")
    spec = importlib.util.spec_from_file_location("attacks_for_cpp", script)
    module = importlib.util.module_from_spec(spec)
    sys.modules["attacks_for_cpp"] = module  # dataclasses look there for the module of a class
    spec.loader.exec_module(module)
    out = tmp_path_factory.mktemp("attacks")
    assert module.main([str(out)]) == 0
    return out, json.loads((out / "index.json").read_text())


def check_attacks(programs, out, rows):
    assert {row["expected"] for row in rows} == {"accepted", "refused"}
    for row in rows:
        if row["expected"] == "accepted":
            programs.classify("--check", out / row["path"])
        else:
            error = programs.refused("--check", out / row["path"])
            assert error["kind"] in {"bundle", "runtime"}, row
            assert error["where"], row


def test_the_attacks_for_all_loaders(programs, attacks):
    out, rows = attacks
    check_attacks(programs, out, [row for row in rows if row["expected"] == "accepted"] + rows[::4])


# --- slow -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_sanitizers_find_nothing_in_what_is_right(sanitized, bundles, tmp_path):
    np.save(tmp_path / "photo.npy", photo(13, 20, 30))
    save_wav(tmp_path / "sound.wav", tone(1, 900), width=3)
    (tmp_path / "text.txt").write_text("the fox")
    for kind in ("image", "log_mel", "waveform", "wordpiece", "classification", "detection", "text"):
        (tmp_path / "cases.json").write_text(json.dumps({"cases": json.loads((VECTORS / f"{kind}.json").read_text())}))
        sanitized.probe("process", kind, tmp_path / "cases.json")
    for bundle in vars(bundles).values():
        sanitized.classify("--check", bundle)
        sanitized.classify("--check", zipped(bundle, tmp_path / "made.edgekit.zip"))
    sanitized.probe("memory", bundles.image, tmp_path / "photo.npy")
    sanitized.probe("threads", bundles.image, tmp_path / "photo.npy")
    sanitized.probe("runtime")
    sanitized.answer(bundles.sound, tmp_path / "sound.wav")
    sanitized.answer(bundles.text, tmp_path / "text.txt")
    test_inputs_that_do_not_fit(sanitized, bundles, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_sanitizers_find_nothing_in_attacks(sanitized, bundles, attacks, tmp_path):
    check_attacks(sanitized, *attacks)
    test_json_is_taken_and_refused_as_in_python(sanitized, tmp_path)
    test_the_scan_counts_as_python_does_and_takes_no_more(sanitized, tmp_path)
    whole = zipped(bundles.text, tmp_path / "whole.zip").read_bytes()
    for data in spoiled(whole, 300):
        (tmp_path / "made.edgekit.zip").write_bytes(data)
        done = subprocess.run(
            [sanitized.folder / "classify", "--check", tmp_path / "made.edgekit.zip"],
            env=sanitized.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in {0, 4}, done.stderr


# What the dynamic linker and ONNX Runtime do themselves. No leak is suppressed, wherever the memory was had.
SUPPRESSIONS = """
{
   the dynamic linker compares words at a time
   Memcheck:Addr8
   fun:strncmp
   fun:is_dst
}
{
   the dynamic linker, on condition
   Memcheck:Cond
   obj:*/ld-linux*
}
{
   ONNX Runtime copies a number onto itself
   Memcheck:Overlap
   fun:__memcpy_chk
   obj:*libonnxruntime*
}
"""


@pytest.mark.slow
def test_valgrind_finds_nothing(programs, library, bundles, tmp_path):
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        absent("CPP", "no valgrind here")
    (tmp_path / "suppressions").write_text(SUPPRESSIONS)
    options = ["--quiet", "--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite,indirect"]
    watched = Programs(programs.folder, library, [valgrind, *options, f"--suppressions={tmp_path / 'suppressions'}"])
    np.save(tmp_path / "photo.npy", photo(13, 20, 30))
    watched.probe("memory", bundles.image, tmp_path / "photo.npy")


@pytest.mark.slow
def test_an_installed_loader_is_found(programs, library, bundles, tmp_path):
    subprocess.run(
        ["cmake", "--install", programs.folder, "--prefix", tmp_path / "there", "--component", "Unspecified"],
        check=True,
    )
    project = tmp_path / "project"
    project.mkdir()
    (project / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(mine CXX)\nfind_package(edgekit 1.0 REQUIRED)\n"
        "add_executable(mine main.cpp second.cpp)\ntarget_link_libraries(mine PRIVATE edgekit::edgekit)\n"
    )
    # Two files with the headers: nothing in them may be defined twice.
    (project / "second.cpp").write_text("#include <edgekit/edgekit.hpp>\nvoid second(edgekit::Model&) {}\n")
    (project / "main.cpp").write_text(
        "#include <edgekit/edgekit.hpp>\n#include <cstdio>\n"
        "int main(int, char** values) {\n  auto model = edgekit::Model::load(values[1]);\n"
        "  if (!model) return std::puts(model.error().text().c_str()), 4;\n"
        "  std::puts(model->name().c_str());\n}\n"
    )
    subprocess.run(
        ["cmake", "-S", project, "-B", project / "b", f"-DCMAKE_PREFIX_PATH={tmp_path / 'there'}"], check=True
    )
    subprocess.run(["cmake", "--build", project / "b", "-j", "2"], check=True)
    mine = Programs(project / "b", library)
    assert mine.run("mine", bundles.tensors).stdout == "made\n"
    assert mine.run("mine", tmp_path / "none", code=4).stdout.startswith("no such folder or file")


@pytest.mark.slow
def test_what_a_call_costs_is_printed(tmp_path_factory, library, bundles):
    folder = build(tmp_path_factory.mktemp("release"), "overhead", CMAKE_BUILD_TYPE="Release")
    for name in ("tensors", "image", "sound", "objects"):
        text = Programs(folder, library).run("overhead", getattr(bundles, name), "500").stdout
        sys.stdout.write(f"{name}\n{text}")
        assert text.startswith("500 interleaved rounds")
