"""Files that are whole or absent: atomic writes, and stage outputs addressed by what they were made from.

A stage's output is a folder named after the digest of its key (configuration, inputs, code version). It is built under
a temporary name, synced, given its marker (`done.json`, with the SHA-256 of every file) and renamed. Whatever the
moment a process dies, a folder with its final name is whole; what lies under a temporary name is only ever a place to
resume from.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import StoreError

MARKER = "done.json"


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def key_digest(key: Mapping[str, Any]) -> str:
    """A digest of a JSON-ready key that does not depend on the order of its entries.

    >>> key_digest({"a": 1, "b": 2}) == key_digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(key, sort_keys=True, allow_nan=False).encode()).hexdigest()


def code_digest() -> str:
    """A digest of edgekit's own source: a stage made by other code is another stage."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part.

    Raises:
        StoreError: the folder cannot be written or the disk is full; what was at `path` is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            with suppress(OSError):  # What kept it from being written is what the user has to hear of.
                temporary.unlink(missing_ok=True)


def write_json(path: Path, data: object) -> None:
    """Write `data` as indented JSON, atomically; NaN and infinity are refused, since JSON has neither."""
    write_atomic(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failed write below `path` into a `StoreError` that says which and why."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot write: {error.strerror or error}",
            where=str(error.filename or path),
            rule="the folder must exist or be creatable, be writable, and have room",
            way_out="free some space or name another folder; start the same command again and it goes on",
        ) from error


@dataclass(frozen=True, slots=True)
class Store:
    """The stage outputs of a run, below `root`."""

    root: Path

    def build(self, stage: str, key: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """The folder with the output of `stage` for `key`, made by `make(folder)` unless it is there and whole.

        `make` gets a folder that may hold what an interrupted attempt at the same key left, checkpoints for instance.

        Raises:
            StoreError: the store cannot be written, or the disk is full.
        """
        name = f"{stage}-{key_digest(key)[:16]}"
        final, partial = self.root / name, self.root / f".partial-{name}"
        if is_whole(final):
            return final
        with writing(self.root):
            if final.exists():  # It has its name but fails its digests: somebody changed or lost a file.
                shutil.rmtree(final)
            partial.mkdir(parents=True, exist_ok=True)
            make(partial)
            for leftover in partial.rglob(".*.tmp"):
                leftover.unlink()
            files = sorted(path for path in partial.rglob("*") if path.is_file() and path.name != MARKER)
            for path in files:
                _sync_file(path)
            digests = {str(path.relative_to(partial)): file_sha256(path) for path in files}
            write_json(partial / MARKER, {"stage": stage, "key": dict(key), "files": digests})
            partial.replace(final)
            _sync_folder(self.root)
        return final

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store for this process; a second process is refused, since both would write the same folders.

        Raises:
            StoreError: another process holds the store, or it cannot be written.
        """
        with locking(self.root / ".lock") as is_free:
            if not is_free:
                raise StoreError(
                    "another edgekit process works in this folder",
                    where=str(self.root),
                    rule="one run at a time in one folder",
                    way_out="wait for it to end, or give this run a folder of its own with --out",
                )
            yield


@contextmanager
def locking(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Within this, no other process holds the lock of this file, which is made; False where one did before.

    The kernel holds it for as long as this process lives, so a lock is never left behind.

    Args:
        path: of the file.
        wait: until another process lets go.

    Raises:
        StoreError: the file cannot be made.
    """
    import fcntl  # Windows has none, and devices, which write files too, lock none.

    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("w")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            if wait:
                raise
            is_free = False
        else:
            is_free = True
        yield is_free


def is_whole(folder: Path) -> bool:
    """Whether `folder` is a finished stage output whose files all have the digests in its marker."""
    try:
        files: dict[str, str] = json.loads((folder / MARKER).read_text())["files"]
        return all(file_sha256(folder / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
