"""The JavaScript package gives what Python gives, on both of ONNX Runtime's packages, and refuses what Python does."""

from __future__ import annotations

import hashlib
import io
import json
import re
import runpy
import struct
import subprocess
import sys
import warnings
import wave
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from edgekit.bundle import Variant
from edgekit.device import load

pytestmark = pytest.mark.slow  # They install or compile what the default tests need not wait for.

HERE = Path(__file__).parent
VECTORS = HERE.parents[1] / "tools" / "device_apps" / "vectors"
node = runpy.run_path(str(HERE / "node.py"))
made = runpy.run_path(str(HERE / "bundles.py"))
KINDS = ("shapes", "words", "echo", "boxes", "words-baked", "boxes-baked")
RUNTIMES = ("web", "node")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """By name: the bundle and two raw inputs."""
    folder = tmp_path_factory.mktemp("bundles")
    found = {name: made[name](folder) for name in KINDS if not name.endswith("-baked")}
    for name in ("words", "boxes"):
        found[f"{name}-baked"] = made[name](folder / "baked", bake=("preprocessing",))
    return found


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory):
    """A raw input as a request has it."""
    folder = tmp_path_factory.mktemp("raw")

    def hand(raw, name, how):
        if isinstance(raw, str):
            return raw
        np.save(folder / f"{name}.npy", raw)
        return {"npy": str(folder / f"{name}.npy"), "as": how}

    return hand


@pytest.fixture(scope="module")
def answered(bundles, drive, handed_in):
    """Every bundle on every runtime, from its folder and from its zip: (name, runtime, packed) to what came out."""
    how = {"shapes": "image", "words": "samples", "boxes": "image"}
    requests, keys = [], []
    for name, (bundle, raws) in bundles.items():
        inputs = [
            handed_in(raw, f"{name}-{index}", how.get(name.removesuffix("-baked"))) for index, raw in enumerate(raws)
        ]
        if name == "shapes":  # A batch of two, prepared.
            tensor = np.random.default_rng(4).standard_normal((2, 3, 8, 8)).astype(np.float32)
            inputs.append(handed_in(tensor, "batch", "tensor"))
        for runtime in RUNTIMES:
            for packed in (False, True):
                path = made["pack"](bundle) if packed else bundle
                keys.append((name, runtime, packed))
                requests.append(
                    {"bundle": str(path), "bytes": packed, "runtime": runtime, "check": True, "inputs": inputs}
                )
    return dict(zip(keys, drive(requests), strict=True))


def by_python(bundle, raw):
    """Python's answer, as JSON."""
    found = load(bundle).predict(raw)
    if isinstance(found, str):
        return found
    return [each.to_dict() for each in found] if isinstance(found, tuple) else found.to_dict()


def assert_same(found, wanted, tolerance):
    """Equal, numbers to a tolerance; what JavaScript adds to Python's keys is its own."""
    if isinstance(wanted, dict):
        assert set(wanted) <= set(found)
        for key, value in wanted.items():
            assert_same(found[key], value, tolerance)
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other, tolerance)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=0, abs=tolerance)
    else:
        assert found == wanted


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", KINDS)
def test_predictions_are_pythons(answered, bundles, name, runtime):
    bundle, raws = bundles[name]
    wanted = [by_python(bundle, raw) for raw in raws]
    if name == "shapes":
        wanted.append(by_python(bundle, np.random.default_rng(4).standard_normal((2, 3, 8, 8)).astype(np.float32)))
    for packed in (False, True):
        found = answered[name, runtime, packed]
        assert "error" not in found, found
        assert_same(found["answers"], wanted, 1e-4 if "boxes" in name else 1e-5)


def test_a_detector_finds_something(bundles):
    bundle, raws = bundles["boxes"]
    assert any(by_python(bundle, raw) for raw in raws)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", KINDS)
