"""The noise test's own book-keeping, with a benchmark that is made up."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from edgekit.errors import EdgekitError
from edgekit.stats import Estimate

ROOT = Path(__file__).parents[2]


def module(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def tool(monkeypatch):
    made = module("bench_noise")
    made.asked = []

    def benchmark(candidates, *, seed, **_more):
        made.asked.append(([each.name for each in candidates], seed))
        rows = [row(each, 0.97 if each.name == "slower" else 1.0, seen=seed != 1) for each in candidates]
        return SimpleNamespace(rows=rows, failed=(), starts=10 + seed)

    def row(candidate, value, *, seen):
        return SimpleNamespace(
            candidate=candidate,
            ratio=Estimate(value=value, low=value - 0.005, high=value + 0.005, n=30),
            verdict="slower" if value < 1 and seen else "no measurable difference",
            latency=SimpleNamespace(p50=SimpleNamespace(value=0.3)),
        )

    monkeypatch.setattr(made, "benchmark", benchmark)
    return made


def test_a_run_goes_on_where_it_was(tool, tmp_path, capsys):
    words = ["--out", str(tmp_path), "--repetitions"]
    assert tool.main([*words, "2"]) == 1  # One of two was not seen to be slower: less than 90 %.
    assert tool.asked == [(["first", "identical", "slower"], 0), (["first", "identical", "slower"], 1)]
    tool.asked.clear()
    assert tool.main([*words, "10"]) == 0
    assert [seed for _, seed in tool.asked] == list(range(2, 10))
    report = json.loads((tmp_path / "noise.json").read_text())
    assert len(report["rows"]) == 20
    assert len({(row["number"], row["kind"]) for row in report["rows"]}) == 20
    assert "slower: 9 of 10 came out as slower (goal: 90%)" in capsys.readouterr().out
    text = (tmp_path / "README.md").read_text()
    assert "10 to 19 fresh processes of each file" in text
    assert text == tool.page(report)
    assert "| identical | no measurable difference | 10 of 10 | 1.0000 [1.0000, 1.0000] | 10 of 10 | 95%: met |" in text
    assert "| 9 of 10 (1 no measurable difference) |" in text


def test_other_settings_are_not_mixed_with_what_was_kept(tool, tmp_path):
    assert tool.main(["--out", str(tmp_path), "--repetitions", "1", "--starts", "2"]) == 0
    assert tool.main(["--out", str(tmp_path), "--repetitions", "1"]) == EdgekitError.exit_code
    tool.main(["--out", str(tmp_path), "--repetitions", "1", "--fresh"])
    assert json.loads((tmp_path / "noise.json").read_text())["settings"]["starts"] == tool.STARTS


def test_the_slower_file_is_the_same_network_with_two_layers_more(tmp_path):
    tool = module("bench_noise")
    x = np.random.default_rng(1).standard_normal((tool.WIDTH, tool.WIDTH)).astype(np.float32)
    files, answers = tool.make_files(tmp_path), {}
    for name, path in files.items():
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (answers[name],) = session.run(None, {"x": x})
    graphs = {name: onnx.load(path).graph for name, path in files.items()}
    assert {name: len(graph.node) for name, graph in graphs.items()} == {"first": 134, "identical": 134, "slower": 138}
    assert np.array_equal(answers["first"], answers["identical"])
    weights, more = numpy_helper.to_array(graphs["first"].initializer[0]), answers["first"]
    for _ in range(2):
        more = np.tanh(more @ weights)
    np.testing.assert_allclose(answers["slower"], more, atol=1e-5)


def test_the_overhead_decides_the_exit_code(monkeypatch, capsys):
    tool = module("bench_overhead")
    monkeypatch.setattr(tool, "overhead_us", lambda: 0.4)
    assert tool.main() == 0
    monkeypatch.setattr(tool, "overhead_us", lambda: 2.4)
    assert tool.main() == 1
    assert "2.400 µs a call above a bare loop (limit 2)" in capsys.readouterr().out


def test_the_overhead_is_told_of_calls_that_were_made(monkeypatch):
    tool = module("bench_overhead")
    monkeypatch.setattr(tool, "TURNS", 2)
    monkeypatch.setattr(tool, "CALLS", 10)
    made = []
    assert isinstance(tool.overhead_us(lambda: made.append(1)), float)
    assert len(made) == 2 * 2 * 10
