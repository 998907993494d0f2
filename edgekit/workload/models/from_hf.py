"""Models of transformers: `hf:FOLDER`, or a repository that is in the user's cache. Nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from torch import Tensor, nn

from edgekit.data import split_options
from edgekit.device.processing import Preprocessing, TokenInputs, WaveformPreprocessing, WordpiecePreprocessing
from edgekit.errors import WorkloadError, did_you_mean
from edgekit.workload.models.images import image_preprocessing
from edgekit.workload.models.optional import broken, optional
from edgekit.workload.models.source import ModelSource

OPTIONS = ("tokens",)
INPUTS = ("input_ids", "attention_mask")
TOKENS = 128
"""Of a text, where nothing else is asked for and the model takes so many."""
PICKLED = "pytorch_model.bin"
TOKENIZER_FILES = (
    "tokenizer_config.json",
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, which is how transformers writes them."""


class Wrapped(nn.Module):
    """A network of transformers, of whose answer a subclass gives the logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class PixelLogits(Wrapped):
    """An image classifier of transformers that gives its logits alone."""

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits [n, classes] of images [n, channels, height, width]."""
        logits: Tensor = self.model(pixel_values=pixel_values).logits
        return logits


class TokenLogits(Wrapped):
    """A text classifier of transformers that gives its logits alone."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits [n, classes] of ids [n, tokens] and the mask of what is no padding."""
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


class SoundLogits(Wrapped):
    """An audio classifier of transformers that gives its logits alone."""

    def forward(self, input_values: Tensor) -> Tensor:
        """Logits [n, classes] of samples [n, time], or of features, as its feature extractor makes them."""
        # Networks that hear features of sound call them `input_features`, most of them.
        logits: Tensor = self.model(**{str(self.model.main_input_name): input_values}).logits
        return logits


class TagLogits(Wrapped):
    """A network of transformers that classifies each token of a text, with its logits alone."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits [n, classes, tokens] of ids [n, tokens] and the mask of what is no padding."""
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits.transpose(1, 2)


