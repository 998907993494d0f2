"""Write malicious bundles, each with what a loader must say of it, for the tests of every loader.

    python tools/device_apps/vectors/attacks.py OUT

OUT gets a folder for each attack with the bundle in it (`bundle.edgekit` or `bundle.edgekit.zip`), and `index.json`:
rows of {"name", "path", "form": "folder" | "zip", "expected": "refused" | "accepted", "rule"}. "refused" means that
loading the bundle, or replaying its golden vectors, ends with an error that is the bundle's fault: no crash, no result.
Attacks on contents are written in both forms. An attacker can make digests fit; `resealed` attacks do.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import os
import shutil
import stat
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.bundle import Golden, Variant, write_bundle
from edgekit.spec import IOSpec, TensorSpec

MANIFEST = "edgekit/bundle.json"
GOLDEN = "edgekit/golden.npz"
MODEL = "models/model/cpu/model.onnx"
SECRET = b"\x00\x00\x80\x3f" * 6

Files = dict[str, bytes]
"""A bundle's files by name."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One written attack."""

    name: str
    path: Path
    form: str
    expected: str
    rule: str

    def to_dict(self, root: Path) -> dict[str, Any]:
        """A row of the index."""
        return {**dataclasses.asdict(self), "path": self.path.relative_to(root).as_posix()}


# --- a bundle that is all right --------------------------------------------------------------------------------------


def network(weights: np.ndarray | None = None) -> onnx.ModelProto:
    """A product: y [n, 3] = x [n, 2] @ w [2, 3]."""
    values = np.arange(6, dtype=np.float32).reshape(2, 3) if weights is None else weights
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(values, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def whole() -> Files:
    """The files of a small bundle that every loader takes."""
    x = np.array([[1.0, 2.0]], np.float32)
    y = x @ np.arange(6, dtype=np.float32).reshape(2, 3)
    spec = IOSpec(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("n", 2)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("n", 3)),),
    )
    with tempfile.TemporaryDirectory() as temporary:
        path, folder = Path(temporary, "m.onnx"), Path(temporary, "bundle")
        onnx.save(network(), path)
        write_bundle(
            folder,
            name="attacked",
            variants={"cpu": Variant(path=path)},
            spec=spec,
            golden=[Golden(inputs={"x": x}, outputs={"y": y})],
        )
        return {
            each.relative_to(folder).as_posix(): each.read_bytes()
            for each in sorted(folder.rglob("*"))
            if each.is_file()
        }


def reseal(files: Files) -> Files:
    """Give files digests and sizes that fit, as an attacker can; files that are not listed stay unlisted."""
    about = json.loads(files[MANIFEST])
    for name, entry in about["files"].items():
        if name in files:
            entry.update(sha256=hashlib.sha256(files[name]).hexdigest(), size=len(files[name]))
    return {**files, MANIFEST: json.dumps(about).encode()}


# --- contents --------------------------------------------------------------------------------------------------------

CONTENTS: dict[str, tuple[str, Callable[[Files], Files]]] = {}
"""By name: the rule that is broken, and what is done to the files."""


def content(rule: str) -> Callable[[Callable[[Files], Files]], Callable[[Files], Files]]:
    """Take a function as an attack on contents; its name is the attack's."""

    def keep(change: Callable[[Files], Files]) -> Callable[[Files], Files]:
        CONTENTS[change.__name__.replace("_", "-")] = (rule, change)
        return change

    return keep


def with_model(files: Files, model: onnx.ModelProto | bytes) -> Files:
    """The files with another model, resealed."""
    return reseal({**files, MODEL: model if isinstance(model, bytes) else model.SerializeToString()})


