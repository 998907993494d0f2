"""A bundle, loaded: predicts from raw input, in numpy and ONNX Runtime alone."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from edgekit.device.environment import isa_target
from edgekit.device.golden import Golden, read_golden
from edgekit.device.manifest import GOLDEN_FILE, Manifest, VariantInfo
from edgekit.device.onnx_scan import scan
from edgekit.device.processing import (
    ClassificationPostprocessing,
    Detection,
    DetectionPostprocessing,
    ImagePreprocessing,
    Postprocessing,
    Prediction,
    Preprocessing,
    Vocabulary,
    WordpiecePreprocessing,
    prepared,
    vocabulary_file,
)
from edgekit.device.processing.image import read_image
from edgekit.device.raw import read_raw
from edgekit.device.session import open_session, runtime
from edgekit.device.signature import check_signature
from edgekit.device.variants import Choice, rank
from edgekit.device.verify import Opened, open_bundle
from edgekit.errors import BundleError, DataError, ProviderError
from edgekit.spec import Feeds, IOSpec

Raw = np.ndarray | str | Path | Feeds
"""What the bundle's preprocessing takes (an image, a recording, a text), as an array, a text or a file; a prepared
tensor; an .npy or .npz file; or tensors by name."""

Answer = Prediction | tuple[Prediction, ...] | tuple[Detection, ...] | str | dict[str, np.ndarray]
"""What the bundle's postprocessing makes of the outputs; the outputs by name where it has none."""

