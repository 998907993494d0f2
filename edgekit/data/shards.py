"""WebDataset shards: tar files in which files of one name up to the first dot are one sample.

The tars are indexed once (where in which file each part lies), so that samples can be read by index, in any order and
by several processes: splits that hold out calibration data need that, and a stream cannot give it.
"""

from __future__ import annotations

import io
import itertools
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from edgekit.data.arrays import TARGET_KEYS, as_input
from edgekit.data.images import SUFFIXES, decoded
from edgekit.data.labels import numbered
from edgekit.data.source import Image, Text
from edgekit.data.table import no_preprocessing
from edgekit.errors import DataError, did_you_mean

OPTIONS = ("label", "input")
_BRACES = re.compile(r"\{([^{}]*)\}")
_LABELS = ("cls", "json")


@dataclass(frozen=True, slots=True)
class _Part:
    """Where the bytes of a file in a tar lie."""

    shard: Path
    offset: int
    size: int

    def read(self) -> bytes:
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(slots=True)
class _Sample:
    key: str
    shard: Path
    parts: dict[str, _Part] = field(default_factory=dict)


class Shards:
    """Samples in WebDataset shards; items are (inputs, target), or inputs alone where there are no labels.

    Inputs are an image (jpg, png, ...), an array (npy) or a text (txt, with a tokenizer). Labels are whole numbers in
    `cls` files, or an entry of `json` files: a number, or a word, which is a class in the order of the alphabet.

    Args:
        pattern: `data.tar`, or several: `shards-{000..009}.tar`, `{train,more}.tar`.
        options: `label`: the entry of the json files (without it `label`, `target` or `y`); `input`: the extension of
            the inputs, where a sample has several.
        image: makes an input of an image.
        text: makes inputs of a text.

    Raises:
        DataError: a shard is missing, compressed or broken, or a sample lacks its inputs or its label.
    """

    def __init__(
        self, pattern: str, options: Mapping[str, str], *, image: Image | None = None, text: Text | None = None
    ) -> None:
        self.pattern = pattern
        self._image, self._text = image, text
        self._samples = [sample for path in shards_of(pattern) for sample in _indexed(path)]
        if not self._samples:
            raise DataError("no samples", where=pattern, rule="files such as 000001.jpg and 000001.cls in tars")
        self._input = self._input_extension(options.get("input"))
        parts = self._samples[0].parts
        self._label = next((each for kind in _LABELS for each in parts if _kind(each) == kind), None)
        for sample in self._samples:
            for needed in (self._input, *([self._label] if self._label else [])):
                if needed not in sample.parts:
                    raise DataError(
                        f"{sample.key} has {', '.join(sample.parts)}",
                        where=str(sample.shard),
                        rule=f"a .{needed} in each sample, as in the first one",
                        way_out="write the shards again, or leave the sample out",
                    )
        self._read_labels(options.get("label"))

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Any:
        sample = self._samples[index]
        content, name = sample.parts[self._input].read(), f"{sample.key}.{self._input}"
        if _kind(self._input) == "npy":
            inputs: Any = _array(content, name, sample.shard)
        elif _kind(self._input) == "txt":
            assert self._text is not None
            inputs = self._text(content.decode("utf-8", "replace"))
        else:
            assert self._image is not None
            inputs = self._image(decoded(content, name, str(sample.shard)))[0]
        return inputs if self.target is None else (inputs, self.target[index])

    def _input_extension(self, asked: str | None) -> str:
        there = self._samples[0].parts
        known = [each for each in there if f".{_kind(each)}" in SUFFIXES or _kind(each) in ("npy", "txt")]
        if asked is not None and asked not in known:
            raise DataError(
                f"no .{asked} that can be an input in {self._samples[0].key}",
                where=f"{self.pattern}?input={asked}",
                rule=f"one of {', '.join(known) or 'jpg, png, npy, txt'}",
                way_out=did_you_mean(asked, known),
            )
        found = asked or next((each for each in known if _kind(each) != "txt" or self._text is not None), None)
        if found is None:
            raise DataError(
                f"{self._samples[0].key} has {', '.join(there)}",
                where=str(self._samples[0].shard),
                rule="an image (jpg, png, webp), an array (npy), or a text (txt) for a model with a tokenizer",
            )
        if f".{_kind(found)}" in SUFFIXES and self._image is None:
            raise no_preprocessing(self.pattern)
        return found

    def _read_labels(self, key: str | None) -> None:
        self.target: Any = None
        if self._label is None:
            if key is not None:
                raise DataError(
                    f"no .json in {self._samples[0].key}", where=f"{self.pattern}?label={key}", rule="labels in json"
                )
            return
        values = [self._label_of(sample, key) for sample in self._samples]
        if all(isinstance(value, int) for value in values):
            self.target = self.labels = values
        elif all(isinstance(value, str) for value in values):
            self.labels, self.classes = numbered(values)
            self.target = self.labels
        else:
            self.target = np.array(values, np.float32)

    def _label_of(self, sample: _Sample, key: str | None) -> Any:
        assert self._label is not None
        content = sample.parts[self._label].read()
        place = f"{sample.key}.{self._label} in {sample.shard}"
        if _kind(self._label) == "cls":
            try:
                return int(content)
            except ValueError as error:
                raise DataError(f"got {content[:20]!r}", where=place, rule="the number of a class") from error
        try:
            entries = json.loads(content)
        except ValueError as error:
            raise DataError(f"no JSON: {error}", where=place, rule="an object with the label") from error
        known = entries if isinstance(entries, dict) else {}
        name = key or next((each for each in TARGET_KEYS if each in known), "label")
        value = known.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise DataError(
                f"{name!r} is {value!r}" if name in known else f"no {name!r}",
                where=place,
                rule="a number or a word as the label",
                way_out=did_you_mean(name, known, f"name the entry: ?label=ENTRY, one of {', '.join(known)}"),
            )
        return value