def manifest_attack(name: str, rule: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Take a change of `bundle.json` as an attack."""

    def apply(files: Files) -> Files:
        about = json.loads(files[MANIFEST])
        changed = change(about)
        return {**files, MANIFEST: json.dumps(about if changed is None else changed).encode()}

    CONTENTS[f"manifest-{name}"] = (rule, apply)


def raw_manifest_attack(name: str, rule: str, old: str, new: str) -> None:
    """Take a replacement in the text of `bundle.json` as an attack: what json.dumps would not write."""

    def apply(files: Files) -> Files:
        text = files[MANIFEST].decode()
        assert old in text, old
        return {**files, MANIFEST: text.replace(old, new, 1).encode()}

    CONTENTS[f"manifest-{name}"] = (rule, apply)


def _external(location: str, *, sparse: bool, length: str | None = None) -> onnx.ModelProto:
    model = network()
    tensor = model.graph.initializer[0]
    if sparse:
        del model.graph.initializer[:]
        made = model.graph.sparse_initializer.add(dims=[2, 3])
        made.indices.CopyFrom(numpy_helper.from_array(np.arange(6, dtype=np.int64), "w_indices"))
        tensor = made.values
        tensor.CopyFrom(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[6]))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    if length is not None:
        tensor.external_data.add(key="length", value=length)
    return model


def _external_attacks() -> None:
    places = {
        "parent": "../../../../secret.bin",
        "hidden-parent": "a/../../../../../secret.bin",
        "absolute": "/etc/passwd",
        "backslash": "..\\..\\secret.bin",
        "listed-file": "../../../edgekit/golden.npz",
        "beside": "weights.bin",
        "empty": "",
    }
    for kind in ("dense", "sparse"):
        for name, place in places.items():

            def apply(files: Files, place: str = place, kind: str = kind) -> Files:
                return with_model(files, _external(place, sparse=kind == "sparse"))

            CONTENTS[f"external-{kind}-{name}"] = ("all weights inside the ONNX file", apply)

        def huge(files: Files, kind: str = kind) -> Files:
            return with_model(files, _external("weights.bin", sparse=kind == "sparse", length=str(2**62)))

        CONTENTS[f"external-{kind}-huge-length"] = ("all weights inside the ONNX file", huge)

        def listed(files: Files, kind: str = kind) -> Files:
            about = json.loads(files[MANIFEST])
            about["files"]["models/model/cpu/weights.bin"] = {"sha256": "0" * 64, "size": 0}
            changed = {**files, MANIFEST: json.dumps(about).encode(), "models/model/cpu/weights.bin": SECRET}
            return with_model(changed, _external("weights.bin", sparse=kind == "sparse"))

        CONTENTS[f"external-{kind}-listed-weights"] = (
            "all weights inside the ONNX file, even if the file is listed",
            listed,
        )


def _node(operator: str, domain: str = "", **attributes: Any) -> onnx.ModelProto:
    model = network()
    model.graph.node[0].CopyFrom(helper.make_node(operator, ["x", "w"], ["y"], domain=domain, **attributes))
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    return model


@content("operators of ONNX and of ONNX Runtime alone")
def domain_unknown(files: Files) -> Files:
    """An operator of a domain that a custom-op library would bring."""
    return with_model(files, _node("MatMul", "evil.ops"))


@content("operators of ONNX and of ONNX Runtime alone")
def domain_imported(files: Files) -> Files:
    """A domain that is imported and not used."""
    model = network()
    model.opset_import.append(helper.make_opsetid("evil.ops", 1))
    return with_model(files, model)


@content("operators of ONNX and of ONNX Runtime alone")
def domain_extensions(files: Files) -> Files:
    """onnxruntime-extensions' domain: a custom-op library."""
    return with_model(files, _node("BertTokenizer", "ai.onnx.contrib"))


@content("no compiled code")
def ep_context(files: Files) -> Files:
    """A compiled blob beside the model."""
    made = _node("EPContext", "com.microsoft", embed_mode=0, main_context=1, ep_cache_context="../../../../secret.bin")
    return with_model(files, made)


@content("no foreign code")
def python_operator(files: Files) -> Files:
    """An operator that calls into Python."""
    return with_model(files, _node("PythonOp", "com.microsoft", func_name="os.system"))


@content("operators written out, no functions of the file's own")
def function_bomb(files: Files) -> Files:
    """Functions that call each other twice: 2^24 nodes once they are inlined."""
    model = network()
    opset = [helper.make_opsetid("", 20)]
    for depth in range(24):
        operator = f"F{depth - 1}" if depth else "Identity"
        nodes = [helper.make_node(operator, ["a"], ["b"]), helper.make_node(operator, ["b"], ["c"])]
        model.functions.append(helper.make_function("ai.onnx.ml", f"F{depth}", ["a"], ["c"], nodes, opset))
    return with_model(files, model)


@content("a bounded depth")
def graphs_nested(files: Files) -> Files:
    """An If within an If, and so on."""
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "leaf", [], [out])
    for _ in range(20):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=graph)], "g", [], [out])
    model = network()
    model.graph.node.append(graph.node[0])
    return with_model(files, model)


@content("a bounded number of nodes")
def nodes_without_end(files: Files) -> Files:
    """250,000 empty nodes in 1 MB."""
    return with_model(files, network().SerializeToString() + _message(7, b"\x0a\x02\x22\x00" * 250_000))


@content("a bounded number of tensors")
def tensors_without_end(files: Files) -> Files:
    """250,000 empty tensors in 1 MB."""
    return with_model(files, network().SerializeToString() + _message(7, b"\x2a\x02\x08\x00" * 250_000))


