"""What goes wrong in other people's tools, in one line."""

from __future__ import annotations

import re

from edgekit.errors import EdgekitError


class NoFile(Exception):  # noqa: N818 - it is a row of the table, and no fault of this program
    """A quantizer made no file that runs.

    Args:
        status: `failed` or `not installed`.
        reason: what it said, or what to do.
    """

    def __init__(self, status: str, reason: str) -> None:
        self.status, self.reason = status, reason
        super().__init__(f"{status}: {reason}")


def said(error: Exception) -> str:
    """An error in one line; see `one_line`."""
    return one_line(error.problem if isinstance(error, EdgekitError) else f"{type(error).__name__}: {error}")


def one_line(text: str) -> str:
    """The first line of a text, without the machine's folders: it goes into files that are published.

    >>> one_line("RuntimeError: /home/someone/model.onnx: no such luck")
    'RuntimeError: model.onnx: no such luck'
    """
    line = next((line.strip() for line in text.splitlines() if line.strip()), "no reason was given")
    return re.sub(r"(?<![\w.])/(?:[^\s/'\":]+/)+", "", line)[:300]