def _kind(extension: str) -> str:
    """What a file holds: `npy` of `left.npy`."""
    return extension.rpartition(".")[2]


def is_pattern(target: str) -> bool:
    """Whether a reference names shards."""
    return re.search(r"\.(tar|tar\.gz|tgz|tar\.bz2|tar\.xz|tar\.zst)$", target) is not None


def shards_of(pattern: str) -> list[Path]:
    """The files that a pattern names, in its order.

    Raises:
        DataError: one is missing or compressed.

    >>> expanded("a-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar']
    """
    paths = [Path(name).expanduser() for name in expanded(pattern)]
    for path in paths:
        if path.suffix != ".tar":
            raise DataError(
                f"{path.name} is compressed",
                where=pattern,
                rule="plain .tar, in which a sample can be read without what stands before it",
                way_out="unpack it once: gunzip (or bunzip2, unxz, zstd -d)",
            )
        if not path.is_file():
            raise DataError(
                f"no file {path}", where=pattern, rule="existing shards", way_out="check the numbers in the braces"
            )
    return paths


def expanded(pattern: str) -> list[str]:
    """Names for braces as shells write them: `{000..009}` and `{a,b}`.

    >>> expanded("{a,b}.tar")
    ['a.tar', 'b.tar']
    """
    parts = _BRACES.split(pattern)
    choices = [[part] if index % 2 == 0 else list(_choices(part)) for index, part in enumerate(parts)]
    return ["".join(each) for each in itertools.product(*choices)]


def _choices(inside: str) -> Iterator[str]:
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
    if numbers is None:
        yield from inside.split(",")
        return
    first, last = numbers[1], numbers[2]
    for number in range(int(first), int(last) + 1):
        yield str(number).zfill(len(first))


def _indexed(path: Path) -> list[_Sample]:
    found: dict[str, _Sample] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                stem, dot, extension = name.name.partition(".")
                if member.isreg() and not member.issparse() and dot and stem:
                    key = str(name.with_name(stem))
                    parts = found.setdefault(key, _Sample(key, path)).parts
                    parts[extension.lower()] = _Part(path, member.offset_data, member.size)
    except (OSError, tarfile.TarError) as error:
        raise DataError(
            f"cannot read: {error}", where=str(path), rule="a tar", way_out="check that the download is whole"
        ) from error
    return list(found.values())


def _array(content: bytes, name: str, shard: Path) -> np.ndarray:
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"cannot read {name}: {error}", where=str(shard), rule="an .npy of numbers") from error
    return as_input(array, str(shard), name)
