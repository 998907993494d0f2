"""Everything about a bundle that can be known without running it, on a machine that has the onnx package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.device.golden import read_golden
from edgekit.device.manifest import GOLDEN_FILE
from edgekit.device.onnx_scan import scan
from edgekit.device.signature import check_signature
from edgekit.device.verify import Opened, open_bundle
from edgekit.errors import BundleError


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A bundle that passed.

    Attributes:
        path: the folder or the file.
        digest: the bundle's identity, the SHA-256 of `edgekit/bundle.json`.
        files: how many files have their digests.
        operators: of each variant, how many nodes were looked at.
        golden_samples: how many were read.
        signed_by: SHA-256 of the public key whose signature matches; None where none was asked for.
    """

    path: str
    digest: str
    files: int
    operators: Mapping[str, int]
    golden_samples: int
    signed_by: str | None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "path": self.path,
            "digest": self.digest,
            "files": self.files,
            "operators": dict(self.operators),
            "golden_samples": self.golden_samples,
            "signed_by": self.signed_by,
        }


def verify_bundle(
    path: str | Path, *, public_key: str | Path | None = None, signature: str | Path | None = None
) -> Verified:
    """Check a bundle from its signature down to its nodes; nothing in it is run.

    Args:
        path: the folder or the file.
        public_key: a PEM file; with it, the bundle must be signed with that key.
        signature: where the signature lies; beside the bundle by default.

    Raises:
        BundleError: the first fault that was found.
        EdgekitError: the key is none, or what reads it is not installed.
    """
    opened = open_bundle(path)
    signer = None if public_key is None else check_signature(opened, public_key, signature)
    opened.check_digests()
    operators = {variant.name: _check_variant(opened, variant.file) for variant in opened.manifest.variants}
    samples = opened.manifest.golden_samples
    if samples:
        read_golden(opened.read(GOLDEN_FILE), opened.manifest.spec, samples)
    return Verified(
        path=str(opened.root),
        digest=opened.sha256,
        files=len(opened.digests),
        operators=operators,
        golden_samples=samples,
        signed_by=signer,
    )


def check_onnx(data: bytes, where: str) -> None:
    """Hold a model that was scanned against ONNX's own rules, where the onnx package is installed.

    Raises:
        BundleError: a node, a type or a graph is not what the operator sets say.
    """
    try:
        from onnx import checker
    except ImportError:
        return
    try:
        checker.check_model(data)
    except Exception as error:
        raise BundleError(
            f"onnx.checker refuses the model: {(str(error).splitlines() or [''])[0]}",
            where=where,
            rule="nodes, types and graphs as the operator sets say",
            way_out="export the model with edgekit, or update the onnx package",
        ) from error


def _check_variant(opened: Opened, file: str) -> int:
    data = opened.read(file)
    found = scan(data, file)
    check_onnx(data, file)
    return sum(found.operators.values())
