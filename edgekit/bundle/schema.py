"""The JSON Schema of `edgekit/bundle.json`, for readers in other languages."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


def bundle_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) as a dict.

    >>> bundle_schema()["properties"]["format"]["const"]
    'edgekit-bundle'
    """
    schema: dict[str, Any] = json.loads((files("edgekit.bundle") / "bundle.schema.json").read_text(encoding="utf-8"))
    return schema