ARRAYS = (".npy", ".npz")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """A model's inputs by name, and height and width of the image that they were made of, if they were."""

    feeds: Feeds
    image: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How far each output was from the golden one at most, over `samples` samples, and how far it may be."""

    samples: int
    differences: Mapping[str, float]
    tolerances: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {"samples": self.samples, "differences": dict(self.differences), "tolerances": dict(self.tolerances)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """A model that is ready to run; `load` makes it.

    Attributes:
        manifest: what the bundle says about itself.
        digest: SHA-256 of `edgekit/bundle.json`, which holds the digests of all files: the bundle's identity.
        choice: the variant that runs, and why.
        threads: intra-op threads of the session.
    """

    manifest: Manifest
    digest: str
    choice: Choice
    threads: int
    session: Any = field(repr=False)
    opened: Opened = field(repr=False)
    vocabulary: Vocabulary | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    @property
    def spec(self) -> IOSpec:
        """Inputs and outputs."""
        return self.manifest.spec

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, by index; empty where there are none."""
        return self.manifest.labels

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How raw input becomes the inputs; None for models that take tensors."""
        return self.manifest.preprocessing

    @property
    def postprocessing(self) -> Postprocessing | None:
        """What becomes of the outputs; None for models that give tensors."""
        return self.manifest.postprocessing

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What was measured when the bundle was made."""
        return self.manifest.metrics

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Where the bundle comes from: source, versions, plans."""
        return self.manifest.provenance

    @property
    def variants(self) -> tuple[VariantInfo, ...]:
        """All files of the model."""
        return self.manifest.variants

    @property
    def variant(self) -> VariantInfo:
        """The file that runs."""
        return self.choice.variant

    def explain(self) -> str:
        """Which variant runs, why, and what is wrong with that, in lines."""
        lines = [f"{self.variant} runs with {self.threads} thread(s): {self.choice.reason}"]
        lines += [f"compromise: {self.choice.compromise}"] if self.choice.compromise else []
        return "\n".join([*lines, *self.notes])

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Outputs by name, for inputs by name as `spec` has them.

        Raises:
            EdgekitError: the inputs are not these tensors.
        """
        self.spec.check_feeds(feeds)
        return self._outputs(dict(feeds))

    def _outputs(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [output.name for output in self.manifest.spec.outputs]
        return dict(zip(names, self.session.run(names, feeds), strict=True))

    def predict(self, raw: Raw) -> Answer:
        """Predict from raw input.

        Args:
            raw: what the bundle's preprocessing takes. An image: uint8 [H, W, 3] RGB, uint8 [H, W] grey, or a file,
                which needs Pillow. A recording: samples [n], floats in [-1, 1] or int16, or a .wav file of the model's
                sample rate. A text, or a text file as a `Path`. Or the prepared tensor of a model with one input, with
                or without its batch dimension; or tensors by name; or an .npy or .npz file of any of these.

        Returns:
            By the kind of postprocessing: a `Prediction` (a tuple of them for a batch of several), a tuple of
            `Detection`, the surest first, or a text; without postprocessing, outputs by name.

        Raises:
            EdgekitError: the input is none of these, or does not fit the model.
        """
        inputs = self.manifest.spec.inputs
        if isinstance(raw, np.ndarray) and len(inputs) == 1 and inputs[0].accepts(raw):
            # Nothing to prepare, and nothing left to check: the shortest way, since every microsecond here is in each
            # call of an application.
            feeds = {inputs[0].name: raw}
            return self.answer(self._outputs(feeds), Prepared(feeds=feeds))
        ready = self.prepare(raw)
        return self.answer(self.run(ready.feeds), ready)

    def prepare(self, raw: Raw) -> Prepared:
        """What `predict` makes of `raw` before it runs the model."""
        read = raw if isinstance(raw, np.ndarray) else self._read(raw)
        feeds, went_through = self._prepared(read)
        if went_through and isinstance(read, np.ndarray) and isinstance(self.preprocessing, ImagePreprocessing):
            return Prepared(feeds=feeds, image=(read.shape[0], read.shape[1]))
        return Prepared(feeds=feeds)

    def answer(self, outputs: Mapping[str, np.ndarray], ready: Prepared) -> Answer:
        """What `predict` makes of the `outputs` that `run` gave for the feeds of `ready`."""
        after = self.postprocessing
        if after is None:
            return dict(outputs)
        if isinstance(after, ClassificationPostprocessing):
            made = after.apply(outputs, self.labels)
            return made[0] if len(made) == 1 else made
        if isinstance(after, DetectionPostprocessing):
            size = self._input_size(ready.feeds)
            if ready.image is None or not isinstance(self.preprocessing, ImagePreprocessing):
                return after.apply(outputs, self.labels, size=size)
            placed = self.preprocessing.geometry(ready.image)
            return after.apply(outputs, self.labels, size=size, placed=placed, image=ready.image)
        assert self.vocabulary is not None, "the manifest sees to it that there is one"
        return after.apply(outputs, self.vocabulary)

    def feeds(self, raw: Raw) -> Feeds:
        """The inputs by name that `predict` makes from `raw`."""
        return self.prepare(raw).feeds

    def _read(self, raw: str | Path | Feeds) -> np.ndarray | str | Feeds:
        """`raw` with files read: arrays, tensors by name, or a text."""
        if not isinstance(raw, str | Path):
            return raw
        path, before = Path(raw), self.preprocessing
        text = isinstance(before, WordpiecePreprocessing) and isinstance(raw, str)
        if path.suffix.lower() in ARRAYS and not (text and not path.is_file()):
            return _load_arrays(path)
        if before is not None:
            return read_raw(raw, before)
        if _takes_pixels(self.spec):
            return read_image(path)
        raise DataError(
            f"got the file {path.name}",
            where="predict",
            rule="the bundle has no preprocessing: it takes tensors",
            way_out="give arrays by name, or an .npz whose arrays are named "
            + ", ".join(repr(tensor.name) for tensor in self.spec.inputs),
        )

    def _prepared(self, raw: np.ndarray | str | Feeds) -> tuple[Feeds, bool]:
        """The inputs by name, and whether `raw` went through the preprocessing."""
        before = self.preprocessing
        if isinstance(raw, np.ndarray):
            if len(self.spec.inputs) != 1:
                raise DataError(
                    "got one array",
                    where="predict",
                    rule=f"inputs {', '.join(tensor.name for tensor in self.spec.inputs)}",
                    way_out="give a dict of arrays by name",
                )
            tensor = self.spec.inputs[0]
            if before is None or tensor.accepts(raw) or tensor.accepts(raw[None]):
                return {tensor.name: raw[None] if raw.ndim == len(tensor.shape) - 1 else raw}, False
        elif isinstance(raw, Mapping):
            return raw, False
        assert before is not None, "a text is read as one only for a preprocessing that takes it"
        return prepared(before, raw, self.spec, self.vocabulary), True

    def _input_size(self, feeds: Feeds) -> tuple[int, int]:
        """Height and width of the image that the model itself sees."""
        if isinstance(self.preprocessing, ImagePreprocessing):
            return self.preprocessing.size
        shape = feeds[self.spec.inputs[0].name].shape
        if len(shape) not in {3, 4}:
            raise BundleError(
                f"an input {list(shape)}", where=self.manifest.name, rule="boxes need a model that sees an image"
            )
        # [height, width, channels] is what a bundle with its preprocessing in the graph takes.
        first = 2 if len(shape) == 4 and shape[1] in {1, 3} else len(shape) - 3
        return shape[first], shape[first + 1]

    def example(self) -> Feeds:
        """Inputs to measure with: the first golden sample, or one sample of noise where there is none."""
        golden = self.golden()
        if golden:
            return golden[0].inputs
        random = np.random.default_rng(0)
        shapes = (
            (tensor, [1 if isinstance(size, str) else size for size in tensor.shape]) for tensor in self.spec.inputs
        )
        return {tensor.name: random.random(shape).astype(tensor.dtype) for tensor, shape in shapes}

    def golden(self) -> tuple[Golden, ...]:
        """The golden vectors; empty where the bundle has none."""
        samples = self.manifest.golden_samples
        return read_golden(self.opened.read(GOLDEN_FILE), self.spec, samples) if samples else ()

    def check(self) -> Check:
        """Replay the golden vectors: preprocessing and outputs must come out as when the bundle was made.

        Raises:
            BundleError: there are none, or one comes out differently; the text has the largest difference.
        """
        golden = self.golden()
        if not golden:
            raise BundleError("no golden vectors", where=self.manifest.name, rule="a bundle that can be checked")
        differences = {output.name: 0.0 for output in self.spec.outputs}
        for index, sample in enumerate(golden):
            if sample.raw is not None:
                self._check_preprocessing(sample, index)
            for name, value in self.run(sample.inputs).items():
                found = max_difference(value, sample.outputs[name])
                tolerance = self.variant.tolerance[name]
                if not found <= tolerance:
                    raise BundleError(
                        f"output {name!r} of golden sample {index} differs by {found:.6g}",
                        where=f"{self.manifest.name}, variant {self.variant}",
                        rule=f"at most {tolerance:.6g}, measured when the bundle was made",
                        way_out="this machine computes another result: "
                        + (self.choice.compromise or "try another provider"),
                    )
                differences[name] = max(differences[name], found)
        return Check(samples=len(golden), differences=differences, tolerances=dict(self.variant.tolerance))

    def _check_preprocessing(self, sample: Golden, index: int) -> None:
        if self.preprocessing is None or sample.raw is None:
            raise BundleError(
                f"golden sample {index} has raw input", where=self.manifest.name, rule="raw input needs preprocessing"
            )
        made = prepared(self.preprocessing, sample.raw, self.spec, self.vocabulary)
        found, allowed = preprocessing_difference(made, sample.inputs)
        if not found <= allowed:
            raise BundleError(
                f"the preprocessed {self.preprocessing.kind} of golden sample {index} differs by {found:.6g}",
                where=self.manifest.name,
                rule=f"at most {allowed:.6g}",
            )


def load(
    path: str | Path,
    *,
    provider: str | None = None,
    threads: int = 1,
    verify: bool = True,
    digest: str | None = None,
    public_key: str | Path | None = None,
    signature: str | Path | None = None,
) -> Model:
    """Load a bundle: verify it, choose the variant that suits this machine, open it in ONNX Runtime.

    Needs numpy and onnxruntime only. ONNX Runtime is handed bytes whose digest was checked, never a path.

    Args:
        path: the bundle: its folder, or its file `NAME.edgekit.zip`.
        provider: `cpu`, `cuda` or `tensorrt`; None takes the first variant, in the bundle's order, that runs here.
        threads: intra-op threads; 0 lets ONNX Runtime choose.
        verify: compare the SHA-256 of every file. False checks only the files that are used.
        digest: the bundle's identity (`inspect` shows it), where it is known from a source that is trusted.
        public_key: a PEM file; with it, only a bundle that is signed with this key is loaded (needs `cryptography`).
        signature: where the signature lies; beside the bundle by default.

    Raises:
        BundleError: the bundle is not whole, not ours, or not safe; the text says which file and why.
        ProviderError: the provider is absent, has no variant, or fell back to the CPU.
    """
    opened = open_bundle(path)
    if digest is not None and digest != opened.sha256:
        raise BundleError(f"another bundle: its digest is {opened.sha256}", where=str(path), rule=f"expected {digest}")
    if public_key is not None:
        check_signature(opened, public_key, signature)
    elif signature is not None:
        raise BundleError("a signature, but no key", where="load", rule="a signature says nothing without public_key")
    if verify:
        opened.check_digests()
    choices = rank(
        opened.manifest.variants,
        provider=provider,
        available=runtime().get_available_providers(),
        isa=isa_target(),
    )
    choice, session, notes = _open_best(opened, choices, threads, fall_back=provider is None)
    listed = vocabulary_file(opened.manifest.preprocessing, opened.manifest.postprocessing)
    vocabulary = None if listed is None else read_vocabulary(opened.read(listed), opened.manifest.preprocessing, listed)
    compromise = (f"{choice.variant}: {choice.compromise}",) if choice.compromise else ()
    for text in (*notes, *compromise):
        warnings.warn(text, UserWarning, stacklevel=2)
    return Model(
        manifest=opened.manifest,
        digest=opened.sha256,
        choice=choice,
        threads=threads,
        session=session,
        opened=opened,
        vocabulary=vocabulary,
        notes=notes,
    )


def plain(answer: Answer) -> Any:
    """What `predict` returned, JSON-ready."""
    if isinstance(answer, dict):
        return {name: array.tolist() for name, array in answer.items()}
    if isinstance(answer, tuple):
        return [each.to_dict() for each in answer]
    return answer if isinstance(answer, str) else answer.to_dict()


def read_vocabulary(data: bytes, preprocessing: Preprocessing | None, where: str) -> Vocabulary:
    """The vocabulary that a bundle's processing needs, from the bytes of its file.

    Raises:
        BundleError: it is no vocabulary, or lacks a token that the preprocessing names.
    """
    try:
        found = Vocabulary.parse(data, where)
        if isinstance(preprocessing, WordpiecePreprocessing):
            preprocessing.check_vocabulary(found)
    except DataError as error:
        raise BundleError(error.problem, where=error.where, rule=error.rule) from error
    return found


def preprocessing_difference(made: Feeds, expected: Feeds) -> tuple[float, float]:
    """How far preprocessed inputs lie from the golden ones, and how far they may: 1e-5 of the largest value."""
    found, allowed = 0.0, 1e-5
    for name, value in expected.items():
        found = max(found, max_difference(made[name], value))
        allowed = max(allowed, 1e-5 * float(np.max(np.abs(value), initial=0.0)))
    return found, allowed


def max_difference(value: np.ndarray, expected: np.ndarray) -> float:
    """The largest absolute difference; infinite where shapes differ or something is not a number on one side only."""
    if value.shape != expected.shape:
        return float("inf")
    if not value.size:
        return 0.0
    with np.errstate(invalid="ignore"):
        difference = np.abs(value.astype(np.float64) - expected.astype(np.float64))
    difference[(value == expected) | ((value != value) & (expected != expected))] = 0.0  # noqa: PLR0124 - NaN equals NaN here
    return float(np.max(np.where(np.isnan(difference), np.inf, difference)))


def _open_best(
    opened: Opened, choices: tuple[Choice, ...], threads: int, *, fall_back: bool
) -> tuple[Choice, Any, tuple[str, ...]]:
    """The first choice whose provider really works, its session, and what became of those before it."""
    notes: list[str] = []
    for choice in choices[:-1] if fall_back else ():
        try:
            return choice, _open(opened, choice, threads), tuple(notes)
        except ProviderError as error:
            notes.append(f"passed over {choice.variant}: {error.problem}")
    last = choices[-1] if fall_back else choices[0]
    return last, _open(opened, last, threads), tuple(notes)


def _open(opened: Opened, choice: Choice, threads: int) -> Any:
    file = choice.variant.file
    data = opened.read(file)
    scan(data, f"{opened.root}/{file}")
    try:
        session = open_session(data, provider=choice.variant.provider, threads=threads, config=dict(choice.config))
    except ProviderError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions have no common base but this one
        raise BundleError(
            f"ONNX Runtime refuses the model: {error}",
            where=f"{opened.root}/{file}",
            rule="an ONNX model that this ONNX Runtime runs",
            way_out="update onnxruntime; the bundle's provenance says which version made it",
        ) from error
    _check_io(session, opened)
    return session


def _check_io(session: Any, opened: Opened) -> None:
    spec = opened.manifest.spec
    for side, tensors, actual in (
        ("inputs", spec.inputs, session.get_inputs()),
        ("outputs", spec.outputs, session.get_outputs()),
    ):
        wanted, found = [tensor.name for tensor in tensors], [value.name for value in actual]
        if wanted != found:
            raise BundleError(f"{side} {found}", where=str(opened.root), rule=f"{wanted} as in edgekit/bundle.json")


def _takes_pixels(spec: IOSpec) -> bool:
    """Whether the one input is an image as it is: uint8 [height, width, 3]."""
    tensor = spec.inputs[0]
    return len(spec.inputs) == 1 and tensor.dtype == "uint8" and len(tensor.shape) == 3 and tensor.shape[2] == 3


def _load_arrays(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:  # numpy leaves a file open that is no whole zip.
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            with loaded:
                return {name: cast("np.ndarray", loaded[name]) for name in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read: {error}", where=str(path), rule="an .npy or .npz without pickles") from error