class MapLogits(Wrapped):
    """A network of transformers that classifies each pixel of an image, with its logits alone."""

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits [n, classes, height, width] of images [n, channels, height, width], scaled up as its own loss does."""
        logits: Tensor = self.model(pixel_values=pixel_values).logits
        return F.interpolate(logits, size=pixel_values.shape[-2:], mode="bilinear", align_corners=False)


KINDS: dict[str, tuple[str, type[nn.Module]]] = {
    "ForImageClassification": ("AutoModelForImageClassification", PixelLogits),
    "ForSequenceClassification": ("AutoModelForSequenceClassification", TokenLogits),
    "ForAudioClassification": ("AutoModelForAudioClassification", SoundLogits),
    "ForTokenClassification": ("AutoModelForTokenClassification", TagLogits),
    "ForSemanticSegmentation": ("AutoModelForSemanticSegmentation", MapLogits),
}
"""What the name of an architecture ends with: how it is loaded, and what makes it give logits."""


def from_hf(reference: str, *, trusted: Path | None = None) -> ModelSource:
    """A classifier of images, texts or sounds, with its preprocessing or tokenizer and the names of its classes.

    Those that classify each token of a text or each pixel of an image take data that hold ids and masks, or images,
    beside the labels of all positions (-100 where there is none). Texts are cut or padded to `tokens` (128, or what the
    model takes if that is less).

    Raises:
        WorkloadError: transformers is missing, there is no such folder or repository, or the model is no classifier.
    """
    target, options = split_options(reference, OPTIONS)
    path = target.partition(":")[2]
    place = Path(path).expanduser()
    path = str(place) if place.is_dir() else path
    library = optional("transformers", where=reference, extra="hf")
    library.utils.logging.disable_progress_bar()  # Only the command line shows progress.
    settings = _config(library, path, reference)
    architecture = next(iter(settings.architectures or ()), type(settings).__name__)
    kind = _kind(library, architecture)
    if kind is None:
        raise WorkloadError(
            f"a {architecture}",
            where=reference,
            rule="a model for image, sequence, audio or token classification, or for semantic segmentation",
            way_out="write a function that returns the module: file.py:function",
        )
    loads, wrapper = KINDS[kind]
    is_text, is_image = wrapper is TokenLogits, wrapper in (PixelLogits, MapLogits)
    if "tokens" in options and not is_text:
        raise WorkloadError(f"tokens of a {architecture}", where=reference, rule="only for models that take texts")
    factory = partial(_made, library, loads, wrapper, path, reference=reference, trusted=trusted)
    if is_text:
        text = _text(library, path, settings, options.get("tokens"), reference)
        before, vocabulary = (None, None) if text is None else _as_wordpiece(text.tokenizer, text.length)
        return ModelSource(
            factory=factory, preprocessing=before, vocabulary=vocabulary, text=text, labels=_labels(settings)
        )
    before_raw = _preprocessing(library, path, settings, reference) if is_image else None
    if wrapper is SoundLogits:
        before_raw = _listening(library, path)
    # Names are for what has one class.
    labels = () if wrapper in (TagLogits, MapLogits) else _labels(settings)
    return ModelSource(factory=factory, preprocessing=before_raw, labels=labels)


def _kind(library: Any, architecture: str) -> str | None:
    # Most networks that classify sounds are called ForSequenceClassification, as those of texts are.
    if architecture in library.models.auto.modeling_auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES.values():
        return "ForAudioClassification"
    return next((each for each in KINDS if architecture.endswith(each)), None)


def _config(library: Any, path: str, reference: str) -> Any:
    try:
        return library.AutoConfig.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        place = Path(path)
        near = (
            did_you_mean(place.name, [each.name for each in place.parent.iterdir() if each.is_dir()])
            if place.parent.is_dir()
            else ""
        )
        raise WorkloadError(
            f"no model in {path}" if place.is_dir() else f"no folder {path}, and no such repository in the cache",
            where=reference,
            rule="a folder that save_pretrained wrote, or the name of a repository that was downloaded before",
            way_out=near or f"fetch it once: hf download {path}",
        ) from error


def _made(
    library: Any,
    loads: str,
    wrapper: type[nn.Module],
    path: str,
    *,
    reference: str,
    trusted: Path | None,
) -> nn.Module:
    try:
        model = getattr(library, loads).from_pretrained(
            path, local_files_only=True, use_safetensors=None if _names(trusted, path) else True, dtype="float32"
        )
    except ImportError as error:  # it imports what it needs, torchvision among it, when it needs it
        raise broken(error, "transformers", where=reference, extra="hf") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise WorkloadError(
            f"the weights cannot be loaded: {(str(error).splitlines() or [type(error).__name__])[0]}",
            where=reference,
            rule="model.safetensors beside config.json",
            way_out="save it again with save_pretrained; a pytorch_model.bin, which is a pickle and can run any code, "
            f"is read with --trust-pickle {path}/{PICKLED}",
        ) from error
    # What a cache keeps is for texts that go on; a classifier reads its text once.
    model.config.use_cache = False
    if hasattr(model, "set_experts_implementation"):
        # The usual way through experts is an operator of its own, which no exporter knows; this one is plain products.
        model.set_experts_implementation("batched_mm")
    return wrapper(model)


def _names(trusted: Path | None, folder: str) -> bool:
    """Whether what may run code is the very file that this folder holds."""
    own = Path(folder) / PICKLED
    return trusted is not None and trusted.is_file() and own.is_file() and trusted.samefile(own)


def _labels(settings: Any) -> tuple[str, ...]:
    """Names of the classes, unless they are transformers' placeholders."""
    names = [str(name) for _, name in sorted((settings.id2label or {}).items())]
    placeholders = all(name == f"LABEL_{index}" for index, name in enumerate(names))
    return () if placeholders else tuple(names)


