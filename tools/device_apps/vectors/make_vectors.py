"""Write what pre- and postprocessing must give, for loaders in any language: one JSON file for each kind.

    python tools/device_apps/vectors/make_vectors.py [--check]

Each file is a list of cases: the bundle's object (`preprocessing` or `postprocessing`), what goes in, what comes out,
and `tolerance`, the largest absolute difference of a number (0: equal). Tensors are `{"dtype", "shape", "data"}` with
the values in C order. `--check` writes nothing and fails if a file is not what would be written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.device.processing import (
    ClassificationPostprocessing,
    DetectionPostprocessing,
    ImagePreprocessing,
    LogMelPreprocessing,
    SoundPreprocessing,
    TextPostprocessing,
    TokenInputs,
    Vocabulary,
    WaveformPreprocessing,
    WordpiecePreprocessing,
)

FOLDER = Path(__file__).parent
TOKENS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "quick", "brown", "fox", "jump", "##s", "##ed", "over", "lazy", "dog"),
    *("un", "##aff", "##able", "##a", "##b", "a", "b", ",", ".", "!", "'", "$", "don", "t", "Fox", "creme", "cafe"),
    *("東", "京", "ß", "##ß", "strasse", "stra", "##e", "σ", "##σ", "ο"),
)


def main(arguments: Sequence[str]) -> int:
    """Write or check all files."""
    stale = []
    for kind, cases in vectors().items():
        path = FOLDER / f"{kind}.json"
        lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
        text = f"[\n{lines}\n]\n"
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
    if stale:
        print(f"not what make_vectors.py writes: {', '.join(stale)}")
    return 1 if stale else 0


def vectors() -> dict[str, list[dict[str, Any]]]:
    """The cases of each kind."""
    return {
        "image": list(_image()),
        "log_mel": list(_log_mel()),
        "waveform": list(_waveform()),
        "wordpiece": list(_wordpiece()),
        "classification": list(_classification()),
        "detection": list(_detection()),
        "text": list(_text()),
    }


def _image() -> Iterator[dict[str, Any]]:
    # Without antialiasing, sizes are such that a byte is never a rounding error away from half a level.
    normal: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    letterbox: dict[str, Any] = {"fit": "letterbox", "pad": 114}
    cases: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
        "stretch": ((19, 13, 3), {"size": (8, 7)}),
        "stretch, enlarged": ((5, 6, 3), {"size": (11, 9)}),
        "stretch, bicubic": ((19, 13, 3), {"size": (8, 7), "filter": "bicubic"}),
        "stretch, bicubic, enlarged": ((5, 6, 3), {"size": (11, 9), "filter": "bicubic"}),
        "stretch, nearest": ((19, 13, 3), {"size": (8, 7), "filter": "nearest"}),
        "stretch, not antialiased": ((19, 13, 3), {"size": (8, 4), "antialias": False}),
        "stretch, not antialiased, enlarged": ((5, 6, 3), {"size": (8, 16), "antialias": False}),
        "stretch, bicubic, not antialiased": (
            (19, 13, 3),
            {"size": (8, 7), "filter": "bicubic", "antialias": False},
        ),
        "same size, normalized": ((7, 8, 3), {"size": (7, 8), **normal}),
        "resize-crop, wide": ((20, 31, 3), {"size": (8, 8), "fit": "resize-crop", "shorter_side": 11, **normal}),
        "resize-crop, high": ((31, 20, 3), {"size": (8, 7), "fit": "resize-crop", "shorter_side": 9}),
        "crop-resize, wide": ((14, 25, 3), {"size": (8, 6), "fit": "crop-resize"}),
        "crop-resize, high": ((25, 14, 3), {"size": (8, 6), "fit": "crop-resize", "filter": "bicubic"}),
        "letterbox, wide": ((13, 29, 3), {"size": (12, 10), **letterbox}),
        "letterbox, high, not antialiased": ((30, 12, 3), {"size": (10, 12), **letterbox, "antialias": False}),
        "letterbox, small": ((3, 5, 3), {"size": (9, 9), **letterbox, "pad": 0}),
        "BGR, NHWC, bytes": ((9, 9, 3), {"size": (6, 6), "colour": "BGR", "layout": "NHWC", "scale": 1.0}),
        "grey from colours": ((9, 11, 3), {"size": (6, 7), "mean": (0.5,), "std": (0.25,)}),
        "grey from grey": ((9, 11), {"size": (6, 7), "mean": (0.5,), "std": (0.25,)}),
        "colours from grey": ((9, 11), {"size": (6, 7), **normal}),
    }
    for seed, (name, (shape, options)) in enumerate(cases.items()):
        prepare = ImagePreprocessing(**options)
        image = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        yield {
            "name": name,
            "preprocessing": prepare.to_dict(),
            "raw": {"image": _tensor(image)},
            "expected": _tensor(prepare.apply(image)),
            # Bytes are equal; the arithmetic on them is float32's.
            "tolerance": 1e-5 * max(1.0, *(1 / each for each in prepare.std)),
        }


def _log_mel() -> Iterator[dict[str, Any]]:
    small: dict[str, Any] = {"sample_rate": 8000, "window": 200, "hop": 80, "mels": 16}
    cases: dict[str, tuple[str, int, dict[str, Any]]] = {
        "keywords": (
            "int16",
            900,
            {**small, "window": 256, "samples": 816, "window_function": "hann_symmetric", "mean": -4.0, "std": 4.0},
        ),
        "zeros at the end of frames and of the recording": ("int16", 300, {**small, "fft": 256, "samples": 600}),
        "as long as it is": ("float32", 700, {**small, "window_function": "hamming", "layout": "FT"}),
        "shorter than a frame": ("float32", 50, {**small, "layout": "1TF"}),
        "centred, slaney": (
            "int16",
            640,
            {**small, "fft": 257, "centre": True, "mel_scale": "slaney", "norm": "slaney", "low_hz": 20.0},
        ),
        "centred, magnitudes, log10": (
            "float32",
            500,
            {
                **small,
                "fft": 256,
                "centre": True,
                "power": 1,
                "high_hz": 3500.0,
                "log": "log10",
                "floor": 1e-10,
                "floor_by": "max",
                "layout": "1FT",
            },
        ),
    }
    for seed, (name, (dtype, length, options)) in enumerate(cases.items()):
        yield {"name": name, **_heard(LogMelPreprocessing(**options), seed, dtype, length), "tolerance": 1e-4}


def _heard(prepare: SoundPreprocessing, seed: int, dtype: str, length: int) -> dict[str, Any]:
    """What becomes of a noisy tone."""
    random = np.random.default_rng(seed)
    tone = 0.5 * np.sin(np.arange(length) * random.uniform(0.1, 1.5)) + 0.1 * random.standard_normal(length)
    samples = (tone * 20000).astype(np.int16) if dtype == "int16" else np.round(tone, 4).astype(np.float32)
    return {
        "preprocessing": prepare.to_dict(),
        "raw": {"samples": _tensor(samples)},
        "expected": _tensor(prepare.apply(samples)),
    }


def _waveform() -> Iterator[dict[str, Any]]:
    cases: dict[str, tuple[str, int, dict[str, Any]]] = {
        "as it is": ("float32", 40, {}),
        "cut": ("int16", 50, {"samples": 32, "layout": "1T"}),
        "filled": ("int16", 20, {"samples": 32}),
        "normalized": ("float32", 40, {"normalize": "recording"}),
        "cut, then normalized": ("int16", 50, {"samples": 32, "normalize": "recording"}),
        "normalized, then filled": ("float32", 20, {"samples": 32, "normalize": "recording", "layout": "1T"}),
        "filled, then normalized": ("int16", 20, {"samples": 32, "normalize": "input"}),
    }
    for seed, (name, (dtype, length, options)) in enumerate(cases.items()):
        prepare = WaveformPreprocessing(sample_rate=16000, **options)
        yield {"name": name, **_heard(prepare, seed, dtype, length), "tolerance": 1e-6}


def _wordpiece() -> Iterator[dict[str, Any]]:
    vocabulary = Vocabulary.parse("\n".join(TOKENS).encode())
    three = TokenInputs(ids="input_ids", mask="attention_mask", types="token_type_ids")
    one = TokenInputs(ids="ids")
    cases: dict[str, tuple[str, dict[str, Any]]] = {
        "plain": ("The quick brown fox jumps over the lazy dog.", {"length": 16}),
        "cut": ("The quick brown fox jumped over the lazy dog.", {"length": 8}),
        "punctuation": ("Don't jump,the $dogs!!", {"length": 20}),
        "pieces": ("unaffable unaffableb xunaffable abab", {"length": 20}),
        "spaces": (" \t the\nquick\r\n  brown\x07fox\x00 ", {"length": 12}),
        "cased": ("The Fox fox", {"lowercase": False, "length": 10}),
        "open length": ("the lazy fox", {}),
        "nothing": ("", {}),
        "without special tokens": ("a b", {"first": None, "last": None, "padding": None, "inputs": one}),
        "a long word": ("a" * 101 + " " + "a" * 100, {"length": 110}),
        "accents": ("Crème café", {"length": 8}),
        "accents kept": ("café cafe", {"lowercase": False, "length": 8}),
        "ideographs": ("the 東京dog", {"length": 8}),
        "no accent at all": ("Straße straßß", {"length": 12}),
        "sigma": ("ΟΣ οσ", {"length": 12}),
        "other spaces and signs": ("the\u00a0quick\u3000brown\u200bfox\u2014dog\u3002", {"length": 12}),
    }
    for name, (text, options) in cases.items():
        prepare = WordpiecePreprocessing(**{"inputs": three, **options})
        yield {
            "name": name,
            "preprocessing": prepare.to_dict(),
            "vocabulary": list(TOKENS),
            "raw": {"text": text},
            "expected": {key: _tensor(value) for key, value in prepare.apply(text, vocabulary).items()},
            "tolerance": 0,
        }


def _classification() -> Iterator[dict[str, Any]]:
    logits = np.array([[2.0, -1.0, 0.5, 2.0]], np.float32)
    cases: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "softmax": (logits, {"top": 3}),
        "softmax of large numbers": (logits * np.float32(400), {"top": 4}),
        "sigmoid": (logits, {"scores": "sigmoid", "top": 2}),
        "probabilities": (np.array([[0.1, 0.6, 0.05, 0.25]], np.float32), {"scores": "probabilities", "top": 9}),
        "two samples": (np.array([[0, 1, 2, 3], [3, 2, 1, 0]], np.float32), {"top": 1}),
    }
    labels = ("ant", "bee", "cat", "dog")
    for name, (scores, options) in cases.items():
        read = ClassificationPostprocessing(output="logits", **options)
        outputs = {"logits": scores}
        yield {
            "name": name,
            "postprocessing": read.to_dict(),
            "labels": list(labels),
            "outputs": {key: _tensor(value) for key, value in outputs.items()},
            "expected": [each.to_dict() for each in read.apply(outputs, labels)],
            "tolerance": 1e-6,
        }


def _detection() -> Iterator[dict[str, Any]]:
    letterbox = ImagePreprocessing(size=(32, 48), fit="letterbox", pad=114)
    crop = ImagePreprocessing(size=(32, 48), fit="resize-crop", shorter_side=48)
    middle = ImagePreprocessing(size=(32, 48), fit="crop-resize")
    stretch = ImagePreprocessing(size=(32, 48))
    base: dict[str, Any] = {"score_threshold": 0.3, "iou_threshold": 0.4, "max_detections": 20}
    cases: dict[str, tuple[ImagePreprocessing | None, tuple[int, int], dict[str, Any]]] = {
        "corners, letterbox": (letterbox, (90, 100), {"activation": "probabilities"}),
        "centres, relative, stretched": (stretch, (50, 70), {"format": "cxcywh", "coordinates": "relative"}),
        "distances": (
            letterbox,
            (40, 100),
            {"format": "ltrb", "strides": (8, 16), "activation": "softmax", "background": 0, "score_threshold": 0.5},
        ),
        "resize-crop, any class": (crop, (60, 80), {"class_agnostic": True, "max_detections": 4}),
        "crop-resize": (middle, (77, 60), {}),
        "the input is the image": (None, (32, 48), {"activation": "probabilities", "iou_threshold": 0.9}),
        "nothing": (stretch, (10, 10), {"activation": "probabilities", "score_threshold": 1.0}),
    }
    labels = ("none", "cat", "dog")
    for seed, (name, (prepare, image, options)) in enumerate(cases.items()):
        read = DetectionPostprocessing(boxes="boxes", scores="scores", **{**base, **options})
        size = (32, 48) if prepare is None else prepare.size
        outputs = _detector(read, size, seed)
        found = read.apply(
            outputs, labels, size=size, placed=None if prepare is None else prepare.geometry(image), image=image
        )
        yield {
            "name": name,
            "preprocessing": None if prepare is None else prepare.to_dict(),
            "postprocessing": read.to_dict(),
            "labels": list(labels),
            "image": list(image),
            "outputs": {key: _tensor(value) for key, value in outputs.items()},
            "expected": [each.to_dict() for each in found],
            "tolerance": 1e-4,
        }


def _detector(read: DetectionPostprocessing, size: tuple[int, int], seed: int) -> dict[str, np.ndarray]:
    """Overlapping boxes around few places, with some that are empty, tied, or not finite."""
    random = np.random.default_rng(seed)
    number = len(read.cells(size)) if read.format == "ltrb" else 30
    scores = np.round(random.uniform(0, 1, (1, number, 3)) ** 2, 2).astype(np.float32)
    if read.activation != "probabilities":
        scores = (scores * 8 - 4).astype(np.float32)
    if read.format == "ltrb":
        return {"boxes": np.round(random.uniform(0, 3, (1, number, 4)), 2).astype(np.float32), "scores": scores}
    centre = random.choice([0.3, 0.5, 0.8], (number, 2)) + random.normal(0, 0.04, (number, 2))
    extent = random.uniform(0.2, 0.5, (number, 2))
    extent[3] = 0
    boxes = np.concatenate([centre, extent], axis=1)
    if read.format == "xyxy":
        boxes = np.concatenate([centre - extent / 2, centre + extent / 2], axis=1)
    if read.coordinates == "pixels":
        boxes *= np.array([size[1], size[0]] * 2)
    scores[0, 5] = scores[0, 4]
    return {"boxes": np.round(boxes, 3).astype(np.float32)[None], "scores": scores}


def _text() -> Iterator[dict[str, Any]]:
    vocabulary = Vocabulary.parse("\n".join(TOKENS).encode())
    ids = np.array([[2, 4, 5, 8, 9, 0, 21, 34, 3, 13]], np.int64)
    cases: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "to the stop": (ids, {"stop": "[SEP]", "skip": ("[CLS]", "[PAD]")}),
        "all": (ids, {}),
        "characters": (ids, {"joiner": ""}),
        "scores": (np.eye(len(TOKENS), dtype=np.float32)[ids], {"skip": ("[CLS]", "[SEP]", "[PAD]")}),
        "a piece first": (np.array([[9, 9, 13]], np.int32), {}),
        "none": (np.zeros((1, 0), np.int64), {}),
    }
    for name, (value, options) in cases.items():
        read = TextPostprocessing(output="y", **options)
        yield {
            "name": name,
            "postprocessing": read.to_dict(),
            "vocabulary": list(TOKENS),
            "outputs": {"y": _tensor(value)},
            "expected": read.apply({"y": value}, vocabulary),
            "tolerance": 0,
        }


def _tensor(value: np.ndarray) -> dict[str, Any]:
    # The shortest text that is the same float32.
    plain = [float(str(each)) for each in value.ravel()] if value.dtype.kind == "f" else value.ravel().tolist()
    return {"dtype": value.dtype.name, "shape": list(value.shape), "data": plain}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
