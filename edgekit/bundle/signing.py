"""Signing a bundle with a key, by OpenSSF's model-signing."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from edgekit.device.signature import signature_beside
from edgekit.device.verify import Opened, open_bundle
from edgekit.errors import EdgekitError
from edgekit.store import writing


def sign_bundle(path: Path, private_key: Path) -> Path:
    """Sign the files of a bundle; `model_signing verify` takes the signature as well as `edgekit verify`.

    The files are signed as they lie unpacked, so one signature fits the folder and the zip.

    Args:
        path: the bundle, every digest of which is checked.
        private_key: a PEM file with a private key on P-256, P-384 or P-521, without a password.

    Returns:
        The signature, `NAME.edgekit.sig` beside the bundle.

    Raises:
        BundleError: the bundle is not whole.
        EdgekitError: the key cannot be used, or model-signing is not installed.
        StoreError: the signature cannot be written.
    """
    opened = open_bundle(path)
    opened.check_digests()
    config = _config(private_key)
    place = signature_beside(path)
    with writing(place), tempfile.TemporaryDirectory(prefix="edgekit-sign-") as temporary:
        # What is signed is what was checked, whatever becomes of the original meanwhile.
        folder, made = Path(temporary, place.stem), Path(temporary, "signature")
        _unpack(opened, folder)
        config.sign(folder, made)
        place.write_bytes(made.read_bytes())
    return place


def _config(private_key: Path) -> Any:
    try:
        from model_signing import signing
    except ImportError as error:
        raise EdgekitError(
            f"bundles cannot be signed: {error}",
            where="this Python environment",
            rule="the package model-signing",
            way_out="pip install 'edgekit[signing]'",
        ) from error
    try:
        config: Any = signing.Config
        return config().use_elliptic_key_signer(private_key=private_key)
    except (OSError, TypeError, ValueError, AttributeError) as error:
        # TypeError: the key has a password; AttributeError: it is no elliptic curve's.
        raise EdgekitError(
            f"cannot sign with this key: {error}",
            where=str(private_key),
            rule="a PEM file with a private key on P-256, P-384 or P-521, without a password",
            way_out="openssl ecparam -name prime256v1 -genkey -noout -out private.pem",
        ) from error


def _unpack(opened: Opened, folder: Path) -> None:
    for name in opened.digests:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(opened.read(name))
