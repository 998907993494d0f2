"""From a reference to data: which source reads it."""

from __future__ import annotations

from pathlib import Path

from edgekit.data import hub, shards, table
from edgekit.data.arrays import from_npz
from edgekit.data.images import ImageFolder
from edgekit.data.reference import split_options
from edgekit.data.source import Image, Source, Text
from edgekit.errors import DataError

DATA_RULE = (
    "a directory or zip of images, an .npz, a .csv, shards-{000..009}.tar, hf:FOLDER, torchvision:NAME?root=FOLDER, or "
    "path/to/file.py:function"
)


def read_source(reference: str, *, image: Image | None = None, text: Text | None = None) -> Source | None:
    """The data that `reference` names, where that is a file or folder; None where it is a function or torchvision's.

    Args:
        reference: a directory or zip with one folder of images per class; an `.npz`; a `.csv` or `.tsv`; a `.tar` or
            several with braces; `hf:` and a folder or file. Options stand behind a question mark.
        image: makes an input of an RGB image; needed for images.
        text: makes inputs of a text; needed for texts.

    Raises:
        DataError: the file is missing or not what it seems; nothing says how images or texts become inputs.
        WorkloadError: an option is unknown.
    """
    target = reference.partition("?")[0]
    if target.startswith("hf:"):
        target, options = split_options(reference, hub.OPTIONS)
        return hub.from_hub(target.removeprefix("hf:"), options, image=image, text=text)
    path = Path(target).expanduser()
    if path.suffix.lower() in table.SUFFIXES:
        target, options = split_options(reference, table.OPTIONS)
        return table.Table(_existing(path), options, image=image, text=text)
    if shards.is_pattern(target):
        target, options = split_options(reference, shards.OPTIONS)
        return shards.Shards(target, options, image=image, text=text)
    if path.suffix.lower() in (".npz", ".zip") or path.is_dir():
        split_options(reference, ())
        return _from_file(_existing(path), image)
    return None


def _from_file(path: Path, image: Image | None) -> Source:
    if path.suffix.lower() == ".npz":
        return from_npz(path)
    if image is None:
        raise table.no_preprocessing(str(path))
    return ImageFolder(path, image)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise DataError(
            "no such file", where=str(path), rule="an existing path", way_out="it starts from the folder you are in"
        )
    return path
