"""The memory of calibration: what the quantizer is given, and what the figures are judged by."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

TOOLS = Path(__file__).parents[2] / "tools"
PROJECT = """
import torch
from torch import nn
from torch.utils.data import TensorDataset


def model():
    return nn.Linear(3, 2).eval()


def data():
    return TensorDataset(torch.arange(600.0).reshape(200, 3), torch.arange(200) % 2)
"""


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("calibration_memory", TOOLS / "calibration_memory.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        spec.loader.exec_module(module)
        yield module
    for name in [name for name in sys.modules if name.startswith("quantizer_benchmark")]:
        del sys.modules[name]


@pytest.fixture
def words(tmp_path) -> list[str]:
    path = tmp_path / "net.py"
    path.write_text(PROJECT)
    return ["--workload-model", f"{path}:model", "--train", f"{path}:data", "--test", f"{path}:data"]


@pytest.fixture
def given(tool, monkeypatch) -> list[np.ndarray]:
    """The samples of each job; making the file takes 100 MB and 2 MB more for each sample after the 40th."""
    from quantizer_benchmark.runners.harness import Batches

    seen = []

    def make(quantizer, job, _):
        assert quantizer.name == "edgekit"
        seen.append(np.concatenate([feeds["input"] for feeds in Batches(job.calibration)]))
        peak = (100 + 2 * max(0, len(seen[-1]) - 40)) * 10**6
        return tool.Process(
            seconds=1.0,
            cpu_seconds=1.0,
            import_seconds=0.5,
            process_seconds=2.0,
            peak_bytes=peak,
            imported_bytes=80 * 10**6,
            versions={},
            note="",
        )

    monkeypatch.setattr(tool, "make", make)
    return seen


def test_the_same_samples_are_given_and_little_growth_is_no_fault(tool, words, given, capsys):
    assert tool.main([*words, "--samples", "33,44"]) == 0
    assert [len(samples) for samples in given] == [33, 44]
    np.testing.assert_array_equal(given[0], given[1][:33])
    out = capsys.readouterr().out
    assert "| 33 | 100.0 MB | 80.0 MB | 1.0 s |" in out
    assert "| 44 | 108.0 MB | 80.0 MB | 1.0 s |" in out
    assert "the largest peak is 8.0% above the smallest" in out


def test_growth_is_a_fault_wherever_it_is(tool, words, given, tmp_path):
    assert tool.main([*words, "--samples", "20,46,42", "--json", str(tmp_path / "out.json")]) == 1
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["growth"] == pytest.approx(0.12)
    assert {count: run["peak_bytes"] // 10**6 for count, run in found["runs"].items()} == {
        "20": 100,
        "46": 112,
        "42": 104,
    }
    assert len(given) == 3


def test_too_few_samples_are_an_error(tool, words, given, capsys):
    # A quarter of 200 at most.
    assert tool.main([*words, "--samples", "20,60"]) == 4
    assert "the calibration split has 50 samples" in capsys.readouterr().err
    assert not given


@pytest.mark.parametrize("more", [[], ["--samples", "500"], ["--samples", "500,many"]])
def test_a_wrong_command_line_says_so(tool, words, more, capsys):
    with pytest.raises(SystemExit) as stop:
        tool.main([*words[:4], *more] if more else words[:2])
    assert stop.value.code == 2
    assert capsys.readouterr().err
