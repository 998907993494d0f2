"""`edgekit verify`: whether a bundle may be trusted, and what speaks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli import show
from edgekit.cli.options import AsJson


def verify(
    path: Annotated[Path, typer.Argument(help="A bundle: its folder, or NAME.edgekit.zip.")],
    key: Annotated[
        Path | None,
        typer.Option(
            help="A public key (PEM, P-256, P-384 or P-521): the bundle must be signed with its private key. Without "
            "it, no signature is looked at: the files fit together, whoever made them."
        ),
    ] = None,
    signature: Annotated[
        Path | None,
        typer.Option(help="Where the signature lies.  \\[default: NAME.edgekit.sig beside the bundle]"),
    ] = None,
    json: AsJson = False,
) -> None:
    """Check a bundle from its signature down to its nodes, without running it; the exit code is 4 at the first fault.

    Names, kinds and digests of files, the manifest, golden vectors, what ONNX files could reach and what they declare,
    and ONNX's own rules. In an application: edgekit.device.load(PATH, public_key=KEY)

    Example: edgekit verify resnet20.edgekit.zip --key public.pem
    """
    from edgekit.bundle import verify_bundle
    from edgekit.errors import EdgekitError

    if signature is not None and key is None:
        raise EdgekitError(
            "a signature, but no key",
            where="--signature",
            rule="a signature says nothing without a key",
            way_out="--key",
        )
    found = verify_bundle(path, public_key=key, signature=signature)
    if json:
        show.data(found.to_dict())
        return
    nodes = ", ".join(f"{name} {count} nodes" for name, count in found.operators.items())
    show.facts(
        str(path),
        {
            "digest": found.digest,
            "files": f"{found.files}, each as listed",
            "variants": nodes,
            "golden": f"{found.golden_samples} samples",
            "signature": "not looked at: no --key" if found.signed_by is None else f"by the key {found.signed_by}",
        },
    )
