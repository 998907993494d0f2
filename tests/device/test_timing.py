"""Timing goes on where it stopped, and tells what a device cannot run."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.device import timing
from edgekit.device.costs import MeasuredCosts, load_costs
from edgekit.device.request import Timed, write_request
from edgekit.errors import EdgekitError
from tests.marks import seldom


def timed(key, op="Relu", kind=TensorProto.FLOAT, dtype="float32"):
    values = [helper.make_tensor_value_info(name, kind, ["n", 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"])], "piece", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Timed(key=key, graph=model.SerializeToString(), inputs=((dtype, (2, 4)),))


@pytest.fixture
def three(monkeypatch):
    monkeypatch.setattr(timing, "BATCH", 1)
    return [timed("a"), timed("b", "Abs"), timed("c", "Neg")]


def run(graphs, **options):
    kept = []
    made = timing.time_graphs(graphs, keep=kept.append, time_s=0.03, clock=fake_clock(), **options)
    return made, kept


def fake_clock(step=1_000_000):
    """Each look at the clock is a millisecond later than the last."""
    return itertools.count(step=step).__next__


def test_each_batch_is_kept(three):
    made, kept = run(three)
    sweeps = [{key: row.sweeps for key, row in costs.measured.items()} for costs in kept]
    assert sweeps == [
        {"a": 1},
        {"a": 1, "b": 1},
        {"a": 1, "b": 1, "c": 1},
        {"a": 2, "b": 1, "c": 1},
        {"a": 2, "b": 2, "c": 1},
        {"a": 2, "b": 2, "c": 2},
    ]
    assert made == kept[-1]
    assert {row.us for row in made.measured.values()} == {1000.0}
    assert all({"before", "after"} <= row.keys() for row in made.conditions)


@pytest.mark.parametrize("stop", [seldom(1), 2, seldom(3), 4, seldom(5)])
def test_a_killed_run_goes_on(three, stop):
    kept = []

    def killed(costs):
        kept.append(costs)
        if len(kept) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        timing.time_graphs(three, keep=killed, time_s=0.03, clock=fake_clock())
    steps = []
    made, again = run(three, known=kept[-1], progress=steps.append)
    assert len(again) == 6 - stop
    assert {row.sweeps for row in made.measured.values()} == {2}
    assert [(step.done, step.total) for step in steps] == [(done, 6) for done in range(stop, 7)]


def test_of_two_sweeps_the_faster_counts(three):
    """The clock of the first sweep ticks three times as fast, as if other work took two thirds of the machine."""
    kept, now = [], 0

    def clock():
        nonlocal now
        now += 1_000_000 if kept else 3_000_000
        return now

    made = timing.time_graphs(three[:1], keep=kept.append, time_s=0.03, clock=clock)
    assert kept[0].measured["a"].us == 3000.0
    assert made.measured["a"].us == 1000.0


def test_what_does_not_run_is_told_and_not_tried_again(three):
    made, _ = run([*three, timed("d", "Unheard")])
    assert sorted(made.measured) == ["a", "b", "c"]
    assert "Unheard" in made.failed["d"]
    _, again = run([*three, timed("d", "Unheard")], known=made)
    assert again == []


def test_costs_of_another_device_are_not_gone_on_with(three):
    known = MeasuredCosts(
        threads=1, provider="cpu", measured={}, conditions=({"before": {"cpu": {"model": "another"}}},)
    )
    with pytest.raises(EdgekitError, match="measured on"):
        run(three, known=known)


@pytest.mark.parametrize(("dtype", "low", "high"), [("uint8", 0, 255), ("int8", -128, 127), ("int64", 0, 0)])
def test_made_up_numbers_are_in_range(dtype, low, high):
    made = timing._numbers(np.random.default_rng(0), dtype, (9999,))
    assert made.dtype == dtype
    assert (made.min(), made.max()) == (low, high)


def device(*words, code="", **options):
    """`python -m edgekit.device` in a fresh interpreter that has nothing but numpy and onnxruntime."""
    absent = ["torch", "onnx", "onnx_ir", "PIL", "rich", "typer"]
    program = (
        f"import sys\nsys.modules.update(dict.fromkeys({absent}))\n{code}\nfrom edgekit.device.__main__ import main\n"
    )
    program += f"sys.exit(main({list(map(str, words))!r}))"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, **options)


def test_the_device_needs_neither_torch_nor_onnx(tmp_path):
    write_request(tmp_path / "r", [timed("a"), timed("b", "Abs")])
    words = ("profile", tmp_path / "r", "--out", tmp_path / "costs.json", "--time", "0.05")
    done = device(*words)
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        0,
        f"2 of 2 graphs timed; wrote {tmp_path / 'costs.json'}",
    ), done.stderr
    assert "4/4" in done.stderr
    costs = load_costs(tmp_path / "costs.json")
    assert sorted(costs.measured) == ["a", "b"]
    assert device(*words).returncode == 0
    assert load_costs(tmp_path / "costs.json") == costs


def test_costs_are_streamed_as_lines(tmp_path):
    write_request(tmp_path / "r", [timed("a"), timed("b", "Abs")])
    done = device(
        "profile",
        tmp_path / "r",
        "--out",
        "-",
        "--time",
        "0.05",
        code="import edgekit.device.timing as timing; timing.BATCH = 1",
        cwd=tmp_path,
    )
    lines = [MeasuredCosts.from_dict(json.loads(line)) for line in done.stdout.splitlines()]
    assert [sorted(costs.measured) for costs in lines] == [["a"], ["a", "b"], ["a", "b"], ["a", "b"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r"]


def test_a_wrong_request_is_a_fault_of_the_input(tmp_path):
    (tmp_path / "r").write_bytes(onnx.ModelProto().SerializeToString())
    done = device("profile", tmp_path / "r")
    assert done.returncode == 4
    assert "a request, whole" in done.stderr
