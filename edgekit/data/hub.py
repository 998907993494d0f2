"""Data sets of Hugging Face's `datasets`, out of a local folder or file."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.data.arrays import TARGET_KEYS, as_input
from edgekit.data.labels import numbered
from edgekit.data.source import Image, Text
from edgekit.data.table import no_preprocessing
from edgekit.errors import DataError, did_you_mean

OPTIONS = ("split", "label", "image", "text", "features")
RULE = "a folder from save_to_disk, or one with parquet, CSV or JSON files or folders of images"


class HubData:
    """Rows of a data set; items are (inputs, target), or inputs alone where there is no label.

    Inputs are a column of images, a text column (for a model with a tokenizer), or columns of numbers and lists of
    numbers: one is passed as it is, several by name. Labels of type ClassLabel bring their names along; words are
    classes in the order of the alphabet.

    Args:
        reference: the folder or file, for messages.
        rows: a `datasets.Dataset`.
        options: `label`, `image`, `text` and `features` name columns (features with commas between them).
        image: makes an input of an image.
        text: makes inputs of a text.

    Raises:
        DataError: a column is missing, or nothing says how it becomes an input.
    """

    def __init__(
        self,
        reference: str,
        rows: Any,
        options: Mapping[str, str],
        *,
        image: Image | None = None,
        text: Text | None = None,
    ) -> None:
        self.reference = reference
        self._image, self._text = image, text
        self.rows = rows
        for option in ("label", "image", "text"):
            if options.get(option):
                self._known(options[option], option)
        label = options.get("label")
        if label is None:
            label = next((key for key in TARGET_KEYS if key in rows.column_names), "")
        self._read_labels(label)
        self._kind, self.features = self._choose(options, label)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        row = self.rows[int(index)]
        if self._kind == "image":
            assert self._image is not None
            picture = row[self.features[0]]
            inputs: Any = self._image(np.asarray(picture.convert("RGB")))[0]
        elif self._kind == "text":
            assert self._text is not None
            inputs = self._text(row[self.features[0]])
        else:
            arrays = {name: as_input(np.asarray(row[name]), self.reference, name) for name in self.features}
            inputs = next(iter(arrays.values())) if len(arrays) == 1 else arrays
        return inputs if self.target is None else (inputs, self.target[index])

    def _known(self, name: str, option: str) -> str:
        names = list(self.rows.column_names)
        if name not in names:
            raise DataError(
                f"no column {name!r}",
                where=f"{self.reference}?{option}={name}",
                rule=f"one of {', '.join(names)}",
                way_out=did_you_mean(name, names, "check the columns"),
            )
        return name

    def _read_labels(self, column: str) -> None:
        self.target: Any = None
        if not column:
            return
        values = list(self.rows[column])
        names = getattr(self.rows.features[column], "names", None)
        if names:
            self.classes = list(names)
        if all(isinstance(value, str) for value in values):
            self.labels, self.classes = numbered(values)
            self.target = self.labels
        elif all(isinstance(value, int) for value in values):
            self.target = self.labels = values
        else:
            self.target = as_input(np.asarray(values), self.reference, column)

    def _choose(self, options: Mapping[str, str], label: str) -> tuple[str, list[str]]:
        others = [name for name in self.rows.column_names if name != label]
        kinds = {name: type(self.rows.features[name]).__name__ for name in others}
        image = options.get("image") or next((name for name in others if kinds[name] == "Image"), None)
        if image is not None and "features" not in options and "text" not in options:
            if self._image is None:
                raise no_preprocessing(self.reference)
            return "image", [image]
        words = [
            name for name in others if getattr(self.rows.features[name], "dtype", "") in ("string", "large_string")
        ]
        text = options.get("text") or (words[0] if len(words) == 1 and self._text is not None else None)
        if text is not None:
            if self._text is None:
                raise DataError(
                    "a text, but nothing says how the model reads it",
                    where=f"{self.reference}?text={text}",
                    rule="a model that brings its tokenizer: hf:PATH",
                    way_out="or tokenize beforehand: columns input_ids and attention_mask",
                )
            return "text", [text]
        if "features" in options:
            return "features", [self._known(name, "features") for name in options["features"].split(",")]
        numbers = [name for name in others if name not in words]
        if not numbers:
            hint = f"?text={words[0]}" if words else ""
            raise DataError(
                f"the columns are {', '.join(others) or 'none'}",
                where=self.reference,
                rule="a column of images, a text for a model with a tokenizer, or numbers",
                way_out=f"name the column: hf:PATH{hint or '?image=COLUMN'}",
            )
        return "features", numbers


def from_hub(
    target: str, options: Mapping[str, str], *, image: Image | None = None, text: Text | None = None
) -> HubData:
    """A data set of `datasets` in a local folder or file; nothing is downloaded.

    Raises:
        DataError: `datasets` is not installed, there is no such folder, or it holds no data set.
    """
    reference, path = f"hf:{target}", Path(target).expanduser()
    if not path.exists():
        near = did_you_mean(path.name, [each.name for each in path.parent.glob("*")] if path.parent.is_dir() else [])
        raise DataError(
            f"no folder {path}",
            where=reference,
            rule=f"{RULE}; nothing is downloaded",
            way_out=near or f"write it once in Python: datasets.load_dataset({target!r}).save_to_disk('data')",
        )
    try:
        library = importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(
            f"cannot import datasets: {error}",
            where=reference,
            rule="Hugging Face's data sets need the library datasets",
            way_out="pip install 'edgekit[hf]'",
        ) from error
    try:
        loaded = _loaded(library, path)
    except Exception as error:  # the library raises what its readers raise
        raise DataError(
            f"cannot load: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}", where=reference, rule=RULE
        ) from error
    return HubData(reference, _split(loaded, options.get("split"), reference), options, image=image, text=text)


def _loaded(library: Any, path: Path) -> Any:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return library.load_from_disk(str(path))
    kinds = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json"}
    if path.is_file():
        return library.load_dataset(kinds.get(path.suffix, "parquet"), data_files=str(path))
    return library.load_dataset(str(path))


def _split(loaded: Any, asked: str | None, reference: str) -> Any:
    if not isinstance(loaded, Mapping):
        if asked is None:
            return loaded
        raise DataError(f"no splits, but {asked!r} was asked for", where=reference, rule="a data set with splits")
    if asked is None and len(loaded) == 1:
        return next(iter(loaded.values()))
    if asked not in loaded:
        raise DataError(
            f"no split {asked!r}" if asked else "no split is named",
            where=reference,
            rule=f"one of {', '.join(loaded)}",
            way_out=did_you_mean(asked, loaded, f"name it: {reference}?split={next(iter(loaded), 'train')}"),
        )
    return loaded[asked]
