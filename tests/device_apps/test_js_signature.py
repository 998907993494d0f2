"""The JavaScript package takes what model-signing signed, from every place a bundle comes from, and nothing else."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import re
import runpy
import threading
from pathlib import Path

import pytest

from edgekit.bundle import pack

pytestmark = pytest.mark.slow  # They install what the default tests need not wait for.

HERE = Path(__file__).parent
made = runpy.run_path(str(HERE / "bundles.py"))
node = runpy.run_path(str(HERE / "node.py"))
signatures = runpy.run_path(str(HERE / "signatures.py"))
CURVES, again, public_pem = signatures["CURVES"], signatures["again"], signatures["public_pem"]


def request(source, pem, signature=None, *, packed=False):
    options = {"publicKey": pem, "signature": signature}
    return {"bundle": str(source), "bytes": packed, "runtime": "web", "options": options}


def test_a_signed_bundle_is_loaded_from_everywhere(signed, keys, drive):
    bundle, zipped, texts = signed
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(zipped.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/{zipped.name}?fresh=1"
        beside = public_pem(keys["P-521"])
        sources = (bundle, f"{bundle}/", zipped, address)
        given = [request(zipped, public_pem(keys[name]), texts[name], packed=True) for name in CURVES]
        found = drive([*(request(source, beside) for source in sources), *given])
        server.shutdown()
    assert [each.get("error") for each in found] == [None] * 7
    assert len({each["digest"] for each in found}) == 1


@pytest.fixture(scope="module")
def refused(signed, keys, drive):
    """What became of each case, and what has to be said of it."""
    cases = signatures["refused_cases"](signed[2]["P-256"], keys["P-256"])
    found = drive([request(signed[1], pem, text, packed=True) for pem, text, _ in cases.values()])
    return {name: (each.get("error"), cases[name][2]) for name, each in zip(cases, found, strict=True)}


@pytest.mark.parametrize("case", signatures["CASES"])
def test_what_the_key_did_not_sign_is_refused(refused, case):
    check(*refused[case])


def check(error, said):
    assert error, "not refused"
    assert error["name"] in ("BundleError", "EdgekitError"), error
    assert re.search(said, error["problem"]), error
    assert error["where"]
    assert error["rule"]


def test_a_signature_that_is_not_there_or_for_another_bundle(signed, keys, drive, tmp_path):
    bundle, zipped, texts = signed
    pem = public_pem(keys["P-256"])
    other, _ = made["shapes"](tmp_path / "other")
    lonely = pack(bundle, tmp_path / "lonely.edgekit.zip")
    without_key = {"bundle": str(zipped), "runtime": "web", "options": {"signature": texts["P-256"]}}
    found = drive([
        request(zipped, pem, packed=True),
        request(lonely, pem),
        request(other, pem, texts["P-256"]),
        without_key,
    ])  # fmt: skip
    words = ("no signature", "cannot read: ENOENT", "signed", "a signature, but no key")
    for each, said in zip(found, words, strict=True):
        check(each.get("error"), said)


def test_the_helper_of_these_tests_signs_as_model_signing_does(signed, keys, drive):
    _, zipped, texts = signed
    requests = [
        request(zipped, public_pem(keys[name]), again(texts[name], keys[name], name), packed=True) for name in CURVES
    ]
    assert [each.get("error") for each in drive(requests)] == [None] * 3


def test_numbers_of_every_length_in_signatures(signed, keys, drive):
    """DER leaves zeros out and puts one before a high bit; WebCrypto wants all numbers of one length."""
    _, zipped, texts = signed
    requests, lengths = [], set()
    for _ in range(60):
        text = again(texts["P-521"], keys["P-521"], "P-521")
        lengths.add(len(base64.b64decode(json.loads(text)["dsseEnvelope"]["signatures"][0]["sig"])))
        requests.append(request(zipped, public_pem(keys["P-521"]), text, packed=True))
    assert len(lengths) > 1
    assert [each.get("error") for each in drive(requests)] == [None] * 60


def test_the_sample_program_takes_a_key(signed, keys, package, tmp_path):
    bundle, _, _ = signed
    program, given = package / "examples/classify.mjs", "the cat sat"
    for name, code in (("P-521", 0), ("P-256", 1)):
        (tmp_path / "public.pem").write_text(public_pem(keys[name]))
        done = node["start"](program, bundle, given, "--json", "--key", tmp_path / "public.pem", where=package)
        assert done.returncode == code, done.stderr
        assert ("the signature is not by this key" in done.stderr) == bool(code)
        assert bool(done.stdout) != bool(code)
