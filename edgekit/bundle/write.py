"""Writing a bundle: whole or not at all, and read back before it gets its name."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgekit.bundle.archive import write_archive
from edgekit.bundle.checking import check_onnx
from edgekit.bundle.golden import assumed_tolerances, check_golden, tolerances
from edgekit.device.environment import versions
from edgekit.device.golden import Golden, write_golden
from edgekit.device.manifest import (
    BUNDLE_FILE,
    COMPONENT_FILE,
    GOLDEN_FILE,
    PACKAGE_FILE,
    FileEntry,
    Manifest,
    VariantInfo,
    check_path,
)
from edgekit.device.model import read_vocabulary
from edgekit.device.onnx_scan import scan
from edgekit.device.opening.archive import SUFFIX
from edgekit.device.processing import (
    ClassificationPostprocessing,
    Postprocessing,
    Preprocessing,
    Vocabulary,
    vocabulary_file,
)
from edgekit.device.processing.classification import Scores
from edgekit.device.session import PROVIDERS, open_session, runtime
from edgekit.device.variants import exact_config
from edgekit.device.verify import open_bundle
from edgekit.errors import BundleError, ProviderError, did_you_mean
from edgekit.spec import IOSpec
from edgekit.store import writing

Side = Literal["preprocessing", "postprocessing"]
"""What can go into the graph."""

Wrap = Callable[[bytes, str], bytes]
"""Makes an ONNX file into the one that goes into the bundle; the text names it in errors."""

README_FILE = "README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """An ONNX file to put into a bundle.

    Attributes:
        path: the file, with its weights inside.
        provider: `cpu`, `cuda` or `tensorrt`.
        precision: `fp32`, `fp16`, `int8`, ...
        target: the processor it was made for: `x86-vnni`, `x86-avx2`, `arm64`, `cuda`, `tensorrt`; `any` for fp32.
    """

    path: Path
    provider: str = "cpu"
    precision: str = "fp32"
    target: str = "any"


def postprocessing_for(task: str, spec: IOSpec, labels: Sequence[str]) -> Postprocessing | None:
    """What becomes of the outputs of a model for `task`, where they alone would not tell; else None.

    >>> spec = IOSpec.from_dict({"inputs": [], "outputs": [{"name": "y", "dtype": "float32", "shape": ["n", 2]}]})
    >>> postprocessing_for("multilabel", spec, ("cat", "dog")).scores
    'sigmoid'
    """
    if task != "multilabel" or not labels:
        return None
    return ClassificationPostprocessing(output=spec.outputs[0].name, scores="sigmoid", top=_shown(labels))


def write_bundle(
    folder: Path,
    *,
    name: str,
    variants: Mapping[str, Variant],
    spec: IOSpec,
    preprocessing: Preprocessing | None = None,
    labels: Sequence[str] = (),
    postprocessing: Postprocessing | None = None,
    metrics: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    golden: Sequence[Golden] = (),
    bake: Sequence[Side] = (),
    files: Mapping[str, Path | bytes] | None = None,
    readme: Callable[[Mapping[str, Any]], str] | None = None,
    created: datetime | None = None,
) -> Path:
    """Write a bundle: an ONNX Runtime model package and `edgekit/bundle.json` with the SHA-256 of every file.

    Every variant that can run here is run on the golden inputs; how far it lies from the golden outputs becomes its
    tolerance. The folder is built under another name, read back as a device would, and renamed. A bundle that is there
    under the name is replaced. Equal arguments (`created` among them) give equal bytes.

    Args:
        folder: the bundle's folder; where the name ends in .zip, the bundle is that one file (see `pack`).
        name: the model's name.
        variants: ONNX files by name, the preferred one first: a device takes the first that was made for it.
        spec: the inputs and outputs that all variants share.
        preprocessing: how raw input becomes the inputs; None for models that take tensors.
        labels: names of the classes.
        postprocessing: what becomes of the outputs. None takes a first output [samples, labels] for a classification:
            of probabilities where the golden outputs are some, else of logits (`softmax`). Models of several labels at
            once want `postprocessing_for`.
        metrics: what was measured, JSON-ready.
        provenance: where the model comes from, JSON-ready; installed versions are added.
        golden: samples that every device must reproduce; `record_golden` makes them.
        bake: `preprocessing`, `postprocessing` or both: what goes into the graphs of all variants; see
            `edgekit.bundle.baking`.
        files: further files by their path in the bundle, such as `edgekit/report.json`, `LICENSE`, or the vocabulary
            that the processing names.
        readme: makes the text of `README.md` from what `edgekit/bundle.json` will say, its `files` excepted.
        created: the time that is recorded; now by default.

    Returns:
        `folder`.

    Raises:
        BundleError: an argument does not fit the others; the text says which.
        StoreError: the folder cannot be written, or the disk is full.
    """
    folder = Path(folder)
    _check_place(folder)
    after = postprocessing or _recognized(labels, golden, spec)
    _check_labels(labels, spec, after)
    check_golden(golden, spec, preprocessing, _vocabulary(files or {}, preprocessing, after))
    wrap: Wrap = _as_it_is
    baked_about: Mapping[str, Any] = {}
    if bake:
        from edgekit.bundle.baking import bake as plan  # Needs onnx, which a bundle as it is does not.

        baked = plan(bake, spec=spec, preprocessing=preprocessing, postprocessing=after, golden=golden)
        wrap, baked_about, golden = baked.wrap, baked.provenance, baked.golden
        spec, preprocessing, after = baked.spec, baked.preprocessing, baked.postprocessing
    contents, infos = _contents(variants, spec, golden, wrap)
    for path, source in (files or {}).items():
        check_path(path, "files")
        ours = {PACKAGE_FILE, COMPONENT_FILE, GOLDEN_FILE, BUNDLE_FILE, *([] if readme is None else [README_FILE])}
        if path in {*ours, *contents}:
            raise BundleError(f"{path} is taken", where="files", rule="a path that the bundle itself does not use")
        contents[path] = _bytes(source)
    if golden:
        contents[GOLDEN_FILE] = write_golden(golden)
    manifest = Manifest(
        name=name,
        created=(created or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds"),
        spec=spec,
        labels=tuple(labels),
        postprocessing=after,
        preprocessing=preprocessing,
        metrics=dict(metrics or {}),
        provenance={"versions": versions(), **(provenance or {}), **baked_about},
        variants=infos,
        golden_samples=len(golden),
        files={},
    )
    if readme is not None:
        contents[README_FILE] = readme(manifest.to_dict()).encode()
    contents[PACKAGE_FILE] = _json(manifest.package())
    contents[COMPONENT_FILE] = _json(manifest.component())
    entries = {
        path: FileEntry(sha256=hashlib.sha256(data).hexdigest(), size=len(data)) for path, data in contents.items()
    }
    # Reading it back here, before anything is written, names the argument at fault and not a file.
    about = Manifest.from_dict(json.loads(_json({**manifest.to_dict(), "files": _plain(entries)})), "bundle")
    contents[BUNDLE_FILE] = _json(about.to_dict())
    _write(folder, contents)
    return folder


def _as_it_is(data: bytes, _: str) -> bytes:
    return data


def _contents(
    variants: Mapping[str, Variant], spec: IOSpec, golden: Sequence[Golden], wrap: Wrap
) -> tuple[dict[str, bytes], tuple[VariantInfo, ...]]:
    """Each variant's bytes by path, and what the bundle says about it."""
    contents: dict[str, bytes] = {}
    infos: list[VariantInfo] = []
    for name, variant in variants.items():
        where = f"variants[{name!r}]"
        data = wrap(_read(variant.path), where)
        scan(data, f"{where}, {variant.path}")
        check_onnx(data, f"{where}, {variant.path}")
        sessions = _sessions(data, variant, where)
        for session in sessions[:1]:
            _check_io(session, spec, where)
        info = VariantInfo(
            name=name,
            provider=variant.provider,
            precision=variant.precision,
            target=variant.target,
            tolerance={}
            if not golden
            else assumed_tolerances(golden, spec, variant.precision)
            if not sessions
            else tolerances(sessions, golden, spec, where),
            tolerance_from="measured" if sessions else "assumed",
        )
        infos.append(info)
        contents[info.file] = data
    return contents, tuple(infos)


