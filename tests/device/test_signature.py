"""Signatures by real keys: what model-signing writes, a device takes, and nothing else."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from edgekit.bundle import pack, sign_bundle, verify_bundle
from edgekit.device import load
from edgekit.device.__main__ import main
from edgekit.errors import BundleError, EdgekitError

verifying = pytest.importorskip("model_signing.verifying", reason="pip install 'edgekit[signing]'")


def write_keys(folder, private=None):
    private = private or ec.generate_private_key(ec.SECP256R1())
    plain, pem = serialization.NoEncryption(), serialization.Encoding.PEM
    (folder / "private.pem").write_bytes(private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    (folder / "public.pem").write_bytes(
        private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return folder / "private.pem", folder / "public.pem"


@pytest.fixture
def keys(tmp_path):
    return write_keys(tmp_path)


@pytest.fixture
def signed(make_bundle, keys, monkeypatch):
    monkeypatch.setattr("edgekit.device.model.isa_target", lambda: "x86-vnni")
    folder = make_bundle("net.edgekit")
    assert sign_bundle(folder, keys[0]) == folder.with_name("net.edgekit.sig")
    return folder


def refused(path, key, **options):
    with pytest.raises(EdgekitError) as caught:
        load(path, public_key=key, **options)
    return str(caught.value)


def test_a_signed_bundle_is_loaded_and_model_signing_agrees(signed, keys):
    assert load(signed, public_key=keys[1]).check().samples == 2
    own = verifying.Config().use_elliptic_key_verifier(public_key=keys[1])
    own.verify(signed, signed.with_name("net.edgekit.sig"))


def test_one_signature_fits_folder_and_zip(signed, keys, tmp_path):
    zipped = pack(signed, tmp_path / "net.edgekit.zip")
    before = (tmp_path / "net.edgekit.sig").read_bytes()
    assert load(zipped, public_key=keys[1]).digest == load(signed, public_key=keys[1]).digest
    sign_bundle(zipped, keys[0])
    assert (tmp_path / "net.edgekit.sig").read_bytes() != before  # ECDSA signs with a random number
    assert verify_bundle(signed, public_key=keys[1]).signed_by == verify_bundle(zipped, public_key=keys[1]).signed_by


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()])
def test_other_curves(make_bundle, tmp_path, curve):
    private, public = write_keys(tmp_path, ec.generate_private_key(curve))
    folder = make_bundle()
    sign_bundle(folder, private)
    assert len(verify_bundle(folder, public_key=public).signed_by) == 64


def test_another_key_is_refused(signed, tmp_path):
    (tmp_path / "other").mkdir()
    _, other = write_keys(tmp_path / "other")
    assert refused(signed, other).startswith("the signature is not by this key")


def test_a_missing_signature_is_refused(signed, keys):
    signed.with_name("net.edgekit.sig").unlink()
    text = refused(signed, keys[1])
    assert text.startswith("no signature: No such file")
    assert "`edgekit bundle --sign KEY`" in text
    assert load(signed).check().samples == 2  # nobody asked for one


def test_a_resealed_bundle_is_refused(signed, keys, reseal, reference):
    """An attacker makes the digests fit; the signature does not."""
    reseal(signed, **{"models/model/exact/model.onnx": reference.classifier(2.0).SerializeToString()})
    assert load(signed, public_key=None)
    assert refused(signed, keys[1]).startswith("edgekit/bundle.json changed after it was signed")


def test_a_changed_file_is_refused(signed, keys):
    path = signed / "models/model/exact/model.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert refused(signed, keys[1]).startswith("changed: its SHA-256 is not the manifest's")
    assert refused(signed, keys[1], verify=False).startswith("changed: its SHA-256 is not the manifest's")


def test_the_signature_of_another_bundle_is_refused(signed, keys, make_bundle):
    other = make_bundle("other.edgekit", name="other")
    assert "changed after it was signed" in refused(other, keys[1], signature=signed.with_name("net.edgekit.sig"))


def test_more_or_fewer_files_than_signed(signed, keys, make_bundle):
    other = make_bundle("other.edgekit", files={"LICENSE": b"free"})
    sign_bundle(other, keys[0])
    assert "LICENSE is signed and missing" in refused(signed, keys[1], signature=other.with_name("other.edgekit.sig"))
    assert "LICENSE is not signed" in refused(other, keys[1], signature=signed.with_name("net.edgekit.sig"))


def envelope_of(signed):
    return json.loads(signed.with_name("net.edgekit.sig").read_text())


def put_envelope(signed, envelope):
    signed.with_name("net.edgekit.sig").write_text(json.dumps(envelope))


def sign_again(envelope, private, change):
    """A statement that the key's owner signed, and that says something else."""
    key = serialization.load_pem_private_key(private.read_bytes(), None)
    statement = json.loads(base64.b64decode(envelope["dsseEnvelope"]["payload"]))
    statement = change(statement) or statement
    body = json.dumps(statement).encode()
    kind = envelope["dsseEnvelope"]["payloadType"]
    pae = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(body), body)
    envelope["dsseEnvelope"]["payload"] = base64.b64encode(body).decode()
    signature = key.sign(pae, ec.ECDSA(hashes.SHA256()))
    envelope["dsseEnvelope"]["signatures"] = [{"sig": base64.b64encode(signature).decode(), "keyid": ""}]
    return envelope


