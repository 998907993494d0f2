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
from edgekit.device.prediction import Prediction, predictions
from edgekit.device.preprocess import Preprocessing
from edgekit.device.session import open_session, runtime
from edgekit.device.signature import check_signature
from edgekit.device.variants import Choice, rank
from edgekit.device.verify import Opened, open_bundle
from edgekit.errors import BundleError, DataError, ProviderError
from edgekit.spec import Feeds, IOSpec

Raw = np.ndarray | str | Path | Feeds
"""An image array or file, a prepared tensor, an .npy or .npz file, or tensors by name."""


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
        """How an image becomes the input; None for models that take no image."""
        return self.manifest.preprocessing

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
        names = [output.name for output in self.spec.outputs]
        return dict(zip(names, self.session.run(names, dict(feeds)), strict=True))

    def predict(self, raw: Raw) -> Prediction | tuple[Prediction, ...] | dict[str, np.ndarray]:
        """Predict from raw input.

        Args:
            raw: an image (uint8 [H, W, 3] RGB, uint8 [H, W] grey, or a file, which needs Pillow) where the bundle has
                preprocessing; or the prepared tensor of a model with one input, with or without its batch dimension; or
                tensors by name; or an .npy or .npz file of these.

        Returns:
            A `Prediction` where the first output scores labels, or a tuple of them for a batch of several; else outputs
            by name.

        Raises:
            EdgekitError: the input is none of these, or does not fit the model.
        """
        outputs = self.run(self.feeds(raw))
        if self.manifest.scores is None:
            return outputs
        made = predictions(outputs[self.spec.outputs[0].name], self.labels, self.manifest.scores)
        return made[0] if len(made) == 1 else made

    def feeds(self, raw: Raw) -> Feeds:
        """The inputs by name that `predict` makes from `raw`."""
        if isinstance(raw, Mapping):
            return raw
        if isinstance(raw, str | Path):
            path = Path(raw)
            if path.suffix.lower() in {".npy", ".npz"}:
                loaded = _load_arrays(path)
                return loaded if isinstance(loaded, dict) else self.feeds(loaded)
            if self.preprocessing is None:
                raise DataError(
                    f"got the file {path.name}",
                    where="predict",
                    rule="the bundle has no image preprocessing: it takes tensors",
                    way_out="give arrays by name, or an .npz whose arrays are named "
                    + ", ".join(repr(tensor.name) for tensor in self.spec.inputs),
                )
            return {self.spec.inputs[0].name: self.preprocessing.apply(path)}
        if len(self.spec.inputs) != 1:
            raise DataError(
                "got one array",
                where="predict",
                rule=f"inputs {', '.join(tensor.name for tensor in self.spec.inputs)}",
                way_out="give a dict of arrays by name",
            )
        tensor = self.spec.inputs[0]
        if self.preprocessing is not None and not tensor.accepts(raw) and not tensor.accepts(raw[None]):
            return {tensor.name: self.preprocessing.apply(raw)}
        return {tensor.name: raw[None] if raw.ndim == len(tensor.shape) - 1 else raw}

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
            if sample.image is not None:
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
        if self.preprocessing is None or sample.image is None:
            raise BundleError(
                f"golden sample {index} has an image", where=self.manifest.name, rule="images need preprocessing"
            )
        prepared = self.preprocessing.apply(sample.image)
        expected = sample.inputs[self.spec.inputs[0].name]
        found = max_difference(prepared, expected)
        allowed = 1e-5 * max(1.0, float(np.max(np.abs(expected))))
        if not found <= allowed:
            raise BundleError(
                f"the preprocessed image of golden sample {index} differs by {found:.6g}",
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
        notes=notes,
    )


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
