"""`edgekit bundle --zip --sign`, `verify`, and `inspect --untrusted`, as a user types them."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def keys(here):
    pytest.importorskip("model_signing.signing", reason="pip install 'edgekit[signing]'")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private, pem = ec.generate_private_key(ec.SECP256R1()), serialization.Encoding.PEM
    public = private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (here / "public.pem").write_bytes(public)
    (here / "private.pem").write_bytes(
        private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    (here / "other.pem").write_bytes(other.public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return here


def test_a_bundle_is_verified(done, edgekit, bundle):
    about = done("verify", bundle.folder, "--json").json
    assert about["signed_by"] is None
    assert about["files"] == len([path for path in bundle.folder.rglob("*") if path.is_file()])
    assert "not looked at: no --key" in " ".join(done("verify", bundle.folder).out.split())
    assert edgekit("verify", bundle.folder, "--signature", "x.sig").code == 4


def test_a_signed_zip_from_the_command_to_the_device(done, edgekit, project, original, keys):
    words = ["--file", f"fp32={original.path}", "--zip", "--sign", "private.pem", "--out", keys / "net.edgekit"]
    zipped = keys / "net.edgekit.zip"
    assert done("bundle", *project.words, *words, "--json").json == {
        "bundle": str(zipped),
        "signature": str(keys / "net.edgekit.sig"),
    }
    assert len(done("verify", zipped, "--key", "public.pem", "--json").json["signed_by"]) == 64
    answer = edgekit("verify", zipped, "--key", "other.pem")
    assert answer.code == 4
    assert "the signature is not by this key" in answer.err
    assert done("inspect", zipped, "--json").json["whole"] is True


@pytest.mark.skipif(sys.platform != "linux", reason="limits on memory are Linux's")
def test_a_strangers_file_is_looked_at_from_afar(done, edgekit, bundle, tiny, here):
    about = done("inspect", tiny, "--untrusted", "--json").json
    assert about["outputs"]
    assert about["missing"] == []
    assert "all limits held" in done("inspect", bundle.folder, "--untrusted", "--memory", "500").out
    (here / "text.onnx").write_text("no ONNX\n")
    assert edgekit("inspect", "text.onnx", "--untrusted").code == 4


def test_help_needs_no_crypto():
    code = "import sys; sys.modules.update(dict.fromkeys(['cryptography', 'model_signing'])); import edgekit.bundle"
    subprocess.run([sys.executable, "-c", code], check=True)
