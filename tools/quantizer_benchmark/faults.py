"""What goes wrong in other people's tools, in one line."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from edgekit.errors import EdgekitError


def said(error: Exception) -> str:
    """An error in one line, without the machine's folders: it goes into files that are published."""
    text = error.problem if isinstance(error, EdgekitError) else f"{type(error).__name__}: {error}"
    line = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return re.sub(r"(?<![\w.])/(?:[^\s/'\":]+/)+", "", line)[:300]


@contextmanager
def aside() -> Iterator[None]:
    """Other tools print to stderr, log and warn nowhere: stdout holds the table, and advice is for their callers."""
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