def test_golden_vectors_hold(answered, bundles, name, runtime):
    found = answered[name, runtime, True]
    assert found["checked"]["samples"] == 2
    assert all(value <= found["checked"]["tolerances"][key] for key, value in found["checked"]["differences"].items())
    assert found["digest"] == hashlib.sha256((bundles[name][0] / "edgekit/bundle.json").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def computed(package):
    """What the package makes of the shared vectors, by kind."""
    return node["run"](package / "vectors.mjs", VECTORS, where=package)


@pytest.mark.parametrize("kind", ["image", "log_mel", "waveform", "wordpiece", "classification", "detection", "text"])
def test_shared_vectors(computed, kind):
    found = computed[kind]
    cases = json.loads((VECTORS / f"{kind}.json").read_text())
    assert len(found) == len(cases) > 0
    for case, value in zip(cases, found, strict=True):
        assert_same(value, case["expected"], case["tolerance"])


def test_images_come_out_bit_for_bit(drive, handed_in, tmp_path):
    """Float for float: the vectors are rounded on paper, these are not."""
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (61, 47, 3), dtype=np.uint8)
    requests, wanted = [], []
    for number, change in enumerate(
        [
            {"fit": "stretch", "filter": "bilinear"},
            {"fit": "resize-crop", "shorter_side": 31, "filter": "bicubic"},
            {"fit": "crop-resize", "filter": "bicubic", "antialias": False, "colour": "BGR"},
            {"fit": "letterbox", "pad": 7, "filter": "nearest", "layout": "NHWC"},
        ]
    ):
        prepare = made["ImagePreprocessing"](
            size=(24, 29), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), **change
        )
        shape = (1, *prepare.apply(image).shape[1:])
        spec = made["spec_of"]([("x", "float32", shape)], [("y", "float32", shape)])
        path = made["save"](tmp_path / f"{number}.onnx", [("Identity", ["x"], ["y"], {})], spec, {})
        bundle = made["write"](tmp_path, f"same-{number}", path, spec, [image], preprocessing=prepare)
        requests.append(
            {"bundle": str(bundle), "runtime": "web", "inputs": [handed_in(image, f"bits-{number}", "image")]}
        )
        wanted.append(prepare.apply(image))
    for found, value in zip(drive(requests), wanted, strict=True):
        assert np.array_equal(np.array(found["answers"][0]["y"]["data"], np.float32), value.ravel())


# --- which variant runs


def test_int8_runs_in_webassembly_where_golden_vectors_prove_it(answered):
    found = answered["shapes", "web", True]
    assert found["variant"] == "cpu-int8"
    assert "reproduces all 2 golden vectors" in found["explained"]
    assert found["warnings"] == []


@pytest.fixture(scope="module")
def choices(drive, edit, tmp_path_factory):
    """What is chosen in WebAssembly from bundles whose int8 cannot be trusted."""
    folder = tmp_path_factory.mktemp("choices")
    wrong, _ = made["shapes"](folder / "wrong", scale=1.01)
    edit(wrong, lambda about: about["variants"][0]["tolerance"].update(scores=1e-6))
    bare, _ = made["shapes"](folder / "bare", proof=False)
    only = {"cpu-int8": Variant(path=folder / "bare/shapes.onnx", precision="int8", target="arm64")}
    alone, _ = made["shapes"](folder / "alone", proof=False, variants=only)
    names = {"wrong": wrong, "bare": bare, "alone": alone}
    return dict(zip(names, drive([{"bundle": str(path), "runtime": "web"} for path in names.values()]), strict=True))


def test_a_variant_that_fails_its_golden_vectors_is_passed_over_aloud(choices):
    found = choices["wrong"]
    assert found["variant"] == "cpu-fp32"
    assert "passed over cpu-int8" in found["explained"]
    assert any("passed over cpu-int8" in text for text in found["warnings"])


def test_without_golden_vectors_float_runs_in_webassembly(choices):
    assert (choices["bare"]["variant"], choices["bare"]["compromise"]) == ("cpu-fp32", "")


def test_int8_without_golden_vectors_is_a_compromise_in_webassembly(choices):
    assert choices["alone"]["variant"] == "cpu-int8"
    assert "no golden vectors" in choices["alone"]["compromise"]
    assert any("no golden vectors" in text for text in choices["alone"]["warnings"])


def test_native_node_takes_what_python_takes(answered, bundles):
    assert answered["shapes", "node", True]["variant"] == load(bundles["shapes"][0]).variant.name


def test_webassembly_does_not_saturate(package, tmp_path):
    """The reason why int8 files for any processor may run there: U8 x S8 sums at the ends of their ranges are exact."""
    found = node["run"](package / "saturation.mjs", saturating(tmp_path), where=package)
    # 64 products of 255 and 127 (or -128): VPMADDUBSW would stop at 32767 for each pair.
    assert found == [pytest.approx(64 * 255 * 127, rel=0.005)] * 4 + [pytest.approx(-64 * 255 * 128, rel=0.005)] * 4


