"""`edgekit/bundle.json`: what a bundle says about itself. Format `edgekit-bundle`, version 1.0.

Around it lies an ONNX Runtime model package, whose two small files follow from this one:

    manifest.json                    names the component
    models/model/component.json      names the variants
    models/model/VARIANT/model.onnx  one file for each provider and processor
    edgekit/bundle.json              this
    edgekit/golden.npz               inputs and outputs that every device must reproduce
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, NoReturn, Self

from edgekit.device.processing import (
    ClassificationPostprocessing,
    DetectionPostprocessing,
    Postprocessing,
    Preprocessing,
    WordpiecePreprocessing,
    postprocessing_from,
    preprocessing_from,
    vocabulary_file,
)
from edgekit.device.session import PROVIDERS
from edgekit.errors import BundleError, EdgekitError
from edgekit.spec import IOSpec

FORMAT, VERSION = "edgekit-bundle", "1.0"
BUNDLE_FILE = "edgekit/bundle.json"
GOLDEN_FILE = "edgekit/golden.npz"
PACKAGE_FILE = "manifest.json"
COMPONENT_FILE = "models/model/component.json"
MODELS = "models/model"

TARGETS = ("any", "x86-vnni", "x86-avx2", "arm64", "cuda", "tensorrt")
"""What a variant is made for; `any` (fp32) runs alike everywhere."""

DTYPES = frozenset(
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()  # noqa: SIM905 - reads best
)
MAX_FILES = 1000
MAX_ELEMENTS = 2**28
"""Of an input or output."""
MAX_FILE_BYTES = 2**31 - 1
"""Protocol buffers end there, and so does an ONNX file that holds its own weights."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEYS = {
    "format": str,
    "version": str,
    "name": str,
    "created": str,
    "io": dict,
    "labels": list,
    "postprocessing": (dict, type(None)),
    "preprocessing": (dict, type(None)),
    "metrics": dict,
    "provenance": dict,
    "variants": list,
    "golden_samples": int,
    "files": dict,
}
_TYPE_NAMES = {str: "a text", dict: "an object", list: "a list", int: "an integer", type(None): "null"}


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantInfo:
    """One file of the model and what it is for.

    `tolerance` is how far each output may lie from the golden one: `measured` when the bundle was written, with a
    margin; or `assumed` from the precision, where the machine that wrote it could not run this variant.
    """

    name: str
    provider: str
    precision: str
    target: str
    tolerance: Mapping[str, float]
    tolerance_from: Literal["measured", "assumed"] = "measured"

    @property
    def file(self) -> str:
        """Its path in the bundle."""
        return f"{MODELS}/{self.name}/model.onnx"

    def __str__(self) -> str:
        return f"{self.name} ({self.precision}, {self.provider}, for {self.target})"

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {**asdict(self), "tolerance": dict(self.tolerance), "file": self.file}

    @classmethod
    def from_dict(cls, data: object, where: str) -> Self:
        """Read what `to_dict` wrote; the error names the path to the fault."""
        texts = ("name", "provider", "precision", "target", "tolerance_from", "file")
        row = _typed(data, {**dict.fromkeys(texts, str), "tolerance": dict}, where, strict=True)
        for key, rule in (("name", _NAME), ("precision", _NAME)):
            if not rule.fullmatch(row[key]):
                _refuse(f"got {row[key]!r}", f"{where}.{key}", "letters, digits, '.', '_' and '-', 64 at most")
        choices_of = {"provider": tuple(PROVIDERS), "target": TARGETS, "tolerance_from": ("measured", "assumed")}
        for key, choices in choices_of.items():
            if row[key] not in choices:
                _refuse(f"got {row[key]!r}", f"{where}.{key}", f"one of {', '.join(choices)}")
        for output, value in row["tolerance"].items():
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                _refuse(f"got {value!r}", f"{where}.tolerance[{output!r}]", "a number from 0 up")
        file = row.pop("file")
        variant = cls(**row)
        if file != variant.file:
            _refuse(f"got {file!r}", f"{where}.file", variant.file)
        return variant


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """What a file must be."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A bundle's own description; `to_dict` is what `edgekit/bundle.json` holds."""

    name: str
    created: str
    spec: IOSpec
    labels: tuple[str, ...]
    postprocessing: Postprocessing | None
    preprocessing: Preprocessing | None
    metrics: Mapping[str, Any]
    provenance: Mapping[str, Any]
    variants: tuple[VariantInfo, ...]
    golden_samples: int
    files: Mapping[str, FileEntry]
    version: str = VERSION

    def package(self) -> dict[str, Any]:
        """What ONNX Runtime's `manifest.json` must hold for this bundle."""
        about = {"format": FORMAT, "version": self.version, "file": BUNDLE_FILE, "name": self.name}
        return {
            "schema_version": "1.0",
            "components": {"model": MODELS},
            "additional_metadata": {"edgekit": about},
        }

    def component(self) -> dict[str, Any]:
        """What ONNX Runtime's `component.json` must hold for this bundle."""
        return {
            "component_name": "model",
            "variants": {
                variant.name: {
                    "ep": PROVIDERS[variant.provider],
                    "executor_info": {"ort": {"model_file": "model.onnx"}},
                }
                for variant in self.variants
            },
        }

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` takes it back."""
        return {
            "format": FORMAT,
            "version": self.version,
            "name": self.name,
            "created": self.created,
            "io": self.spec.to_dict(),
            "labels": list(self.labels),
            "postprocessing": None if self.postprocessing is None else self.postprocessing.to_dict(),
            "preprocessing": None if self.preprocessing is None else self.preprocessing.to_dict(),
            "metrics": dict(self.metrics),
            "provenance": dict(self.provenance),
            "variants": [variant.to_dict() for variant in self.variants],
            "golden_samples": self.golden_samples,
            "files": {path: asdict(entry) for path, entry in sorted(self.files.items())},
        }

    @classmethod
    def from_dict(cls, data: object, where: str = BUNDLE_FILE) -> Self:
        """Read what `to_dict` wrote.

        A bundle of a newer minor version is read with a warning, and what it adds is ignored.

        Raises:
            BundleError: another format or major version, or a value that is not what it must be; the text says where.
        """
        newer = _check_version(data, where)
        row = _typed(data, _KEYS, where, strict=not newer)
        if not 1 <= len(row["name"]) <= 200:
            _refuse(f"a name of {len(row['name'])} characters", f"{where}.name", "1 to 200 characters")
        if not _is_time(row["created"]):
            _refuse(f"got {row['created']!r}", f"{where}.created", "a time such as 2026-01-31T12:00:00+00:00")
        if not all(isinstance(label, str) for label in row["labels"]):
            _refuse("a label is no text", f"{where}.labels", "a list of texts")
        if isinstance(row["golden_samples"], bool) or not 0 <= row["golden_samples"] <= 1000:
            _refuse(f"got {row['golden_samples']}", f"{where}.golden_samples", "0 to 1000")
        files = {path: _entry(path, entry, f"{where}.files[{path!r}]") for path, entry in row["files"].items()}
        _check_files(files, where)
        variants = tuple(
            VariantInfo.from_dict(variant, f"{where}.variants[{i}]") for i, variant in enumerate(row["variants"])
        )
        spec = _read_spec(row["io"], where)
        before, after = row["preprocessing"], row["postprocessing"]
        with _faults():
            preprocessing = None if before is None else preprocessing_from(before, f"{where}.preprocessing")
            postprocessing = None if after is None else postprocessing_from(after, f"{where}.postprocessing")
            vocabulary = vocabulary_file(preprocessing, postprocessing)
        _check_preprocessing(preprocessing, spec, where)
        _check_postprocessing(postprocessing, spec, row["labels"], where)
        if vocabulary is not None and vocabulary not in files:
            _refuse(f"{vocabulary} is not listed", f"{where}.files", "every file of the bundle, the vocabulary too")
        _check_variants(variants, files, spec, golden=row["golden_samples"] > 0, where=where)
        return cls(
            name=row["name"],
            created=row["created"],
            spec=spec,
            labels=tuple(row["labels"]),
            postprocessing=postprocessing,
            preprocessing=preprocessing,
            metrics=row["metrics"],
            provenance=row["provenance"],
            variants=variants,
            golden_samples=row["golden_samples"],
            files=files,
            version=row["version"],
        )


def check_path(path: str, where: str) -> None:
    """Refuse a path that could leave the bundle, or that some file system reads differently.

    Raises:
        BundleError: the path is absolute, has `..`, `.`, empty parts, backslashes, drive letters or other characters
            than ASCII letters, digits, `.`, `_` and `-`.
    """
    parts = path.split("/")
    if len(path) > 240 or len(parts) > 8 or not all(_PART.fullmatch(part) for part in parts):
        _refuse(
            f"path {path!r}",
            where,
            "a relative path; its parts are letters, digits, '.', '_' and '-', and none begins with '.'",
        )


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _check_version(data: object, where: str) -> bool:
    """Whether the bundle is of a newer minor version."""
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, Mapping) else type(data).__name__
        _refuse(f"got {found!r}", f"{where}.format", f"{FORMAT!r}")
    version = data.get("version")
    match = re.fullmatch(r"(\d{1,4})\.(\d{1,4})", version) if isinstance(version, str) else None
    if match is None:
        _refuse(f"got {version!r}", f"{where}.version", "major.minor")
    major, minor = VERSION.split(".")
    if match[1] != major:
        raise BundleError(
            f"version {version}",
            where=f"{where}.version",
            rule=f"this edgekit reads {major}.x",
            way_out="install the edgekit that wrote the bundle, or write it again with this one",
        )
    newer = int(match[2]) > int(minor)
    if newer:
        warnings.warn(
            f"{where}: version {version} is newer than {VERSION}; what it adds is ignored", UserWarning, stacklevel=3
        )
    return newer


def _entry(path: str, data: object, where: str) -> FileEntry:
    check_path(path, where)
    row = _typed(data, {"sha256": str, "size": int}, where, strict=True)
    if not _SHA256.fullmatch(row["sha256"]):
        _refuse(f"got {row['sha256']!r}", f"{where}.sha256", "64 hexadecimal digits in lower case")
    if isinstance(row["size"], bool) or not 0 <= row["size"] <= MAX_FILE_BYTES:
        _refuse(f"got {row['size']!r}", f"{where}.size", f"0 to {MAX_FILE_BYTES} bytes")
    return FileEntry(**row)


def _check_files(files: Mapping[str, FileEntry], where: str) -> None:
    if len(files) > MAX_FILES:
        _refuse(f"{len(files)} files", f"{where}.files", f"at most {MAX_FILES}")
    if BUNDLE_FILE in files:
        _refuse(f"{BUNDLE_FILE} lists itself", f"{where}.files", "every other file")
    folded = {path.lower() for path in files}
    if len(folded) != len(files):
        _refuse("two paths differ only in case", f"{where}.files", "paths that every file system tells apart")


def _check_variants(
    variants: tuple[VariantInfo, ...], files: Mapping[str, FileEntry], spec: IOSpec, *, golden: bool, where: str
) -> None:
    if not variants:
        _refuse("no variant", f"{where}.variants", "at least one")
    if len({variant.name.lower() for variant in variants}) != len(variants):
        _refuse("two variants of one name", f"{where}.variants", "names that differ in more than case")
    needed = {PACKAGE_FILE, COMPONENT_FILE, *(variant.file for variant in variants), *([GOLDEN_FILE] if golden else [])}
    for path in sorted(needed - set(files)):
        _refuse(f"{path} is not listed", f"{where}.files", "every file of the bundle")
    outputs = {output.name for output in spec.outputs}
    for index, variant in enumerate(variants):
        if set(variant.tolerance) != (outputs if golden else set()):
            _refuse(
                f"got {sorted(variant.tolerance)}",
                f"{where}.variants[{index}].tolerance",
                "one number for each output" if golden else "empty without golden vectors",
            )


def _read_spec(data: Mapping[str, Any], where: str) -> IOSpec:
    for side in ("inputs", "outputs"):
        rows = data.get(side)
        for index, row in enumerate(rows if isinstance(rows, list) else []):
            dtype = row.get("dtype") if isinstance(row, dict) else None
            if not isinstance(dtype, str) or dtype not in DTYPES:
                _refuse(f"got {dtype!r}", f"{where}.io.{side}[{index}].dtype", f"one of {', '.join(sorted(DTYPES))}")
    with _faults():
        spec = IOSpec.from_dict(data, f"{where}.io")
    for side, tensors in (("inputs", spec.inputs), ("outputs", spec.outputs)):
        for tensor in tensors:
            if math.prod(size for size in tensor.shape if isinstance(size, int)) > MAX_ELEMENTS:
                _refuse(f"{tensor}", f"{where}.io.{side}", f"at most {MAX_ELEMENTS} elements, open sizes aside")
        names = [tensor.name for tensor in tensors]
        if not names or len(set(names)) != len(names):
            _refuse(f"got {names}", f"{where}.io.{side}", "at least one tensor, each with its own name")
    return spec


def _check_preprocessing(preprocessing: Preprocessing | None, spec: IOSpec, where: str) -> None:
    inputs = [tensor.name for tensor in spec.inputs]
    if isinstance(preprocessing, WordpiecePreprocessing):
        if set(preprocessing.inputs.names) != set(inputs):
            found = list(preprocessing.inputs.names)
            _refuse(f"got {found}", f"{where}.preprocessing.inputs", f"the names of all inputs, {inputs}")
    elif preprocessing is not None and len(inputs) != 1:
        _refuse(f"{len(inputs)} inputs", f"{where}.preprocessing", f"one input for the kind {preprocessing.kind}")


def _check_postprocessing(
    postprocessing: Postprocessing | None, spec: IOSpec, labels: Sequence[str], where: str
) -> None:
    if postprocessing is None:
        return
    outputs = [tensor.name for tensor in spec.outputs]
    keys = ("boxes", "scores") if isinstance(postprocessing, DetectionPostprocessing) else ("output",)
    for key in keys:
        if getattr(postprocessing, key) not in outputs:
            name = getattr(postprocessing, key)
            _refuse(f"got {name!r}", f"{where}.postprocessing.{key}", f"the name of an output, of {outputs}")
    if isinstance(postprocessing, ClassificationPostprocessing) and not labels:
        _refuse("no labels", f"{where}.labels", "a label for each class, for the postprocessing classification")


@contextmanager
def _faults() -> Iterator[None]:
    """What the nouns of other rooms refuse is a bundle's fault here."""
    try:
        yield
    except BundleError:
        raise
    except EdgekitError as error:
        raise BundleError(error.problem, where=error.where, rule=error.rule, way_out=error.way_out) from error


def _typed(data: object, keys: Mapping[str, Any], where: str, *, strict: bool) -> dict[str, Any]:
    """`data` as a dict that has `keys` of these types, and in strict reading no others."""
    if not isinstance(data, dict):
        _refuse(f"got {type(data).__name__}", where, "an object")
    for key, kinds in keys.items():
        if key not in data:
            _refuse("missing", f"{where}.{key}", f"one of the keys {', '.join(keys)}")
        if not isinstance(data[key], kinds):
            wanted = " or ".join(_TYPE_NAMES[kind] for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
            _refuse(f"got {type(data[key]).__name__}", f"{where}.{key}", f"expected {wanted}")
    unknown = sorted(set(data) - set(keys))
    if strict and unknown:
        _refuse(f"unknown key {unknown[0]!r}", where, f"only {', '.join(keys)}")
    return {key: data[key] for key in keys}


def _refuse(problem: str, where: str, rule: str) -> NoReturn:
    raise BundleError(problem, where=where, rule=rule)
