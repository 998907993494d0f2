"""Signatures for tests of the loaders: real keys, and everything that is not quite a signature."""

from __future__ import annotations

import base64
import json

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
HASHES = {"P-256": hashes.SHA256(), "P-384": hashes.SHA384(), "P-521": hashes.SHA512()}


def new_keys():
    """A private key on each curve."""
    return {name: ec.generate_private_key(curve) for name, curve in CURVES.items()}


def public_pem(private):
    pem, kind = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return private.public_key().public_bytes(pem, kind).decode()


def private_pem(private):
    plain, pem = serialization.NoEncryption(), serialization.Encoding.PEM
    return private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)


def again(text, private, curve="P-256", change=None):
    """The signature's text, signed again by the key's owner, saying something else."""
    envelope = json.loads(text)
    body = base64.b64decode(envelope["dsseEnvelope"]["payload"])
    if change:
        statement = json.loads(body)
        change(statement)
        body = json.dumps(statement).encode()
    kind = envelope["dsseEnvelope"]["payloadType"].encode()
    proof = private.sign(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body), ec.ECDSA(HASHES[curve]))
    envelope["dsseEnvelope"]["payload"] = base64.b64encode(body).decode()
    envelope["dsseEnvelope"]["signatures"] = [{"sig": base64.b64encode(proof).decode(), "keyid": ""}]
    return json.dumps(envelope)


def rows(statement):
    return statement["predicate"]["resources"]


STATEMENTS = {
    "another predicate": (lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"), "another kind"),
    "another type": (lambda s: s.update(_type="other"), "another kind"),
    "no predicate": (lambda s: s.pop("predicate"), "another kind"),
    "parts of files": (lambda s: s["predicate"]["serialization"].update(method="shards"), "another kind"),
    "another hash": (lambda s: s["predicate"]["serialization"].update(hash_type="blake2"), "another kind"),
    "another hash of one": (lambda s: rows(s)[0].update(algorithm="blake2"), "the entry"),
    "a file twice": (lambda s: rows(s).append(rows(s)[0]), "the entry"),
    "no object": (lambda s: rows(s).append("x"), "the entry"),
    "a file less": (lambda s: rows(s).pop(), "is not signed"),
    "a file more": (lambda s: rows(s).append({**rows(s)[0], "name": "more"}), "more is signed and missing"),
    "another digest": (lambda s: rows(s)[0].update(digest="0" * 64), "changed after it was signed"),
}
"""What the key's owner might have signed, and what is said of it."""


def in_envelope(**changes):
    return lambda envelope: envelope["dsseEnvelope"].update(changes)


def shortened(envelope):
    one = envelope["dsseEnvelope"]["signatures"][0]
    one["sig"] = base64.b64encode(base64.b64decode(one["sig"])[:-1]).decode()


ENVELOPES = {
    "another media type": (lambda e: e.update(mediaType="x"), 'got "x"|another kind'),
    "no envelope": (lambda e: e.pop("dsseEnvelope"), "no envelope"),
    "no signature in it": (in_envelope(signatures=[]), "no envelope"),
    "two signatures": (lambda e: e["dsseEnvelope"]["signatures"].append({"sig": "AAAA"}), "no envelope"),
    "another payload type": (in_envelope(payloadType="text/plain"), "a payload of"),
    "not base64": (in_envelope(payload="%%%%"), "not base64"),
    "no padding": (in_envelope(payload="e30"), "not base64"),
    "blanks in base64": (
        lambda e: e["dsseEnvelope"].update(payload=e["dsseEnvelope"]["payload"] + "    "),
        "not base64",
    ),
    "another payload": (in_envelope(payload="e30="), "not by this key"),
    "a shorter signature": (shortened, "not by this key"),
    "no DER": (in_envelope(signatures=[{"sig": "AAAA"}]), "not by this key"),
    "an empty signature": (in_envelope(signatures=[{"sig": ""}]), "not by this key"),
}
"""What a stranger might make of a signature, and what is said of it."""


def refused_cases(text, private):
    """By name: (key as PEM, text of a signature, what is said of it); the bundle is the one that was signed."""
    pem = public_pem(private)
    cases = {name: (pem, again(text, private, change=change), said) for name, (change, said) in STATEMENTS.items()}
    for name, (change, said) in ENVELOPES.items():
        envelope = json.loads(text)
        change(envelope)
        cases[name] = (pem, json.dumps(envelope), said)
    no_key = "cannot read the public key"
    others = {
        "another key": (ec.generate_private_key(CURVES["P-256"]), "not by this key"),
        "another curve": (ec.generate_private_key(CURVES["P-384"]), "not by this key"),
        "a curve of coins": (ec.generate_private_key(ec.SECP256K1()), no_key),
        "an Ed25519 key": (ed25519.Ed25519PrivateKey.generate(), no_key),
    }
    cases |= {name: (public_pem(other), text, said) for name, (other, said) in others.items()}
    cases["no key at all"] = ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", text, no_key)
    cases["no JSON"] = (pem, "{", "not JSON|malformed|ends|expected")
    return cases


CASES = (
    *STATEMENTS,
    *ENVELOPES,
    "another key",
    "another curve",
    "a curve of coins",
    "an Ed25519 key",
    "no key at all",
    "no JSON",
)