def _declared(*dims: int, raw: bytes = b"", data_type: int = TensorProto.FLOAT) -> onnx.ModelProto:
    model = network()
    model.graph.initializer.append(TensorProto(name="big", data_type=data_type, dims=dims, raw_data=raw))
    return model


@content("a tensor holds what it declares")
def tensor_declares_terabytes(files: Files) -> Files:
    """2^40 elements, no data."""
    return with_model(files, _declared(2**40))


@content("a tensor holds what it declares")
def tensor_overflows(files: Files) -> Files:
    """2^32 times 2^32 elements: 0 in 64 bits."""
    return with_model(files, _declared(2**32, 2**32))


@content("sizes from 0 up")
def tensor_negative(files: Files) -> Files:
    """A size below 0."""
    return with_model(files, _declared(-1, raw=b"\0" * 4))


@content("a tensor holds what it declares")
def tensor_short(files: Files) -> Files:
    """4 elements in 4 bytes."""
    return with_model(files, _declared(4, raw=b"\0" * 4))


@content("a bounded size of sparse tensors")
def sparse_declares_terabytes(files: Files) -> Files:
    """A sparse tensor of 2^40 elements with one value."""
    model = network()
    made = model.graph.sparse_initializer.add(dims=[2**40])
    made.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "big"))
    made.indices.CopyFrom(numpy_helper.from_array(np.zeros(1, np.int64), "indices"))
    return with_model(files, model)


@content("each field of a tensor's place once")
def tensor_in_two_parts(files: Files) -> Files:
    """Two parts of one tensor, which a parser merges: their sizes multiply."""
    part = _message(5, b"\x08\x80\x80\x40" + b"\x10\x01" + _message(9, b""))
    attribute = b"\x0a\x05value" + part + part + b"\xa0\x01\x04"
    node = b"\x12\x01z" + b"\x22\x08Constant" + _message(5, attribute)
    return with_model(files, network().SerializeToString() + _message(7, _message(1, node)))


@content("no settings of ONNX Runtime in the model")
def session_settings(files: Files) -> Files:
    """Metadata that ONNX Runtime can take session settings from."""
    model = network()
    model.metadata_props.add(key="ort_config", value='{"session_options": {"inter_op_num_threads": 64}}')
    return with_model(files, model)


@content("an ONNX model")
def ort_format(files: Files) -> Files:
    """ONNX Runtime's own format."""
    return with_model(files, b"\x18\x00\x00\x00ORTM" + bytes(64))


@content("an ONNX model")
def garbage_model(files: Files) -> Files:
    """Bytes."""
    return with_model(files, bytes(range(256)))


@content("the inputs and outputs of the manifest")
def other_names(files: Files) -> Files:
    """A model whose input has another name."""
    model = network()
    model.graph.input[0].name = model.graph.node[0].input[0] = "other"
    return with_model(files, model)


@content("the golden outputs")
def other_weights(files: Files) -> Files:
    """A model that computes something else."""
    return with_model(files, network(np.ones((2, 3), np.float32)))


@content("files that are listed")
def extra_file(files: Files) -> Files:
    """A file that is not in the manifest."""
    return {**files, "edgekit/extra.txt": b"x"}


@content("files that are there")
def missing_golden(files: Files) -> Files:
    """A listed file that is not there."""
    return {name: data for name, data in files.items() if name != GOLDEN}


@content("a bundle has edgekit/bundle.json")
def missing_manifest(files: Files) -> Files:
    """No manifest."""
    return {name: data for name, data in files.items() if name != MANIFEST}


@content("manifest.json says what bundle.json says")
def package_elsewhere(files: Files) -> Files:
    """ONNX Runtime's own manifest points out of the bundle."""
    package = {**json.loads(files["manifest.json"]), "components": {"model": "../../etc"}}
    return reseal({**files, "manifest.json": json.dumps(package).encode()})


@content("component.json says what bundle.json says")
def component_library(files: Files) -> Files:
    """ONNX Runtime's component names a library of custom operators."""
    name = "models/model/component.json"
    component = json.loads(files[name])
    component["variants"]["cpu"]["executor_info"]["ort"]["custom_ops_library"] = "evil.so"
    return reseal({**files, name: json.dumps(component).encode()})


@content("an .npz without pickles")
def golden_pickle(files: Files) -> Files:
    """An array of objects."""
    raw = io.BytesIO()
    np.lib.format.write_array(raw, np.array([{}], object), version=(1, 0), allow_pickle=True)
    return reseal({**files, GOLDEN: stored([Part("0/input/x.npy", raw.getvalue())])})