def saturating(folder):
    """A QDQ MatMul of an input [1, 64] with weights 127 (columns 0 to 3) and -128 (columns 4 to 7)."""
    weights = np.full((64, 8), 127, np.int8)
    weights[:, 4:] = -128
    spec = made["spec_of"]([("x", "float32", (1, 64))], [("y", "float32", (1, 8))])
    nodes = [
        ("QuantizeLinear", ["x", "one", "u0"], ["xq"], {}),
        ("DequantizeLinear", ["xq", "one", "u0"], ["xd"], {}),
        ("DequantizeLinear", ["w", "one", "s0"], ["wd"], {}),
        ("MatMul", ["xd", "wd"], ["product"], {}),
        ("QuantizeLinear", ["product", "step", "middle"], ["yq"], {}),
        ("DequantizeLinear", ["yq", "step", "middle"], ["y"], {}),
    ]
    values = {
        "one": np.float32(1),
        "u0": np.uint8(0),
        "s0": np.int8(0),
        "w": weights,
        "step": np.float32(64 * 255 * 128 / 128),
        "middle": np.uint8(128),
    }
    return made["save"](folder / "saturating.onnx", nodes, spec, values)


# --- what is refused


@pytest.fixture(scope="module")
def edit():
    """Change a bundle's manifest and files and give it digests that fit, as an attacker can."""

    def change(bundle, alter=None, **files):
        path = bundle / "edgekit/bundle.json"
        about = json.loads(path.read_text())
        for name, data in files.items():
            (bundle / name.replace("__", "/")).write_bytes(data)
        if alter:
            alter(about)
        for name, entry in about["files"].items():
            if (bundle / name).is_file():
                data = (bundle / name).read_bytes()
                entry.update(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        path.write_text(json.dumps(about))
        return bundle

    return change


MODELS = ("models__model__cpu-fp32__model.onnx", "models__model__cpu-int8__model.onnx")


def rewritten(change):
    """The manifest's text changed."""

    def attack(bundle, _):
        path = bundle / "edgekit/bundle.json"
        path.write_text(change(path.read_text()))

    return attack


def altered(change):
    """The manifest's values changed, and sealed again."""
    return lambda bundle, edit: edit(bundle, change)


def models(data):
    """Both models replaced by what `data` makes of one, and sealed again."""
    return lambda bundle, edit: edit(
        bundle, **dict.fromkeys(MODELS, data((bundle / "models/model/cpu-fp32/model.onnx").read_bytes()))
    )


def metrics(text):
    return rewritten(lambda old: re.sub('"metrics": {}', f'"metrics": {{"a": {text}}}', old))


OUTSIDE = {"../x": {"sha256": "0" * 64, "size": 1}}
FOLDERS = {
    "a byte of the model": (lambda b, _: flip(b / "models/model/cpu-fp32/model.onnx", 40), "SHA-256"),
    "a byte of the golden vectors": (lambda b, _: flip(b / "edgekit/golden.npz", 300), "SHA-256"),
    "an extra file": (lambda b, _: (b / "edgekit/extra").write_bytes(b""), "not in the manifest"),
    "a missing file": (lambda b, _: (b / "edgekit/golden.npz").unlink(), "missing"),
    "a symbolic link": (lambda b, _: link(b / "manifest.json", "symlink_to"), "symbolic link"),
    "a hard link": (lambda b, _: link(b / "manifest.json", "hardlink_to"), "2 hard links"),
    "an empty folder": (lambda b, _: (b / "models/more").mkdir(), "empty folder"),
    "a key twice": (rewritten(lambda text: text.replace('"name"', '"name": "x", "name"', 1)), "twice"),
    "NaN": (metrics("NaN"), "NaN"),
    "a number too large": (metrics("1e999"), "out of range"),
    "half a surrogate pair": (metrics(r'"\\ud800"'), "no Unicode"),
    "too deep": (metrics("[" * 99 + "]" * 99), "deeply"),
    "no JSON": (rewritten(lambda text: text[:-20]), "not JSON"),
    "an unknown key": (altered(lambda about: about.update(more=1)), "unknown key"),
    "a new major version": (altered(lambda about: about.update(version="2.0")), "version 2.0"),
    "a path that leads out": (altered(lambda about: about["files"].update(OUTSIDE)), "path"),
    "a model elsewhere": (altered(lambda about: about["variants"][0].update(file="manifest.json")), "got"),
    "another component": (lambda b, edit: edit(b, **{"models__model__component.json": b"{}"}), "something else"),
    "a negative tolerance": (altered(lambda about: about["variants"][0]["tolerance"].update(scores=-1)), "got -1"),
    "a crop of no side": (altered(lambda about: about["preprocessing"].update(fit="resize-crop")), "got null"),
    "an output that is none": (altered(lambda about: about["postprocessing"].update(output="x")), "got"),
    "golden samples that are none": (altered(lambda about: about.update(golden_samples=3)), "got nothing"),
    "a compressed golden": (lambda b, edit: edit(b, **{"edgekit__golden.npz": deflated(b)}), "compressed"),
    "no ONNX": (models(lambda _: b"not a model"), "field number|wire type|are left"),
    "external data": (models(lambda _: external()), "another file"),
    "a foreign operator": (models(lambda _: foreign()), "operator domain"),
    "half a model": (models(lambda data: data[:-9]), "are left"),
}


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def link(path, how):
    elsewhere = path.parent.parent / "elsewhere"
    elsewhere.write_bytes(path.read_bytes())
    path.unlink()
    getattr(path, how)(elsewhere)


def deflated(bundle):
    buffer = io.BytesIO()
    source = zipfile.ZipFile(bundle / "edgekit/golden.npz")
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name))
    return buffer.getvalue()


