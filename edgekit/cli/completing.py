"""What a shell offers after Tab. Nothing here loads torch, and nothing of the user's is run."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit.device.session import PROVIDERS

TASKS = ("classification", "multilabel", "regression", "reconstruction", "imitation")
LIBRARIES = ("timm:", "torchvision:", "hf:")
TARGETS = ("x86-vnni", "x86-avx2", "arm64", "cuda", "tensorrt", "size")
DATA = (".npz", ".csv", ".tsv", ".tar", ".zip")
"""How files end that hold data."""
LARGEST_FILE = 1_000_000
"""Bytes of a Python file that is read for the names of its functions."""
INSTRUCTION = "_EDGEKIT_COMPLETE"
"""The environment variable by which a shell asks."""
ONE_LINE = "10000"
"""Columns of a terminal that no explanation fills."""


def functions(incomplete: str) -> list[str]:
    """`file.py:function` for what begins so: files and folders first, then the file's functions.

    Functions are those that can be called without arguments, read off the source.
    """
    path, colon, _ = incomplete.partition(":")
    return [f"{path}:{name}" for name in _functions_of(Path(path))] if colon else _python_files(path)


def models(incomplete: str) -> list[str]:
    """A function, or the libraries that have models."""
    return [*(name for name in LIBRARIES if incomplete and name.startswith(incomplete)), *functions(incomplete)]


def data(incomplete: str) -> list[str]:
    """A function, or a file or folder that holds data."""
    return [*functions(incomplete), *(_data_files(incomplete) if ":" not in incomplete else ())]


def tasks(incomplete: str) -> list[str]:
    """Names of tasks, or a function that returns one."""
    return [*TASKS, *functions(incomplete)]


def targets(incomplete: str) -> list[str]:
    """Targets with commas between them, each once."""
    return _listed(incomplete, TARGETS)


def providers(incomplete: str) -> list[str]:
    """Execution providers with commas between them, each once."""
    return _listed(incomplete, tuple(PROVIDERS))


@contextmanager
def answering() -> Iterator[None]:
    """Within this a shell that asks for completions is understood, and understands the answer.

    Each offer is a line: what explains it is not wrapped, since fish would take its second line for another offer.
    """
    asked, before = INSTRUCTION in os.environ, os.environ.get("COLUMNS")
    if asked:
        os.environ["COLUMNS"] = ONE_LINE
    try:
        with joined_words():
            yield
    finally:
        if asked:
            os.environ.pop("COLUMNS")
            os.environ.update({} if before is None else {"COLUMNS": before})


@contextmanager
def joined_words() -> Iterator[None]:
    """Within this, words with a colon are whole, as other shells leave them.

    For bash a colon is a word of its own: it hands over `net.py : mo` and puts what comes back in the place of `mo`.
    """
    if os.environ.get(INSTRUCTION) != "complete_bash":
        yield
        return
    before = os.environ.get("COMP_WORDS", ""), os.environ.get("COMP_CWORD", "0")
    words, at = _joined(before[0].split("\n") if "\n" in before[0] else before[0].split(), int(before[1]))
    os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = "\n".join(words), str(at)
    head, colon, _ = (words[at] if at < len(words) else "").rpartition(":")
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            yield
    finally:
        os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = before
        sys.stdout.write("".join(line.removeprefix(f"{head}{colon}") for line in said.getvalue().splitlines(True)))


def _joined(words: list[str], at: int) -> tuple[list[str], int]:
    """The words with those around a colon as one, and which of them the cursor is at."""
    made: list[str] = []
    place = 0
    for index, word in enumerate(words):
        if made and (word == ":" or made[-1].endswith(":")):
            made[-1] += word
        else:
            made.append(word)
        if index == at:
            place = len(made) - 1
    return made, place if at < len(words) else len(made)


def _python_files(start: str) -> list[str]:
    folder, _, name = start.rpartition("/")
    prefix = f"{folder}/" if "/" in start else ""
    try:
        found = sorted(Path(prefix or ".").iterdir())
    except OSError:
        return []
    shown = [each for each in found if each.name.startswith(name) and (name or not each.name.startswith("."))]
    files = [f"{prefix}{each.name}:" for each in shown if each.suffix == ".py"]
    return [*files, *(f"{prefix}{each.name}/" for each in shown if each.is_dir())]


def _data_files(start: str) -> list[str]:
    folder, _, name = start.rpartition("/")
    prefix = f"{folder}/" if "/" in start else ""
    try:
        found = sorted(each.name for each in Path(prefix or ".").iterdir())
    except OSError:
        return []
    return [
        f"{prefix}{each}"
        for each in found
        if each.startswith(name) and (name or not each.startswith(".")) and each.endswith(DATA)
    ]


def _functions_of(path: Path) -> list[str]:
    try:
        if path.stat().st_size > LARGEST_FILE:
            return []
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    found = [each for each in tree.body if isinstance(each, ast.FunctionDef) and not each.name.startswith("_")]
    return [each.name for each in found if len(each.args.args) <= len(each.args.defaults)]


def _listed(incomplete: str, names: tuple[str, ...]) -> list[str]:
    before, comma, _ = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in names if name not in before.split(",")]
