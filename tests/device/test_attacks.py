"""Every malicious bundle that `attacks.py` writes, as a folder and as one file, against the loader."""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

from edgekit.device import inspect, load
from edgekit.errors import BundleError

SCRIPT = Path(__file__).parents[2] / "tools/device_apps/vectors/attacks.py"


def script():
    spec = importlib.util.spec_from_file_location("attacks", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["attacks"] = module  # dataclasses look there for the module of a class
    spec.loader.exec_module(module)
    return module


attacks = script()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("attacks")
    assert attacks.main([str(out)]) == 0
    return out, json.loads((out / "index.json").read_text())


def names(form):
    kinds = {"folder": attacks.FOLDERS, "zip": attacks.ZIPS}[form]
    return [("whole", "accepted"), *((name, "refused") for name in (*attacks.CONTENTS, *kinds))]


@cache
def verdict(path):
    try:
        load(path).check()
    except BundleError as error:
        return "refused", error
    return "accepted", None


@pytest.mark.parametrize(
    ("form", "name", "expected"), [(form, *row) for form in ("folder", "zip") for row in names(form)]
)
def test_the_verdict_is_the_expected_one(written, form, name, expected):
    out, rows = written
    row = next(row for row in rows if (row["form"], row["name"]) == (form, name))
    found, error = verdict(out / row["path"])
    assert found == expected == row["expected"]
    assert error is None or (error.problem and error.rule)


def test_the_index_has_each_case_once(written):
    _, rows = written
    assert len({(row["form"], row["name"]) for row in rows}) == len(rows)
    assert {(row["form"], row["name"]) for row in rows} == {
        (form, n) for form in ("folder", "zip") for n, _ in names(form)
    }


def test_both_forms_refuse_contents_alike(written):
    out, rows = written
    for name in attacks.CONTENTS:
        texts = []
        for form in ("folder", "zip"):
            row = next(row for row in rows if (row["form"], row["name"]) == (form, name))
            error = verdict(out / row["path"])[1]
            texts.append((error.problem, error.rule))
        assert texts[0] == texts[1], name


def test_nothing_is_written_outside(written):
    out, _ = written
    assert (out / "secret.bin").read_bytes() == attacks.SECRET
    assert not [*out.parent.glob("**/evil*"), *Path().glob("evil*"), *Path(tempfile.gettempdir()).glob("evil.txt")]


def test_inspecting_is_as_careful(written):
    """What `inspect` accepts beside `load` are results and changed files, which it names."""
    out, rows = written
    for row in rows:
        if row["name"].endswith("without-end"):
            continue  # slow, and no other than for `load`
        try:
            about = inspect(out / row["path"])
        except BundleError:
            continue
        damaged = row["name"].startswith(("flipped", "golden", "more-samples", "other", "garbage"))
        assert damaged or row["expected"] == "accepted" or row["name"].startswith("manifest-more"), row
        assert about["whole"] != row["name"].startswith("flipped")