@content("a header of .npy as Python 3 writes it")
def golden_header(files: Files) -> Files:
    """Long integers of Python 2, which numpy mends with a warning."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1L, 2L), }".ljust(117) + b"\n"
    raw = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(8)
    return reseal({**files, GOLDEN: stored([Part("0/input/x.npy", raw), Part("0/output/y.npy", raw)])})


@content("an .npz without compression")
def golden_bomb(files: Files) -> Files:
    """100 MB of zeros in 100 kB."""
    import zipfile

    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0/input/x.npy", bytes(100_000_000))
    return reseal({**files, GOLDEN: raw.getvalue()})


@content("JSON of a bounded depth")
def manifest_deep(files: Files) -> Files:
    """100,000 brackets."""
    return {**files, MANIFEST: b'{"format":' + b"[" * 100_000 + b"]" * 100_000 + b"}"}


@content("JSON of a bounded size")
def manifest_large(files: Files) -> Files:
    """9 MB of blanks."""
    return {**files, MANIFEST: files[MANIFEST] + b" " * 9_000_000}


@content("JSON in UTF-8")
def manifest_latin(files: Files) -> Files:
    """A byte that is no UTF-8."""
    return {**files, MANIFEST: files[MANIFEST].replace(b"attacked", b"attack\xe9d")}


def _manifest_attacks() -> None:
    def listing(path: str) -> Callable[[dict[str, Any]], None]:
        return lambda about: about["files"].update({path: {"sha256": "0" * 64, "size": 1}})

    for name, path in {
        "path-parent": "../secret.bin",
        "path-hidden-parent": "a/../../secret.bin",
        "path-absolute": "/etc/passwd",
        "path-backslash": "a\\..\\b",
        "path-drive": "C:/x",
        "path-dot": "./a",
        "path-empty-part": "a//b",
        "path-empty": "",
        "path-nul": "a/\0",
        "path-not-ascii": "ä",
        "path-home": "~/x",
        "path-long": "/".join(["x" * 60] * 5),
        "path-deep": "/".join("abcdefghi"),
    }.items():
        manifest_attack(name, "relative paths of plain letters", listing(path))
    raw_manifest_attack("duplicate-key", "each key once", '"version": "1.0"', '"version": "1.0", "version": "1.0"')
    for name, value in {
        "nan": "NaN",
        "infinity": "Infinity",
        "minus-infinity": "-Infinity",
        "overflow": "1e999",
    }.items():
        raw_manifest_attack(f"metric-{name}", "numbers that JSON has", '"metrics": {}', f'"metrics": {{"a": {value}}}')
    raw_manifest_attack("huge-integer", "numbers of 64 bits", '"metrics": {}', f'"metrics": {{"a": {10**30}}}')
    raw_manifest_attack("surrogate", "Unicode", '"metrics": {}', '"metrics": {"a": "\\ud800"}')
    raw_manifest_attack("trailing", "one JSON object", '"metrics": {}', '"metrics": {}} {')
    raw_manifest_attack(
        "tolerance-nan", "numbers that JSON has", '"tolerance": {\n        "y": ', '"tolerance": {\n        "y": NaN'
    )
    manifest_attack("list", "an object", lambda about: [about])
    manifest_attack("other-format", "format edgekit-bundle", lambda about: about.update(format="zip"))
    manifest_attack("major-version", "version 1", lambda about: about.update(version="2.0"))
    manifest_attack("unknown-key", "known keys alone", lambda about: about.update(surprise=1))
    manifest_attack("missing-key", "every key", lambda about: about.pop("io") and None)
    manifest_attack("variant-up", "a plain name", lambda about: about["variants"][0].update(name="../up"))
    manifest_attack("no-variant", "at least one variant", lambda about: about.update(variants=[]))
    manifest_attack(
        "negative-tolerance", "numbers from 0 up", lambda about: about["variants"][0]["tolerance"].update(y=-1)
    )
    manifest_attack("lists-itself", "every other file", listing(MANIFEST))
    manifest_attack("case-twin", "paths that differ in more than case", listing("MANIFEST.JSON"))
    manifest_attack("size-negative", "sizes from 0 up", lambda about: about["files"][MODEL].update(size=-1))
    manifest_attack("size-huge", "at most 2 GiB", lambda about: about["files"][MODEL].update(size=2**62))
    manifest_attack("size-float", "integers", lambda about: about["files"][MODEL].update(size=1.5))
    manifest_attack("size-true", "integers", lambda about: about["files"][MODEL].update(size=True))
    manifest_attack(
        "digest-upper", "64 hexadecimal digits", lambda about: about["files"][MODEL].update(sha256="A" * 64)
    )
    manifest_attack(
        "shape-huge", "tensors of a bounded size", lambda about: about["io"]["inputs"][0].update(shape=["n", 2**40])
    )
    manifest_attack("many-samples", "at most 1000 samples", lambda about: about.update(golden_samples=10**6))
    manifest_attack("more-samples", "samples that are there", lambda about: about.update(golden_samples=2))
    manifest_attack(
        "many-files",
        "at most 1000 files",
        lambda about: about["files"].update({f"f{i}": {"sha256": "0" * 64, "size": 1} for i in range(1001)}),
    )


def _damage_attacks() -> None:
    for file in (MANIFEST, GOLDEN, MODEL, "manifest.json"):
        short = file.rpartition("/")[2].replace(".", "-") if file != "manifest.json" else "package"
        for sixteenths in range(16):

            def truncate(files: Files, file: str = file, part: int = sixteenths) -> Files:
                return {**files, file: files[file][: len(files[file]) * part // 16]}

            CONTENTS[f"truncated-{short}-{sixteenths}"] = ("whole files", truncate)
        for eighths in range(8):

            def flip(files: Files, file: str = file, part: int = eighths) -> Files:
                data = bytearray(files[file])
                data[len(data) * part // 8] ^= 1 << part
                return {**files, file: bytes(data)}

            # A bit of the manifest's own free texts may say another thing that is just as well formed.
            if file != MANIFEST:
                CONTENTS[f"flipped-{short}-{eighths}"] = ("files as written", flip)


# --- zips ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=False)
class Part:
    """An entry of a zip; `local` and `central` override fields of its headers by their names in APPNOTE."""

    name: str | bytes
    data: bytes
    local: Mapping[str, Any] = field(default_factory=dict)
    central: Mapping[str, Any] = field(default_factory=dict)
    body: bytes | None = None
    """What stands for the data, where that is not the data."""
    after: bytes = b""

    def header(self, *, start: int | None = None) -> bytes:
        """Its local header; its entry in the directory where `start` is given."""
        name = self.name.encode() if isinstance(self.name, str) else self.name
        fields: dict[str, Any] = {
            "made": 3 << 8 | 20,
            "version": 20,
            "flags": 0,
            "method": 0,
            "time": 0,
            "date": 0x21,
            "crc": zlib.crc32(self.data),
            "packed": len(self.data),
            "size": len(self.data),
            "name": name,
            "extra": b"",
            "comment": b"",
            "disk": 0,
            "attributes": 0o100644 << 16,
            "start": start,
            **(self.local if start is None else self.central),
        }
        both = (fields[key] for key in ("version", "flags", "method", "time", "date", "crc", "packed", "size"))
        name, extra, comment = fields["name"], fields["extra"], fields["comment"]
        if start is None:
            return struct.pack("<4s5H3L2H", b"PK\x03\x04", *both, len(name), len(extra)) + name + extra
        lengths = (len(name), len(extra), len(comment), fields["disk"], 0)
        place = (fields["attributes"], fields["start"])
        return (
            struct.pack("<4sH5H3L5H2L", b"PK\x01\x02", fields["made"], *both, *lengths, *place) + name + extra + comment
        )


def stored(parts: list[Part], *, before: bytes = b"", gap: bytes = b"", after: bytes = b"", **end: int) -> bytes:
    """A zip of these parts, `end` overriding what its last record says."""
    blob, starts = bytearray(before), []
    for part in parts:
        starts.append(len(blob))
        blob += part.header() + (part.data if part.body is None else part.body) + part.after
    blob += gap
    directory = b"".join(part.header(start=start) for part, start in zip(parts, starts, strict=True))
    said = {
        "disk": 0,
        "first": 0,
        "here": len(parts),
        "count": len(parts),
        "length": len(directory),
        "start": len(blob),
    }
    said |= end
    last = struct.pack(
        "<4s4H2LH",
        b"PK\x05\x06",
        *(said[key] for key in ("disk", "first", "here", "count", "length", "start")),
        said.get("comment", 0),
    )
    return bytes(blob + directory + last + after)


def parts_of(files: Files) -> list[Part]:
    """The files as entries, sorted."""
    return [Part(name, data) for name, data in sorted(files.items())]


def _changed(files: Files, name: str = MODEL, **changes: Any) -> list[Part]:
    return [dataclasses.replace(part, **changes) if part.name == name else part for part in parts_of(files)]


def _both(**fields: Any) -> dict[str, Any]:
    return {"local": fields, "central": fields}


def _deflated(files: Files) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(files[MODEL]) + packer.flush()
    return stored(_changed(files, body=packed, **_both(method=8, packed=len(packed))))


def _bomb(files: Files) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = bytes(50_000_000)
    packed = packer.compress(data) + packer.flush()
    return stored(_changed(files, data=data, body=packed, **_both(method=8, packed=len(packed))))


def _overlapping(files: Files) -> bytes:
    """Two entries over the same bytes: the second begins inside of the first one's data."""
    inner = Part(MODEL, files[MODEL])
    wrapped = inner.header() + inner.data
    outer = [Part(GOLDEN, wrapped), *[part for part in parts_of(files) if part.name not in {MODEL, GOLDEN}]]
    plain = stored(outer)
    # The outer entry is the first one, so its data begin after its header.
    start = len(outer[0].header())
    end = plain.rindex(b"PK\x05\x06")
    length, begin = struct.unpack_from("<LL", plain, end + 12)
    directory = plain[begin : begin + length] + inner.header(start=start)
    count = len(outer) + 1
    return (
        plain[:begin] + directory + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), begin, 0)
    )


