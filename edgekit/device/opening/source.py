"""What a folder and a file have in common when they hold a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Protocol, Self

from edgekit.errors import BundleError

AGAIN = "get the bundle again from where it was made; do not run this one"


class Reader(Protocol):
    """An open file of a bundle."""

    def __enter__(self) -> Self:
        """Itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Close it."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


class Source(Protocol):
    """A bundle's files by their names, whose forms have been checked and whose contents have not."""

    @property
    def path(self) -> Path:
        """The folder or the file."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """The bytes of each file."""

    def open(self, name: str) -> Reader:
        """One of them, for reading.

        Raises:
            BundleError: it cannot be read, or is no longer what it was.
        """


def refuse(problem: str, where: Path | str, rule: str) -> NoReturn:
    """Say why a bundle is not to be used.

    Raises:
        BundleError: always.
    """
    raise BundleError(problem, where=shown(where), rule=rule, way_out=AGAIN)


def shown(path: Path | str) -> str:
    """`path` as text that can be printed: a file's name may be any bytes."""
    return str(path).encode("utf-8", "backslashreplace").decode()