def external():
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["w"], ["y"])], "g", [], [], [tensor])
    return onnx.helper.make_model(graph).SerializeToString()


def foreign():
    graph = onnx.helper.make_graph([onnx.helper.make_node("Run", ["x"], ["y"], domain="evil")], "g", [], [])
    return onnx.helper.make_model(graph).SerializeToString()


def twice(data):
    """The zip with a second entry of its first entry's name."""
    buffer = io.BytesIO(data)
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "a") as archive:
        warnings.simplefilter("ignore", UserWarning)
        archive.writestr(zipfile.ZipInfo(archive.namelist()[0]), b"{}")
    return buffer.getvalue()


ZIPS = {
    "truncated": (lambda data: data[:-10], "no end of a zip"),
    "something before it": (lambda data: b"x" + data, "directory of"),
    "something after it": (lambda data: data + b"x", "no end of a zip"),
    "a comment": (lambda data: data[:-2] + b"\x01\x00x", "no end of a zip"),
    "an encrypted entry": (lambda data: central(data, 8, b"\x01\x00"), "flags"),
    "a data descriptor": (lambda data: central(data, 8, b"\x08\x00"), "flags"),
    "a compressed entry": (lambda data: central(data, 10, b"\x08\x00"), "compressed"),
    "another size": (lambda data: central(data, 20, struct.pack("<2L", 5, 5)), "begins at|says something else"),
    "another name": (lambda data: central(data, 46, b"E"), "local header"),
    "a symbolic link": (lambda data: central(data, 38, struct.pack("<L", 0o120777 << 16)), "link"),
    "another checksum": (lambda data: both(data, 16, 14, b"\0\0\0\0"), "CRC-32"),
    "an entry within another": (lambda data: central(data, 42, struct.pack("<L", 9)), "begins at 9"),
    "an entry twice": (twice, "two entries"),
    "no zip": (lambda _: b"PK" * 40, "no end of a zip"),
    "empty": (lambda _: b"", "no end of a zip"),
}


def central(data, offset, value):
    """`data` with other bytes in its directory's first entry."""
    at = struct.unpack("<L", data[-6:-2])[0] + offset
    return data[:at] + value + data[at + len(value) :]


def both(data, offset, in_local, value):
    return value.join([data[:in_local], central(data, offset, value)[in_local + len(value) :]])


@pytest.fixture(scope="module")
def refused(tmp_path_factory, drive, edit, bundles):
    """What became of bundles that were tampered with, by the kind of attack."""
    folder, requests = tmp_path_factory.mktemp("attacks"), []
    for number, (attack, _) in enumerate(FOLDERS.values()):
        bundle, _ = made["shapes"](folder / str(number))
        attack(bundle, edit)
        requests.append({"bundle": str(bundle), "runtime": "web"})
    data = made["pack"](bundles["shapes"][0]).read_bytes()
    for number, (attack, _) in enumerate(ZIPS.values()):
        path = folder / f"{number}.zip"
        path.write_bytes(attack(data))
        requests.append({"bundle": str(path), "bytes": number % 2 == 0, "runtime": "web"})
    requests.append({"bundle": str(bundles["echo"][0]), "runtime": "web", "options": {"digest": "0" * 64}})
    return dict(zip([*FOLDERS, *ZIPS, "another digest"], drive(requests), strict=True))


@pytest.mark.parametrize("attack", [*FOLDERS, *ZIPS, "another digest"])
def test_what_is_no_bundle_is_refused(refused, attack):
    error = refused[attack].get("error")
    assert error, "not refused"
    assert error["name"] == "BundleError", error
    assert re.search({**FOLDERS, **ZIPS, "another digest": ("", "another bundle")}[attack][1], error["problem"]), error
    assert error["where"]
    assert error["rule"]