def _shifted(files: Files) -> bytes:
    """A directory whose places are all of a file that begins later: what self-extracting zips have."""
    return b"MZ" + bytes(62) + stored(parts_of(files))


def _first(data: bytes, sixteenths: int) -> bytes:
    return data[: len(data) * sixteenths // 16]


LINK = stat.S_IFLNK | 0o777
ZIPS: dict[str, tuple[str, Callable[[Files], bytes]]] = {
    "compressed": ("entries stored as they are", _deflated),
    "bomb": ("entries stored as they are", _bomb),
    "method-only-central": ("both headers agree", lambda f: stored(_changed(f, central={"method": 8}))),
    "method-only-local": ("both headers agree", lambda f: stored(_changed(f, local={"method": 8}))),
    "encrypted": ("no encryption", lambda f: stored(_changed(f, **_both(flags=1)))),
    "strong-encryption": ("no encryption", lambda f: stored(_changed(f, **_both(flags=0x41)))),
    "data-descriptor": (
        "no data descriptors",
        lambda f: stored(
            _changed(
                f,
                local={"flags": 8, "crc": 0, "packed": 0, "size": 0},
                central={"flags": 8},
                after=struct.pack("<4s3L", b"PK\x07\x08", zlib.crc32(f[MODEL]), len(f[MODEL]), len(f[MODEL])),
            )
        ),
    ),
    "zip64-sizes": (
        "no zip64",
        lambda f: stored(
            _changed(
                f,
                **_both(
                    packed=0xFFFFFFFF,
                    size=0xFFFFFFFF,
                    version=45,
                    extra=struct.pack("<2H2Q", 1, 16, len(f[MODEL]), len(f[MODEL])),
                ),
            )
        ),
    ),
    "zip64-end": (
        "no zip64",
        lambda f: stored(parts_of(f), here=0xFFFF, count=0xFFFF, length=0xFFFFFFFF, start=0xFFFFFFFF),
    ),
    "version-needed": ("at most version 2.0", lambda f: stored(_changed(f, **_both(version=63)))),
    "extra-field": ("no extra fields", lambda f: stored(_changed(f, **_both(extra=b"UT\x01\x00\x00")))),
    "unicode-path": (
        "no extra fields",
        lambda f: stored(_changed(f, **_both(extra=struct.pack("<2HBL", 0x7075, 8, 1, 0) + b"evl"))),
    ),
    "entry-comment": ("no comments", lambda f: stored(_changed(f, central={"comment": b"x"}))),
    "comment": ("no comments", lambda f: stored(parts_of(f), comment=4, after=b"text")),
    "comment-hides-end": (
        "no comments",
        lambda f: stored(parts_of(f), comment=22, after=stored([Part("x", b"")])[-22:]),
    ),
    "doubled": ("each name once", lambda f: stored([*parts_of(f), Part(MODEL, network().SerializeToString())])),
    "doubled-manifest": ("each name once", lambda f: stored([Part(MANIFEST, b"{}"), *parts_of(f)])),
    "slip": ("names stay inside", lambda f: stored([*parts_of(f), Part("../../evil.txt", b"x")])),
    "slip-absolute": ("names stay inside", lambda f: stored([*parts_of(f), Part("/tmp/evil.txt", b"x")])),  # noqa: S108 - a name only
    "slip-backslash": ("names stay inside", lambda f: stored([*parts_of(f), Part("..\\evil.txt", b"x")])),
    "slip-drive": ("names stay inside", lambda f: stored([*parts_of(f), Part("C:evil.txt", b"x")])),
    "name-nul": ("plain names", lambda f: stored([*parts_of(f), Part(MODEL + "\0.txt", b"x")])),
    "name-not-ascii": ("plain names", lambda f: stored([*parts_of(f), Part("é", b"x")])),
    "name-not-text": ("plain names", lambda f: stored([*parts_of(f), Part(b"\xff\xfe", b"x")])),
    "name-empty": ("plain names", lambda f: stored([*parts_of(f), Part("", b"")])),
    "folder-entry": (
        "files alone",
        lambda f: stored([*parts_of(f), Part("models/", b"", central={"attributes": 0o040755 << 16 | 0x10})]),
    ),
    "symlink": ("regular files alone", lambda f: stored(_changed(f, central={"attributes": LINK << 16}))),
    "symlink-extra": (
        "regular files alone",
        lambda f: stored([*parts_of(f), Part("link", b"/etc/passwd", central={"attributes": LINK << 16})]),
    ),
    "device-mode": (
        "regular files alone",
        lambda f: stored(_changed(f, central={"attributes": (stat.S_IFCHR | 0o666) << 16})),
    ),
    "dos-folder": ("regular files alone", lambda f: stored(_changed(f, central={"attributes": 0x10}))),
    "local-name": (
        "both headers agree",
        lambda f: stored(_changed(f, local={"name": MODEL.replace("cpu", "gpu").encode()})),
    ),
    "local-size": ("both headers agree", lambda f: stored(_changed(f, local={"size": 1, "packed": 1}))),
    "local-crc": ("both headers agree", lambda f: stored(_changed(f, local={"crc": 1}))),
    "local-flags": ("both headers agree", lambda f: stored(_changed(f, local={"flags": 1 << 11}))),
    "local-time": ("both headers agree", lambda f: stored(_changed(f, local={"time": 1}))),
    "local-extra": ("no extra fields", lambda f: stored(_changed(f, local={"extra": b"UT\x01\x00\x00"}))),
    "crc-wrong": ("the CRC-32 of the data", lambda f: stored(_changed(f, MANIFEST, **_both(crc=1)))),
    "size-larger": (
        "sizes that fit",
        lambda f: stored(_changed(f, **_both(size=len(f[MODEL]) + 9, packed=len(f[MODEL]) + 9))),
    ),
    "size-disagrees": ("packed and unpacked alike", lambda f: stored(_changed(f, **_both(size=len(f[MODEL]) - 1)))),
    "size-huge": ("sizes that fit", lambda f: stored(_changed(f, **_both(size=0x7FFFFFFF, packed=0x7FFFFFFF)))),
    "overlapping": ("entries apart from each other", _overlapping),
    "start-elsewhere": ("places that are right", lambda f: stored(_changed(f, central={"start": 0}))),
    "start-beyond": ("places that are right", lambda f: stored(_changed(f, central={"start": 0x7FFFFFFF}))),
    "disk": ("one disk", lambda f: stored(_changed(f, central={"disk": 1}))),
    "end-disk": ("one disk", lambda f: stored(parts_of(f), disk=1)),
    "bytes-before": ("nothing before the first entry", _shifted),
    "bytes-before-counted": ("nothing before the first entry", lambda f: stored(parts_of(f), before=b"MZ" + bytes(62))),
    "bytes-between": ("nothing between entries", lambda f: stored(_changed(f, after=b"hidden"))),
    "bytes-before-directory": ("nothing between entries and directory", lambda f: stored(parts_of(f), gap=b"hidden")),
    "bytes-after": ("nothing after the end", lambda f: stored(parts_of(f), after=b"hidden")),
    "count-more": ("as many entries as it says", lambda f: stored(parts_of(f), here=len(f) + 1, count=len(f) + 1)),
    "count-less": ("as many entries as it says", lambda f: stored(parts_of(f), here=len(f) - 1, count=len(f) - 1)),
    "count-differs": ("as many entries as it says", lambda f: stored(parts_of(f), here=len(f) - 1)),
    "count-none": ("at least one entry", lambda _: stored([])),
    "entries-without-end": (
        "at most 1001 entries",
        lambda f: stored([*parts_of(f), *(Part(f"f{i}", b"") for i in range(1001))]),
    ),
    "directory-elsewhere": ("a directory where it says", lambda f: stored(parts_of(f), start=0)),
    "directory-length": ("a directory as long as it says", lambda f: stored(parts_of(f), length=0)),
    "empty-file": ("a zip", lambda _: b""),
    "end-alone": ("a whole zip", lambda _: struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 0, 0, 0)),
    "no-zip": ("a zip", lambda _: bytes(1000)),
    **{
        f"truncated-{part}": (
            "a whole zip",
            lambda f, part=part: _first(stored(parts_of(f)), part),
        )
        for part in range(16)
    },
}


