"""How a bundle is used: which file runs where, what the model wants of its input, and code in several languages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgekit.report.comment import escaped
from edgekit.report.snippets import snippets

PLACES = {
    "any": "any processor",
    "x86-vnni": "x86 processors with VNNI",
    "x86-avx2": "x86 processors with AVX2, with or without VNNI",
    "arm64": "64-bit ARM processors: Raspberry Pi, Jetson, phones, Apple",
    "cuda": "NVIDIA GPUs, in ONNX Runtime's CUDA provider",
    "tensorrt": "NVIDIA GPUs, in ONNX Runtime's TensorRT provider",
}

OTHERS = (
    "With ONNX Runtime's own packages, on a prepared input; written from their documentation, **not run here**. "
    "`model.onnx` is the file of the table that was made for the processor, fp32 where there is none. Compare the "
    "answers with `edgekit/golden.npz` before you trust them."
)


def readme(about: Mapping[str, Any], folder: str) -> str:
    """The README of a bundle of which no report tells: its name, and how it is used.

    Args:
        about: as `edgekit/bundle.json` holds it.
        folder: the bundle's folder's name.
    """
    return "\n".join([f"# {escaped(str(about['name']))}", "", *use(about, folder)])


def use(about: Mapping[str, Any], folder: str) -> list[str]:
    """The lines of the section "Use it"."""
    lines = [
        "## Use it",
        "",
        "| file | precision | made for |",
        "|---|---|---|",
        *[
            f"| `{variant['file']}` | {escaped(variant['precision'])} | {PLACES[variant['target']]} |"
            for variant in about["variants"]
        ],
        "",
        "edgekit's libraries check every file, take the one that suits the machine, and prepare input as in training.",
        "",
    ]
    found = snippets(about, folder)
    for snippet in found:
        if snippet.ours:
            lines += [f"### {snippet.language}", "", *fenced(snippet.fence, snippet.code), ""]
    others = [snippet for snippet in found if not snippet.ours]
    if others:
        lines += [
            "### Other languages",
            "",
            OTHERS,
            "",
            *wanted(about),
            "",
        ]
        for snippet in others:
            title = f"{snippet.language}, not run here"
            lines += ["<details>", f"<summary>{title}</summary>", "", *fenced(snippet.fence, snippet.code), ""]
            lines += ["</details>", ""]
    return lines


def wanted(about: Mapping[str, Any]) -> list[str]:
    """What the model's input is made of, step by step; one line for each."""
    before = about["preprocessing"]
    shapes = "; ".join(
        f"`{_plain(row['name'])}` is {row['dtype']} [{', '.join(_plain(str(size)) for size in row['shape'])}]"
        for row in about["io"]["inputs"]
    )
    if before is None:
        return [f"The input: {shapes}."]
    kinds = {"image": _image, "log_mel": _log_mel, "waveform": _waveform, "wordpiece": _wordpiece}
    steps = kinds[before["kind"]](before)
    head = f"The input: {shapes}. It is made of {_NOUNS[before['kind']]} in these steps, exactly:"
    baked = "`edgekit bundle --bake preprocessing` puts these steps into the graph."
    numbered = [f"{number}. {step}" for number, step in enumerate(steps, 1)]
    return [head, "", *numbered, *(["", baked] if before["kind"] != "wordpiece" else [])]


def fenced(language: str, code: str) -> list[str]:
    """A block of code in Markdown, whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", *code.split("\n"), fence]


_NOUNS = {"image": "an image", "log_mel": "a recording", "waveform": "a recording", "wordpiece": "a text"}


def _image(before: Mapping[str, Any]) -> list[str]:
    height, width = before["size"]
    channels = {"RGB": "red, green, blue", "BGR": "blue, green, red", "grey": "grey (Pillow's `convert('L')`)"}
    size = f"{height} × {width} (height × width)"
    fits = {
        "stretch": f"resize to {size}",
        "resize-crop": f"resize the shorter side to {before['shorter_side']}, cut {size} out of the centre",
        "crop-resize": f"cut the largest rectangle of these proportions out of the centre, resize it to {size}",
        "letterbox": f"resize to fit into {size}, centre it there, fill the rest with {before['pad']}",
    }
    smooth = "antialiased as in Pillow" if before["antialias"] else "without antialiasing"
    filter_ = before["filter"] if before["filter"] == "nearest" else f"{before['filter']}, {smooth}"
    mean, std = (", ".join(f"{value:g}" for value in before[name]) for name in ("mean", "std"))
    return [
        f"channels: {channels[before['colour']]}",
        f"{fits[before['fit']]}; {filter_}; bytes stay bytes",
        f"each byte divided by {1 / before['scale']:.9g}, minus [{mean}], divided by [{std}], channel by channel",
        f"layout {before['layout']}",
    ]


def _log_mel(before: Mapping[str, Any]) -> list[str]:
    where = "centred in frames of" if before["centre"] else "at the start of frames of"
    norm = "" if before["norm"] is None else f", norm {before['norm']}"
    floor = f"x + {before['floor']:g}" if before["floor_by"] == "add" else f"max(x, {before['floor']:g})"
    frames = f"{before['window_function']} windows of {before['window']} samples {where} {before['fft']}"
    reflected = ", reflected at both ends" if before["centre"] else ""
    band = f"{before['mels']} mel filters from {before['low_hz']:g} to {before['high_hz']:g} Hz"
    return [
        _samples(before),
        f"{frames}, every {before['hop']}{reflected}",
        f"|spectrum| to the power of {before['power']}",
        f"{band}, scale {before['mel_scale']}{norm}",
        f"{before['log']} logarithm of {floor}, minus {before['mean']:g}, divided by {before['std']:g}",
        f"layout {before['layout']} (T: frames, F: mel bands)",
    ]


def _waveform(before: Mapping[str, Any]) -> list[str]:
    of = {"recording": "before zeros are filled in", "input": "with the zeros"}.get(before["normalize"])
    normal = [] if of is None else [f"minus their mean, divided by sqrt(variance + 1e-7), taken {of}"]
    return [_samples(before), *normal, f"layout {before['layout']} (T: samples)"]


def _samples(before: Mapping[str, Any]) -> str:
    length = "" if before["samples"] is None else f", cut or filled with zeros to {before['samples']}"
    return f"mono samples in [-1, 1] at {before['sample_rate']} Hz{length}"


def _wordpiece(before: Mapping[str, Any]) -> list[str]:
    ends = [f"{name} `{_plain(before[name])}`" for name in ("first", "last", "padding") if before[name] is not None]
    length = "as long as they come" if before["length"] is None else f"cut or padded to {before['length']}"
    case = "in lower case without accents" if before["lowercase"] else "as written"
    unknown = f"unknown words are `{_plain(before['unknown'])}`"
    return [
        f"BERT's basic tokenizer, {case}, then the longest pieces of `{before['vocabulary']}`, {unknown}",
        f"{', '.join(ends) or 'no special tokens'}; ids {length}",
    ]


def _plain(text: str) -> str:
    """`text` as it may stand between single backticks."""
    return re.sub(r"[`\s]", " ", text)
