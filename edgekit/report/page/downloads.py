"""Files inside of the page: links that save a part of it, without a network and without scripts."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass

from edgekit.report.figures import figures, to_csv
from edgekit.report.saved import SavedRun
from edgekit.units import format_bytes

PLAIN_BYTES = 600_000
"""Larger files are packed, so that the page stays under its 3 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A link that saves `name`; `size` is that of the file, for people."""

    name: str
    href: str
    size: str


def downloads(run: SavedRun) -> list[Download]:
    """The report as JSON, and its tables as CSV."""
    found = [_link("report.json", "application/json", json.dumps(run.report, ensure_ascii=False).encode())]
    return found + [_link(f"{name}.csv", "text/csv", to_csv(table).encode()) for name, table in figures(run).items()]


def _link(name: str, kind: str, data: bytes) -> Download:
    if len(data) > PLAIN_BYTES:
        name, kind, data = f"{name}.gz", "application/gzip", gzip.compress(data, mtime=0)
    text = base64.b64encode(data).decode()
    return Download(name=name, href=f"data:{kind};base64,{text}", size=format_bytes(len(data)))
