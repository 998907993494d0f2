"""The oldest versions that are declared: each library has one, and what runs here is not older."""

from __future__ import annotations

import importlib.util
import tomllib
from importlib.metadata import version
from pathlib import Path

import onnxruntime
import pytest
from packaging.version import Version

ROOT = Path(__file__).parents[2]
_SPEC = importlib.util.spec_from_file_location("lowest_versions", ROOT / "tools" / "lowest_versions.py")
lowest_versions = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(lowest_versions)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOUND = lowest_versions.lowest(PROJECT)


def test_no_library_is_without_a_bound():
    declared = PROJECT["project"]
    asked = [*declared["dependencies"], *declared["optional-dependencies"]["cpu"]]
    assert len(FOUND) == len([*asked, *declared["optional-dependencies"]["compress"]])


@pytest.mark.parametrize("name", sorted(FOUND))
def test_what_is_installed_is_within_it(name):
    # ONNX Runtime comes in packages of several names.
    installed = onnxruntime.__version__ if name == "onnxruntime" else version(name)
    assert Version(FOUND[name]) <= Version(installed)


def test_bounds_with_extras_and_ceilings_are_read_and_other_extras_left_out():
    project = {
        "dependencies": ["a>=1"],
        "optional-dependencies": {"cpu": ["b[x]>=2.1,<3"], "compress": [], "hf": ["c>=4"]},
    }
    assert lowest_versions.lowest({"project": project}) == {"a": "1", "b": "2.1"}


def test_versions_that_do_not_go_together_end_with_4(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(lowest_versions, "lowest", lambda _: {"numpy": "0.0.1"})
    monkeypatch.setattr(lowest_versions.venv, "create", lambda *_, **__: None)

    class Failed:
        returncode = 1

    asked = []
    monkeypatch.setattr(lowest_versions.subprocess, "run", lambda words, **_: asked.append(words) or Failed)
    assert lowest_versions.main(["--keep", str(tmp_path)]) == 4
    assert "numpy==0.0.1" in asked[0]
    assert len(asked) == 1, "no tests are run in half an environment"
    assert "do not go together" in capsys.readouterr().err