def _sessions(data: bytes, variant: Variant, where: str) -> tuple[Any, ...]:
    """Sessions on the variant's provider, as a device runs it and unoptimized; none where it is not to be had here."""
    if variant.provider not in PROVIDERS:
        raise BundleError(
            f"provider {variant.provider!r}",
            where=where,
            rule=f"one of {', '.join(PROVIDERS)}",
            way_out=did_you_mean(variant.provider, PROVIDERS),
        )
    if PROVIDERS[variant.provider] not in runtime().get_available_providers():
        return ()
    try:
        told = exact_config(variant.target)
        return tuple(
            open_session(data, provider=variant.provider, optimize=each, config=told) for each in (True, False)
        )
    except ProviderError:
        if variant.provider == "cpu":
            raise
        return ()
    except Exception as error:  # ONNX Runtime's exceptions have no common base but this one
        raise BundleError(
            f"ONNX Runtime refuses the model: {error}", where=where, rule="an ONNX model that this ONNX Runtime runs"
        ) from error


def _check_io(session: Any, spec: IOSpec, where: str) -> None:
    for side, tensors, actual in (
        ("inputs", spec.inputs, session.get_inputs()),
        ("outputs", spec.outputs, session.get_outputs()),
    ):
        wanted, found = [tensor.name for tensor in tensors], [value.name for value in actual]
        if wanted != found:
            raise BundleError(f"{side} {found}", where=where, rule=f"{wanted} as in spec: all variants share them")


