"""CSV files: a column with paths of images, a text or columns of numbers, and a column with the label."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.data.arrays import TARGET_KEYS
from edgekit.data.images import decoded, is_image
from edgekit.data.labels import numbered
from edgekit.data.source import Image, Text
from edgekit.errors import DataError, did_you_mean

SUFFIXES = (".csv", ".tsv")
OPTIONS = ("label", "image", "text", "features")
SEPARATORS = ",;\t"


class Table:
    """Rows of a CSV file with a header; items are (inputs, target), or inputs alone where there is no label.

    Inputs are an image, a text or the numbers of a row as float32 [columns]. Labels that are words are classes, in the
    order of the alphabet; whole numbers are the numbers of classes; other numbers are float32 quantities.

    Args:
        path: the file; paths of images in it start from its folder.
        columns: for the options of a reference: `label` (empty for none; without it a column that is called label,
            target or y), `image` (without it a column whose first value has an image's suffix), `text` (a column that a
            tokenizer reads), `features` (columns of numbers with commas between them; without it all others).
        image: makes an input of an image.
        text: makes inputs of a text.

    Raises:
        DataError: the file cannot be read, a column is missing, or a row does not fit; the text says which line.
    """

    def __init__(
        self, path: Path, columns: Mapping[str, str], *, image: Image | None = None, text: Text | None = None
    ) -> None:
        self.path = path
        self._image, self._text = image, text
        header, self._rows, self._lines = _read(path)
        self._column = {name: index for index, name in enumerate(header)}
        label = self._label_column(columns.get("label"))
        self._read_labels(label)
        self._inputs: Any = self._choose(columns, [name for name in header if name != label])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        kind, column = self._inputs
        if kind == "features":
            inputs: Any = self._numbers[index]
        elif kind == "text":
            inputs = self._text(self._rows[index][column])  # type: ignore[misc]  # _choose has seen to it
        else:
            inputs = self._picture(self._rows[index][column], index)
        return inputs if self.target is None else (inputs, self.target[index])

    def _picture(self, name: str, index: int) -> np.ndarray:
        where = f"{self.path}, line {self._lines[index]}"
        try:
            content = (self.path.parent / name).read_bytes()
        except OSError as error:
            raise DataError(
                f"cannot read {name}: {error.strerror}",
                where=where,
                rule="paths of images start from the file's folder",
                way_out="mend the path, or move the file to where its paths start",
            ) from error
        assert self._image is not None
        picture: np.ndarray = self._image(decoded(content, name, where))[0]
        return picture

    def _label_column(self, asked: str | None) -> str | None:
        if asked is not None:
            return self._known(asked, "label") if asked else None
        found = next((key for key in TARGET_KEYS if key in self._column), None)
        if found is None:
            raise DataError(
                f"the columns are {', '.join(self._column)}",
                where=str(self.path),
                rule="a column with the label",
                way_out=f"name it: {self.path.name}?label=COLUMN (or ?label= for data without labels)",
            )
        return found

    def _known(self, name: str, option: str) -> str:
        if name not in self._column:
            shown = ", ".join(self._column)
            raise DataError(
                f"no column {name!r}",
                where=f"{self.path}?{option}={name}",
                rule=f"one of {shown}",
                way_out=did_you_mean(name, self._column, "check the file's first line"),
            )
        return name

    def _read_labels(self, column: str | None) -> None:
        self.target: Any = None
        if column is None:
            return
        values = [row[self._column[column]].strip() for row in self._rows]
        if "" in values:
            raise DataError(
                f"no {column}",
                where=f"{self.path}, line {self._lines[values.index('')]}",
                rule="a label in each row",
                way_out="remove the row or give it a label",
            )
        try:
            self.target = self.labels = [int(value) for value in values]
        except ValueError:
            try:
                self.target = np.array([float(value) for value in values], np.float32)
            except ValueError:
                self.labels, self.classes = numbered(values)
                self.target = self.labels

    def _choose(self, columns: Mapping[str, str], others: Sequence[str]) -> tuple[str, int]:
        """What the inputs are, and in which column."""
        if "text" in columns:
            if self._text is None:
                raise DataError(
                    "a text, but nothing says how the model reads it",
                    where=f"{self.path}?text={columns['text']}",
                    rule="a model that brings its tokenizer: hf:PATH",
                    way_out="or tokenize beforehand and give an .npz with input_ids, attention_mask and y",
                )
            return "text", self._column[self._known(columns["text"], "text")]
        image = columns.get("image")
        if image is None and "features" not in columns:
            image = next((name for name in others if is_image(self._rows[0][self._column[name]])), None)
        if image is not None:
            if self._image is None:
                raise no_preprocessing(str(self.path))
            return "image", self._column[self._known(image, "image")]
        named = (
            [self._known(name, "features") for name in columns["features"].split(",")]
            if "features" in columns
            else others
        )
        self.features = list(named)
        self._numbers = self._as_numbers(self.features)
        return "features", -1

    def _as_numbers(self, names: Sequence[str]) -> np.ndarray:
        if not names:
            raise DataError("no column but the label", where=str(self.path), rule="a column for the inputs")
        numbers = np.empty((len(self._rows), len(names)), np.float32)
        for row, values in enumerate(self._rows):
            for at, name in enumerate(names):
                value = values[self._column[name]]
                try:
                    numbers[row, at] = float(value)
                except ValueError as error:
                    hint = f"?text={name}" if self._text is not None else f"?features={','.join(names[:2])}"
                    raise DataError(
                        f"{name} is {value!r}",
                        where=f"{self.path}, line {self._lines[row]}",
                        rule="numbers in all columns but the label's, or a column with paths of images or a text",
                        way_out=f"name the columns that are inputs, as {self.path.name}{hint}",
                    ) from error
        return numbers


def no_preprocessing(where: str) -> DataError:
    """For images where nothing says how they become inputs."""
    return DataError(
        "images, but nothing says how the model takes them",
        where=where,
        rule="image_size, mean and std as in training",
        way_out="set image_size, mean and std in edgekit.toml (--image-size, --mean, --std)",
    )


def _read(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, rows, and the line on which each row ends."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read: {getattr(error, 'strerror', None) or error}", where=str(path), rule="a CSV file in UTF-8"
        ) from error
    first = text.partition("\n")[0]
    separator = max(SEPARATORS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows, lines = [], []
    try:
        header = [name.strip() for name in next(reader, [])]
        for row in reader:
            if row:
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"cannot read: {error}", where=f"{path}, line {reader.line_num}", rule="a CSV file") from error
    if len(set(header)) < len(header) or not header or not rows:
        raise DataError(
            f"the first line is {first[:80]!r}, and {len(rows)} rows follow",
            where=str(path),
            rule="a header that names each column once, and at least one row",
        )
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise DataError(
                f"{len(row)} values", where=f"{path}, line {line}", rule=f"{len(header)} values, as the header names"
            )
    return header, rows, lines