# --- folders ---------------------------------------------------------------------------------------------------------


def _replaced(folder: Path, name: str, make: Callable[[Path, Path], object]) -> None:
    """Put what `make(old, place)` makes where a file was; the file itself lies outside of the bundle."""
    outside = folder.parent / "outside.bin"
    shutil.move(folder / name, outside)
    make(outside, folder / name)


def _symlink_in_symlink(folder: Path) -> None:
    shutil.move(folder / "models", folder.parent / "elsewhere")
    (folder / "models").symlink_to("../elsewhere")


FOLDERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    **{
        f"symlink-{name.rpartition('/')[2].replace('.', '-')}": (
            "no symlinks",
            lambda folder, name=name: _replaced(folder, name, lambda old, place: place.symlink_to(old)),
        )
        for name in (MODEL, MANIFEST, GOLDEN)
    },
    **{
        f"hardlink-{name.rpartition('/')[2].replace('.', '-')}": (
            "no hard links",
            lambda folder, name=name: _replaced(folder, name, os.link),
        )
        for name in (MODEL, MANIFEST, GOLDEN)
    },
    "symlink-dangling": (
        "no symlinks",
        lambda folder: _replaced(folder, MODEL, lambda _, place: place.symlink_to("nowhere")),
    ),
    "symlink-folder": ("no symlinks", _symlink_in_symlink),
    "symlink-inside": (
        "no symlinks",
        lambda folder: _replaced(folder, GOLDEN, lambda _, place: place.symlink_to("bundle.json")),
    ),
    "pipe": ("regular files alone", lambda folder: _replaced(folder, MODEL, lambda _, place: os.mkfifo(place))),
    "folder-for-a-file": (
        "regular files alone",
        lambda folder: _replaced(folder, MODEL, lambda _, place: place.mkdir()),
    ),
    "empty-folder": ("listed files alone", lambda folder: (folder / "empty").mkdir()),
    "hidden-file": ("listed files alone", lambda folder: (folder / "edgekit/.hidden").touch()),
    "deep-folders": ("a bounded depth", lambda folder: (folder / "/".join("abcdefghij")).mkdir(parents=True)),
}


