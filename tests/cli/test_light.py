"""What does not wait for torch: help, version, completion, and what needs no network."""

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "onnx", "onnx_ir", "onnxruntime", "optuna", "sklearn", "matplotlib", "torchmetrics"}


def loaded(*words):
    """The heavy libraries that are loaded after a command in a fresh interpreter, and its exit code."""
    code = (
        "import contextlib, io, json, sys\n"
        "from edgekit.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n"
        f"    code = main({list(words)!r})\n"
        f"print(json.dumps([code, sorted({HEAVY!r} & set(sys.modules))]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("words", "code"),
    [(["--help"], 0), (["--version"], 0), (["compress", "--help"], 0), (["compres"], 2)],
)
def test_what_needs_no_network_loads_no_heavy_library(words, code):
    assert loaded(*words) == [code, []]


def test_doctor_loads_the_runtime_and_nothing_else():
    assert loaded("doctor")[1] == ["onnxruntime"]