def _check_labels(labels: Sequence[str], spec: IOSpec, after: Postprocessing | None) -> None:
    shape = spec.outputs[0].shape if isinstance(after, ClassificationPostprocessing) else ()
    if labels and len(shape) == 2 and isinstance(shape[1], int) and shape[1] != len(labels):
        raise BundleError(
            f"{len(labels)} labels",
            where="labels",
            rule=f"one for each score of the first output, {spec.outputs[0]}",
            way_out="leave labels out for a model that does not classify",
        )


def _vocabulary(
    files: Mapping[str, Path | bytes], preprocessing: Preprocessing | None, postprocessing: Postprocessing | None
) -> Vocabulary | None:
    listed = vocabulary_file(preprocessing, postprocessing)
    if listed is None:
        return None
    if listed not in files:
        raise BundleError(
            f"{listed} is not there",
            where="files",
            rule="the vocabulary that the processing names",
            way_out=f"give it as files={{{listed!r}: path}}",
        )
    return read_vocabulary(_bytes(files[listed]), preprocessing, listed)


def _recognized(labels: Sequence[str], golden: Sequence[Golden], spec: IOSpec) -> Postprocessing | None:
    """The classification that labels and a first output [samples, classes] speak for."""
    output = spec.outputs[0] if spec.outputs else None
    if not labels or output is None or len(output.shape) != 2:
        return None
    rows = [sample.outputs[output.name] for sample in golden if output.name in sample.outputs]
    likely = bool(rows) and all(np.all(row >= 0) and np.allclose(row.sum(axis=1), 1, atol=1e-2) for row in rows)
    scores: Scores = "probabilities" if likely else "softmax"
    return ClassificationPostprocessing(output=output.name, scores=scores, top=_shown(labels))


def _shown(labels: Sequence[str]) -> int:
    """How many classes an app shows: more than five nobody reads."""
    return min(5, len(labels))


def _check_place(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not _is_bundle(folder) and not _is_empty(folder)):
        raise BundleError(
            "something else is there",
            where=str(folder),
            rule="a new folder, or a bundle to replace",
            way_out="name another",
        )


def _is_bundle(place: Path) -> bool:
    if place.suffix != SUFFIX:
        return (place / BUNDLE_FILE).is_file()
    try:
        return place.is_file() and bool(open_bundle(place))
    except BundleError:
        return False


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _bytes(source: Path | bytes) -> bytes:
    return source if isinstance(source, bytes) else _read(source)


def _read(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read: {error.strerror}", where=str(path), rule="a readable file") from error


def _plain(entries: Mapping[str, FileEntry]) -> dict[str, Any]:
    return {path: {"sha256": entry.sha256, "size": entry.size} for path, entry in entries.items()}


def _json(value: object) -> bytes:
    try:
        return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise BundleError(
            f"not JSON: {error}", where="metrics or provenance", rule="texts, finite numbers, lists and objects"
        ) from error


def _write(folder: Path, contents: Mapping[str, bytes]) -> None:
    if folder.suffix == SUFFIX:
        write_archive(folder, contents)
        return
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    replaced = folder.with_name(f".{folder.name}.{os.getpid()}.replaced")
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            for path, data in contents.items():
                (partial / path).parent.mkdir(parents=True, exist_ok=True)
                with (partial / path).open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            open_bundle(partial).check_digests()
            _swap(partial, folder, replaced)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(replaced, ignore_errors=True)


def _swap(new: Path, folder: Path, replaced: Path) -> None:
    """Give `new` the name `folder`; what had it before gets it back if that fails."""
    if folder.exists():
        folder.replace(replaced)
    try:
        new.replace(folder)
    except OSError:
        if replaced.exists():
            replaced.replace(folder)
        raise