# --- writing ---------------------------------------------------------------------------------------------------------


def write_folder(files: Files, folder: Path) -> Path:
    """The files as a folder."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_zip(data: bytes, path: Path) -> Path:
    """The bytes as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def write(out: Path) -> Iterator[Case]:
    """Write every attack below `out`, one at a time, and the two forms of the bundle that is all right."""
    files = whole()
    (out / "secret.bin").write_bytes(SECRET)

    def case(name: str, form: str, rule: str, make: Callable[[Path], Path], expected: str = "refused") -> Case:
        place = out / f"{form}-{name}" / ("bundle.edgekit" if form == "folder" else "bundle.edgekit.zip")
        return Case(name=name, path=make(place), form=form, expected=expected, rule=rule)

    yield case("whole", "folder", "all right", lambda place: write_folder(files, place), "accepted")
    yield case("whole", "zip", "all right", lambda place: write_zip(stored(parts_of(files)), place), "accepted")
    for name, (rule, change) in CONTENTS.items():
        changed = change(dict(files))
        yield case(name, "folder", rule, lambda place, changed=changed: write_folder(changed, place))
        yield case(name, "zip", rule, lambda place, changed=changed: write_zip(stored(parts_of(changed)), place))
    for name, (rule, made) in ZIPS.items():
        yield case(name, "zip", rule, lambda place, made=made: write_zip(made(dict(files)), place))
    for name, (rule, spoil) in FOLDERS.items():

        def spoiled(place: Path, spoil: Callable[[Path], object] = spoil) -> Path:
            spoil(write_folder(files, place))
            return place

        yield case(name, "folder", rule, spoiled)


def _message(number: int, body: bytes) -> bytes:
    """A protocol buffers field that holds bytes."""
    return _varint(number << 3 | 2) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


_external_attacks()
_manifest_attacks()
_damage_attacks()


def main(arguments: list[str] | None = None) -> int:
    """Write all attacks and the index."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="a folder that is empty or not there yet")
    out = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        parser.error(f"{out} is not empty")
    rows = [case.to_dict(out) for case in write(out)]
    (out / "index.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(f"wrote {len(rows)} bundles to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
