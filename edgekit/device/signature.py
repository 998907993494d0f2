"""Whether a bundle is signed with a key that one trusts.

Signatures are those of OpenSSF's model-signing (predicate https://model_signing/signature/v1.0): a Sigstore bundle in
JSON around a DSSE envelope, whose payload lists the SHA-256 of every file. The workstation signs with that package;
a device checks with `cryptography` alone, and compares the list with the digests that the bundle's files must have.
The same signature fits the bundle as a folder and as one file, since it is over the files.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from pathlib import Path
from typing import Any, NoReturn

from edgekit.device import strict_json
from edgekit.device.opening import AGAIN, shown
from edgekit.device.opening.archive import SUFFIX
from edgekit.device.verify import Opened
from edgekit.errors import BundleError, EdgekitError

ENVELOPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"
CURVES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}
"""Elliptic curves with the hash that goes with each."""


def signature_beside(bundle: str | Path) -> Path:
    """Where a bundle's signature lies: `NAME.edgekit.sig` for `NAME.edgekit` and `NAME.edgekit.zip`.

    >>> signature_beside("a/net.edgekit.zip") == signature_beside("a/net.edgekit") == Path("a/net.edgekit.sig")
    True
    """
    path = Path(bundle)
    return path.with_name(f"{path.stem if path.suffix.lower() == SUFFIX else path.name}.sig")


def check_signature(opened: Opened, public_key: str | Path, signature: str | Path | None = None) -> str:
    """Refuse a bundle whose files are not those that the owner of a key signed.

    Digests are compared with the signed ones here; that files have these digests is checked as they are read.

    Args:
        opened: the bundle.
        public_key: a PEM file with a public key on P-256, P-384 or P-521.
        signature: the signature's file; `signature_beside` by default.

    Returns:
        The SHA-256 of the public key in PEM, as the signature itself names it.

    Raises:
        BundleError: there is no signature, it is not by this key, or it is for other files.
        EdgekitError: the key cannot be read, or `cryptography` is not installed.
    """
    path = signature_beside(opened.root) if signature is None else Path(signature)
    envelope = _envelope(path)
    key, fingerprint = _key(Path(public_key))
    payload = _verified(envelope, key, path)
    signed = _signed(strict_json.parse(payload, f"payload of {path}"), path)
    actual = opened.digests
    for name in sorted(signed.keys() | actual.keys()):
        if signed.get(name) != actual.get(name):
            problem = "is signed and missing" if name not in actual else "is not signed"
            _refuse(
                f"{name} {'changed after it was signed' if name in actual and name in signed else problem}",
                path,
                "the files that were signed, and no others",
            )
    return fingerprint


def _envelope(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(strict_json.MAX_JSON_BYTES + 1)
    except OSError as error:
        raise BundleError(
            f"no signature: {error.strerror}",
            where=shown(path),
            rule="a signed bundle, where a key is given",
            way_out="get the .sig from where the bundle was made; `edgekit bundle --sign KEY` writes it",
        ) from error
    envelope = strict_json.parse(data, shown(path))
    if envelope.get("mediaType") != ENVELOPE:
        _refuse(f"got {envelope.get('mediaType')!r}", path, ENVELOPE)
    return envelope


def _key(path: Path) -> tuple[Any, str]:
    """The public key, and its fingerprint."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise EdgekitError(
            f"signatures cannot be checked: {error}",
            where="this Python environment",
            rule="the package cryptography, beside numpy and onnxruntime",
            way_out="pip install cryptography",
        ) from error
    rule = "a PEM file with a public key on P-256, P-384 or P-521"
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise EdgekitError(
            f"cannot read the public key: {error}",
            where=str(path),
            rule=rule,
            way_out="openssl ec -in private.pem -pubout -out public.pem",
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise EdgekitError("another kind of key", where=str(path), rule=rule)
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return key, hashlib.sha256(pem).hexdigest()


def _verified(envelope: dict[str, Any], key: Any, path: Path) -> bytes:
    """The payload, whose signature is by `key` (DSSE 1.0: what is signed is the payload and its type)."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    match envelope.get("dsseEnvelope"):
        case {"payload": str(payload), "payloadType": str(kind), "signatures": [{"sig": str(signature)}]}:
            pass
        case _:
            _refuse("no envelope with one signature", path, "what `edgekit bundle --sign` or model-signing wrote")
    if kind != PAYLOAD:
        _refuse(f"a payload of {kind!r}", path, PAYLOAD)
    try:
        body, proof = base64.b64decode(payload, validate=True), base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BundleError(f"not base64: {error}", where=shown(path), rule="base64", way_out=AGAIN) from error
    signed = f"DSSEv1 {len(kind)} {kind} {len(body)} ".encode() + body
    try:
        key.verify(proof, signed, ec.ECDSA(getattr(hashes, CURVES[key.curve.name])()))
    except InvalidSignature as error:
        raise BundleError(
            "the signature is not by this key, or the signature's file was changed",
            where=shown(path),
            rule="a signature by the key that is asked for",
            way_out=AGAIN,
        ) from error
    return body


def _signed(statement: dict[str, Any], path: Path) -> dict[str, str]:
    """The digests that were signed, by file."""
    match statement:
        case {
            "_type": str(kind),
            "predicateType": str(predicate),
            "predicate": {"serialization": {"method": "files", "hash_type": "sha256"}, "resources": list(rows)},
        } if kind == STATEMENT and predicate == PREDICATE:
            pass
        case _:
            _refuse("a statement of another kind", path, f"{PREDICATE}, SHA-256 of whole files")
    digests: dict[str, str] = {}
    for row in rows:
        match row:
            case {"name": str(name), "algorithm": "sha256", "digest": str(digest)} if name not in digests:
                digests[name] = digest
            case _:
                _refuse(f"the entry {row!r}", path, "a name that stands there once, sha256 and its digest")
    return digests


def _refuse(problem: str, path: Path, rule: str) -> NoReturn:
    raise BundleError(problem, where=shown(path), rule=rule, way_out=AGAIN)
