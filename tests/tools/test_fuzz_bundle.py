"""The fuzzer starts from inputs that its readers take, and tells when one falls."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "fuzz_bundle.py"


@pytest.fixture(scope="module")
def fuzzer():
    spec = importlib.util.spec_from_file_location("fuzz_bundle", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_target_takes_a_seed(fuzzer, tmp_path):
    read = fuzzer.readers(tmp_path)
    small = {"manifest": "whole", "zip": "whole", "onnx": "tiny", "golden": "small"}
    assert read.keys() == fuzzer.seeds().keys() == small.keys()
    for target, seed in small.items():
        assert read[target](fuzzer.seeds()[target][seed])


def test_a_reader_that_falls_is_found(tmp_path):
    """A copy of the script whose zip reader chokes on an archive that is cut short."""
    pytest.importorskip("atheris", reason="pip install 'edgekit[fuzz]'")
    text = SCRIPT.read_text().replace("opened = open_bundle(path)", "opened = open_bundle(path) if data[21] else 1 / 0")
    text = text.replace("Path(__file__).resolve().parents[1]", f"Path({str(SCRIPT.parents[1])!r})")
    copy = tmp_path / "fuzz_bundle.py"
    copy.write_text(text)
    done = subprocess.run(
        [sys.executable, copy, "--only", "zip", "--time", "20s", "--keep", tmp_path / "kept"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "FOUND" in done.stdout
    assert "ZeroDivisionError" in done.stdout or "IndexError" in done.stdout
    assert list((tmp_path / "kept").glob("zip-crash-*"))