def test_no_flipped_bit_changes_what_is_loaded(tmp_path, drive):
    """It is refused, or lies where no reader looks: the directory's "made by" and the files' permissions."""
    bundle = made["echo"](tmp_path)[0]
    data = made["pack"](bundle).read_bytes()
    rng, requests = np.random.default_rng(5), []
    for number, at in enumerate(rng.choice(len(data), 100, replace=False)):
        (tmp_path / f"{number}.zip").write_bytes(data[:at] + bytes([data[at] ^ (1 << number % 8)]) + data[at + 1 :])
        requests.append({"bundle": str(tmp_path / f"{number}.zip"), "bytes": True, "runtime": "web"})
    digest = hashlib.sha256((bundle / "edgekit/bundle.json").read_bytes()).hexdigest()
    found = drive(requests)
    assert all(
        each["error"]["name"] == "BundleError" if "error" in each else each["digest"] == digest for each in found
    )
    assert sum("error" in each for each in found) > 90


ATTACKS = VECTORS / "attacks.py"


def test_the_verdict_on_every_attack_is_the_expected_one(drive, tmp_path):
    """The bundles that every loader is tried with, and the whole one among them."""
    done = subprocess.run([sys.executable, ATTACKS, tmp_path / "attacks"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "attacks/index.json").read_text())
    found = drive(
        [{"bundle": str(tmp_path / "attacks" / row["path"]), "runtime": "web", "check": True} for row in rows]
    )
    verdicts = {"BundleError": "refused", None: "accepted"}
    for row, each in zip(rows, found, strict=True):
        name = each.get("error", {}).get("name")
        assert verdicts.get(name, name) == row["expected"], (row, each)


# --- the sample program


def test_the_sample_program_predicts_from_files(package, bundles, tmp_path):
    bundle, raws = bundles["shapes"]
    photo = Image.fromarray(np.random.default_rng(6).integers(0, 256, (50, 70, 3), dtype=np.uint8)).resize((200, 150))
    for name, save in {"a.png": {}, "a.jpg": {"quality": 80}, "a.ppm": {}}.items():
        photo.save(tmp_path / name, **save)
    np.save(tmp_path / "tensor.npy", load(bundle).feeds(raws[0])["image"])
    inputs = [tmp_path / name for name in ("a.png", "a.jpg", "a.ppm", "tensor.npy")]
    done = node["start"](package / "examples/classify.mjs", bundle, *inputs, "--check", "--json", where=package)
    assert done.returncode == 0, done.stderr
    assert "golden vectors: 2 of 2" in done.stderr
    for line, path in zip(done.stdout.splitlines(), inputs, strict=True):
        # JPEG among them: the decoder is libjpeg's kin, as Pillow's is.
        assert_same(json.loads(line)["answer"], by_python(bundle, path), 1e-5)


def test_the_sample_program_takes_sound_and_text(package, bundles, tmp_path):
    sound = (bundles["words"][1][1] * 20000).astype("<i2")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(sound.tobytes())
    for name, given in (("words", tmp_path / "a.wav"), ("echo", "the cat sat")):
        bundle = bundles[name][0]
        done = node["start"](package / "examples/classify.mjs", bundle, given, "--json", where=package)
        assert done.returncode == 0, done.stderr
        assert_same(json.loads(done.stdout)["answer"], by_python(bundle, given), 1e-5)


def test_the_sample_program_says_what_is_wrong(package, bundles, tmp_path):
    for words, said in (
        ([tmp_path / "none.edgekit", "x.png"], "no such folder"),
        ([bundles["shapes"][0], tmp_path / "none.png"], "ENOENT"),
        ([bundles["shapes"][0], "--runtime", "web", "--digest", "0" * 64], "another bundle"),
    ):
        done = node["start"](package / "examples/classify.mjs", *words, where=package)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert said in done.stderr
        assert "rule:" in done.stderr


# --- the package itself


def test_sha_256_without_webcrypto(package):
    texts = ["", "abc", "x" * 55, "x" * 56, "x" * 64, "é" * 1000]
    found = node["run"](package / "digests.mjs", json.dumps(texts), where=package)
    assert found == [hashlib.sha256(text.encode()).hexdigest() for text in texts]


def test_declared_types_are_what_is_exported(package):
    declared = re.findall(
        r"^export (?:class|function|const) (\w+)", (package / "src/index.d.ts").read_text(), re.MULTILINE
    )
    assert sorted(declared) == node["run"](package / "exports.mjs", where=package)


@pytest.mark.parametrize("name", ["js", "web"])
def test_lock_files_name_no_registry(name):
    lock = json.loads((HERE.parents[1] / "tools/device_apps" / name / "package-lock.json").read_text())
    assert not [path for path, entry in lock["packages"].items() if "resolved" in entry]
    assert all("integrity" in entry for path, entry in lock["packages"].items() if path)