def _place(library: Any, path: str, name: str) -> str | None:
    """Where a file of a folder or a cached repository lies."""
    found: str | None = library.utils.cached_file(
        path,
        name,
        local_files_only=True,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return found


def _file(library: Any, path: str, name: str) -> dict[str, Any] | None:
    found = _place(library, path, name)
    if found is None:
        return None
    entries = json.loads(Path(found).read_text(encoding="utf-8"))
    return entries if isinstance(entries, dict) else None


def _preprocessing(library: Any, path: str, settings: Any, reference: str) -> Preprocessing | None:
    """What the image processor does, read off its file: the library would ask for torchvision."""
    entries = _file(library, path, "preprocessor_config.json")
    if entries is None:
        whole = _file(library, path, "processor_config.json")
        entries = None if whole is None else whole.get("image_processor")
    if entries is None:
        return None
    crop = _sides(entries.get("crop_size")) if entries.get("do_center_crop") else None
    side: int | None = None
    size = crop
    if entries.get("do_resize", True):
        wanted = entries.get("size")
        shortest = wanted.get("shortest_edge") if isinstance(wanted, Mapping) else None
        if shortest is not None:
            share = entries.get("crop_pct")
            side, size = int(shortest), crop
            if share and shortest < 384:
                # ConvNeXT's: below 384 pixels the image is resized to more, and that much is cut out.
                side, size = int(shortest / share), (shortest, shortest)
            elif share or crop is None:
                side, size = None, (shortest, shortest) if share else None
        else:
            size = _sides(wanted)
            if crop is not None and crop != size:
                return None
    if size is None:
        given = getattr(settings, "image_size", None)
        size = _sides(given)
    if size is None:
        return None
    normal = entries.get("do_normalize", True)
    number = entries.get("resample", 2)
    return image_preprocessing(
        size=size,
        shorter_side=side,
        interpolation=RESAMPLING.get(number, f"Pillow's filter {number}"),
        mean=entries["image_mean"] if normal and entries.get("image_mean") else (0.0, 0.0, 0.0),
        std=entries["image_std"] if normal and entries.get("image_std") else (1.0, 1.0, 1.0),
        scale=float(entries.get("rescale_factor", 1 / 255)) if entries.get("do_rescale", True) else 1.0,
        where=reference,
    )


def _listening(library: Any, path: str) -> WaveformPreprocessing | None:
    """What the feature extractor of a network that listens to the waveform does; of spectrograms it makes its own."""
    entries = _file(library, path, "preprocessor_config.json") or {}
    if entries.get("feature_extractor_type") != "Wav2Vec2FeatureExtractor":
        return None
    of: Literal["recording", "input"] = "recording" if entries.get("return_attention_mask", False) else "input"
    return WaveformPreprocessing(
        sample_rate=int(entries.get("sampling_rate", 16_000)),
        normalize=of if entries.get("do_normalize", True) else None,
    )


def _sides(given: Any) -> tuple[int, int] | None:
    if isinstance(given, int):
        return given, given
    if isinstance(given, Mapping) and {"height", "width"} <= set(given):
        return int(given["height"]), int(given["width"])
    return None


class Tokenizer:
    """A tokenizer of transformers that cuts and pads to one length; a class, so that it can go to other processes."""

    def __init__(self, tokenizer: Any, length: int) -> None:
        self.tokenizer, self.length = tokenizer, length

    def __call__(self, text: str) -> dict[str, np.ndarray]:
        """Ids and mask of a text, each int64 [length]."""
        found = self.tokenizer(text, padding="max_length", truncation=True, max_length=self.length)
        return {name: np.asarray(found[name], np.int64) for name in INPUTS}


def _text(library: Any, path: str, settings: Any, asked: str | None, reference: str) -> Tokenizer | None:
    if not _has_tokenizer(library, path):
        return None  # Data may come as ids; some tokenizers would ask for a package before they look for their files.
    try:
        tokenizer = library.AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    except ImportError as error:
        raise WorkloadError(
            f"its tokenizer cannot be loaded: {' '.join(str(error).split()) or type(error).__name__}",
            where=reference,
            rule="a tokenizer whose package is installed",
            way_out="install that package, or remove the tokenizer's files and let the data be ids",
        ) from error
    most = min(int(tokenizer.model_max_length), int(getattr(settings, "max_position_embeddings", TOKENS) or TOKENS))
    if asked is not None and not (asked.isdigit() and 0 < int(asked) <= most):
        raise WorkloadError(f"tokens is {asked!r}", where=reference, rule=f"a number from 1 to {most}")
    return Tokenizer(tokenizer, int(asked) if asked is not None else min(TOKENS, most))


def _has_tokenizer(library: Any, path: str) -> bool:
    """Whether there is a file that `save_pretrained` writes of a tokenizer."""
    return any(_place(library, path, name) for name in TOKENIZER_FILES)


def _as_wordpiece(tokenizer: Any, length: int) -> tuple[WordpiecePreprocessing | None, bytes | None]:
    """A tokenizer of BERT's kind as a bundle's preprocessing with its vocabulary; of other kinds bundles know none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None, None
    parts = json.loads(backend.to_str())
    model, normal = parts["model"], parts.get("normalizer") or {}
    lowercase = bool(normal.get("lowercase"))
    usual = (
        model.get("type") == "WordPiece"
        and model.get("continuing_subword_prefix") == "##"
        and normal.get("type") == "BertNormalizer"
        and normal.get("clean_text")
        and normal.get("handle_chinese_chars")
        and normal.get("strip_accents") in (None, lowercase)
        and (parts.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer"
    )
    tokens = sorted(model["vocab"], key=model["vocab"].get) if usual else []
    if not usual or [model["vocab"][token] for token in tokens] != list(range(len(tokens))):
        return None, None
    before = WordpiecePreprocessing(
        lowercase=lowercase,
        length=length,
        unknown=tokenizer.unk_token,
        first=tokenizer.cls_token,
        last=tokenizer.sep_token,
        padding=tokenizer.pad_token,
        inputs=TokenInputs(ids=INPUTS[0], mask=INPUTS[1]),
    )
    return before, "".join(f"{token}\n" for token in tokens).encode()
