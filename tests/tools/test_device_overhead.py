"""The overhead tool's own book-keeping, with times that are made up, and one real call that is not timed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from edgekit.device import Latency, load

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("device_overhead", ROOT / "tools" / "device_overhead.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def made_up(tool, monkeypatch):
    """Times that grow from round to round, with differences that do not."""
    drift = np.linspace(0.1, 0.2, 30)
    above = {"session.run": 0.0, "by hand": 0.006, "model.run": 0.004, "model.predict": 0.015}

    def measure(calls, *, width, **_more):
        assert width == 0
        for call in calls.values():
            call()
        return {name: Latency(samples_ms=drift + above[name], rounds_ms=drift + above[name]) for name in calls}

    seconds = {"import onnxruntime": 0.2, "import onnxruntime, edgekit.device": 0.35}
    started = []
    monkeypatch.setattr(tool, "measure", measure)
    monkeypatch.setattr(tool, "import_s", lambda statement: started.append(statement) or seconds[statement])
    return started


def test_differences_are_paired_and_decide_the_exit_code(tool, made_up, monkeypatch, tmp_path, capsys):
    assert tool.main(["--starts", "3", "--out", str(tmp_path)]) == 0
    assert len(made_up) == 8  # Three of each kind, and one of each before.
    report = json.loads((tmp_path / "overhead.json").read_text())
    assert [row["name"] for row in report["runs"]] == ["one product, 10 classes", "one product, 1000 classes"]
    for row in report["runs"]:
        assert row["above_us"]["model.run"]["value"] == pytest.approx(4)
        assert row["above_us"]["by hand"]["value"] == pytest.approx(6)
        assert row["above_us"]["model.predict"]["high"] == pytest.approx(15)
        assert row["session_us"]["value"] == pytest.approx(150)
    assert report["import"]["above_s"]["value"] == pytest.approx(0.15)
    text = (tmp_path / "README.md").read_text()
    assert text == tool.page(report)
    assert "| +6.0 µs [+6.0, +6.0] | +4.0 µs [+4.0, +4.0] | +15.0 µs [+15.0, +15.0] | 20 µs |" in text
    assert "edgekit.device +0.150 s [+0.150, +0.150] (limit 0.2)" in capsys.readouterr().out
    monkeypatch.setattr(tool, "RUN_LIMIT_US", 14.0)
    assert tool.main(["--starts", "1"]) == 1
    monkeypatch.setattr(tool, "RUN_LIMIT_US", 20.0)
    monkeypatch.setattr(tool, "IMPORT_LIMIT_S", 0.1)
    assert tool.main(["--starts", "1"]) == 1


def test_the_tiny_network_has_the_answers_of_a_product(tool, tmp_path):
    model = load(tool.tiny_bundle(tmp_path / "t.edgekit", 10))
    x = np.eye(16, dtype=np.float32)[:1]
    weights = np.random.default_rng(0).standard_normal((16, 10)).astype(np.float32)
    assert model.predict(x).index == weights[0].argmax()


def test_an_import_is_timed_in_a_process_of_its_own(tool):
    assert tool.import_s("import json") > 0