def test_the_helper_of_these_tests_signs_as_model_signing_does(signed, keys):
    put_envelope(signed, sign_again(envelope_of(signed), keys[0], lambda _: None))
    assert load(signed, public_key=keys[1])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"), "a statement of another kind"),
        (lambda s: s.update(_type="other"), "a statement of another kind"),
        (lambda s: s["predicate"]["serialization"].update(method="shards"), "a statement of another kind"),
        (lambda s: s["predicate"]["serialization"].update(hash_type="blake2"), "a statement of another kind"),
        (lambda s: s["predicate"]["resources"].append(s["predicate"]["resources"][0]), "the entry"),
        (lambda s: s["predicate"]["resources"][0].update(algorithm="md5"), "the entry"),
        (lambda s: s["predicate"]["resources"].pop() and None, "is not signed"),
        (lambda s: s["predicate"].update(resources=[]), "is not signed"),
        (
            lambda s: s["predicate"]["resources"].append({"name": "x", "algorithm": "sha256", "digest": "0"}),
            "x is signed",
        ),
        (lambda s: s["predicate"]["resources"][0].update(digest="0" * 64), "changed after it was signed"),
    ],
)
def test_a_statement_of_another_kind_is_refused(signed, keys, change, text):
    put_envelope(signed, sign_again(envelope_of(signed), keys[0], change))
    assert text in refused(signed, keys[1])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda e: e.update(mediaType="text/plain"), "got 'text/plain'"),
        (lambda e: e.pop("dsseEnvelope"), "no envelope with one signature"),
        (lambda e: e["dsseEnvelope"].update(signatures=[]), "no envelope with one signature"),
        (lambda e: e["dsseEnvelope"].update(signatures=e["dsseEnvelope"]["signatures"] * 2), "no envelope with one"),
        (lambda e: e["dsseEnvelope"].update(payload=7), "no envelope with one signature"),
        (lambda e: e["dsseEnvelope"].update(payload="%%"), "not base64"),
        (lambda e: e["dsseEnvelope"].update(payload="ä"), "not base64"),
        (lambda e: e["dsseEnvelope"].update(payloadType="text/plain"), "a payload of 'text/plain'"),
        (lambda e: e["dsseEnvelope"]["signatures"][0].update(sig=""), "the signature is not by this key"),
        (lambda e: e["dsseEnvelope"]["signatures"][0].update(sig="AAAA"), "the signature is not by this key"),
        (
            lambda e: e["dsseEnvelope"].update(payload=e["dsseEnvelope"]["payload"][:-8] + "AAAAAAA="),
            "the signature is not by this key",
        ),
    ],
)
def test_a_changed_envelope_is_refused(signed, keys, change, text):
    envelope = envelope_of(signed)
    change(envelope)
    put_envelope(signed, envelope)
    assert text in refused(signed, keys[1])


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{", b"[" * 100_000, b" " * 9_000_000])
def test_no_signature_at_all(signed, keys, data):
    signed.with_name("net.edgekit.sig").write_bytes(data)
    with pytest.raises(BundleError):
        load(signed, public_key=keys[1])


def test_keys_of_other_kinds(signed, tmp_path):
    kinds = [rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()]
    for number, private in enumerate([*kinds, ec.generate_private_key(ec.SECP256K1())]):
        place = tmp_path / str(number)
        place.mkdir()
        secret, public = write_keys(place, private)
        assert refused(signed, public).startswith("another kind of key")
        with pytest.raises(EdgekitError, match="cannot sign with this key"):
            sign_bundle(signed, secret)
    (tmp_path / "text.pem").write_text("no key")
    assert refused(signed, tmp_path / "text.pem").startswith("cannot read the public key")
    assert refused(signed, tmp_path / "absent.pem").startswith("cannot read the public key")
    assert refused(signed, tmp_path / "private.pem").startswith("cannot read the public key")


def test_a_key_with_a_password_is_no_key_for_signing(signed, tmp_path):
    private = ec.generate_private_key(ec.SECP256R1())
    secret = serialization.BestAvailableEncryption(b"secret")
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    (tmp_path / "locked.pem").write_bytes(pem)
    with pytest.raises(EdgekitError, match="cannot sign with this key") as caught:
        sign_bundle(signed, tmp_path / "locked.pem")
    assert "without a password" in caught.value.rule


def test_keys_that_openssl_makes(make_bundle, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private], check=True)
    subprocess.run(["openssl", "ec", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    folder = make_bundle()
    sign_bundle(folder, private)
    assert verify_bundle(folder, public_key=public).signed_by


def test_a_signature_without_a_key_says_nothing(signed):
    with pytest.raises(BundleError, match="a signature, but no key"):
        load(signed, signature=signed.with_name("net.edgekit.sig"))


def test_the_device_asks_for_a_signature(signed, keys, capsys, tmp_path):
    assert main(["check", str(signed), "--key", str(keys[1])]) == 0
    (tmp_path / "other").mkdir()
    _, other = write_keys(tmp_path / "other")
    assert main(["check", str(signed), "--key", str(other)]) == 4
    assert "the signature is not by this key" in capsys.readouterr().err


def test_without_cryptography_the_error_says_what_to_install(signed, keys, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert "way out: pip install cryptography" in refused(signed, keys[1])


def test_without_model_signing_the_error_says_what_to_install(signed, keys, monkeypatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(EdgekitError, match="bundles cannot be signed") as caught:
        sign_bundle(signed, keys[0])
    assert caught.value.way_out == "pip install 'edgekit[signing]'"
