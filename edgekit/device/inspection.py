"""What is in a bundle, and whether it is whole, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.device.onnx_scan import scan
from edgekit.device.verify import open_bundle


def inspect(path: str | Path) -> dict[str, Any]:
    """Everything a person wants to know about a bundle, JSON-ready.

    Keys beside those of `edgekit/bundle.json` (`name`, `io`, `labels`, `metrics`, `provenance`, ...): `path`; `digest`,
    the bundle's identity; `whole`, whether every file has its SHA-256; `changed`, those that have not; `size_bytes` of
    all files; and in each variant `size_bytes` and `graph` (operators with counts, operator sets, IR version), or None
    where the file has changed.

    Raises:
        BundleError: not a bundle, or one that is not even whole in its names and sizes.
    """
    opened = open_bundle(path)
    manifest = opened.manifest
    changed = [name for name, entry in manifest.files.items() if not opened.matches(name, entry)]
    about = manifest.to_dict()
    about["variants"] = [
        {
            **variant.to_dict(),
            "size_bytes": manifest.files[variant.file].size,
            "graph": None if variant.file in changed else scan(opened.read(variant.file), variant.file).to_dict(),
        }
        for variant in manifest.variants
    ]
    return {
        "path": str(opened.root),
        "digest": opened.sha256,
        "whole": not changed,
        "changed": changed,
        "size_bytes": sum(entry.size for entry in manifest.files.values()),
        **about,
    }
