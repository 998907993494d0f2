"""The C++ loader takes what model-signing signed, and nothing else."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import pytest

from edgekit.bundle import pack

pytestmark = pytest.mark.slow  # They compile what the default tests need not wait for.

signatures = runpy.run_path(str(Path(__file__).parent / "signatures.py"))
CURVES, again, public_pem = signatures["CURVES"], signatures["again"], signatures["public_pem"]


@pytest.fixture
def place(signed, tmp_path):
    """A copy of the signed bundle, without a signature beside it."""
    return pack(signed[0], tmp_path / "net.edgekit.zip")


def put(place, pem, text):
    """A key, and a signature beside the bundle; the arguments that ask for them."""
    (place.parent / "public.pem").write_text(pem)
    place.with_name("net.edgekit.sig").write_text(text)
    return "--key", place.parent / "public.pem", "--check"


@pytest.mark.parametrize("curve", CURVES)
def test_a_signed_bundle_is_loaded_as_a_folder_and_as_a_zip(programs, signed, keys, place, curve):
    folder = shutil.copytree(signed[0], place.with_name("net.edgekit"))
    for text in (signed[2][curve], again(signed[2][curve], keys[curve], curve)):
        arguments = put(place, public_pem(keys[curve]), text)
        for source in (place, folder, f"{folder}/"):
            assert programs.classify(*arguments, source)["check"]["samples"] == 2


@pytest.fixture(scope="module")
def cases(signed, keys):
    return signatures["refused_cases"](signed[2]["P-256"], keys["P-256"])


@pytest.mark.parametrize("case", signatures["CASES"])
def test_what_the_key_did_not_sign_is_refused(programs, place, cases, case):
    pem, text, said = cases[case]
    error = programs.refused(*put(place, pem, text), place)
    assert error["kind"] in ("bundle", "data"), error
    assert re.search(said, error["problem"]), error
    assert error["where"]
    assert error["rule"]


def test_sanitizers_find_nothing(sanitized, signed, keys, place, cases):
    for curve in CURVES:
        sanitized.classify(*put(place, public_pem(keys[curve]), signed[2][curve]), place)
    for pem, text, _ in cases.values():
        sanitized.refused(*put(place, pem, text), place)


def test_a_signature_that_is_not_there(programs, keys, place):
    (place.parent / "public.pem").write_text(public_pem(keys["P-256"]))
    error = programs.refused("--key", place.parent / "public.pem", "--check", place)
    assert error["problem"] == "no signature"
    assert error["where"].endswith("net.edgekit.sig")
    assert "`edgekit bundle --sign KEY`" in error["way_out"]
    assert programs.classify("--check", place)["check"]["samples"] == 2  # nobody asked for one


def test_a_key_that_is_not_there(programs, place):
    assert programs.refused("--key", place.parent / "none.pem", "--check", place)["problem"] == "no such file"
