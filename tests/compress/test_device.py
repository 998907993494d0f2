"""Compressing for a machine that is known by the costs of pieces alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.compress import Budget, Settings, compress
from edgekit.compress.measuring import measured_on_cpu
from edgekit.device.costs import MeasuredCosts, load_costs
from edgekit.device.request import read_request
from edgekit.errors import EdgekitError
from edgekit.profiling import pieces, predict
from edgekit.workload import config_from, load_workload

BUDGET = Budget(max_drop=60.0, time_s=60.0)


@pytest.fixture
def workload(project):
    named = {name: f"{project}:{name}" for name in ("model",)}
    return load_workload(
        config_from(
            {**named, "train": f"{project}:train_data", "test": f"{project}:test_data"}, folder=Path(project).parent
        )
    )


def settings(costs, **more):
    return Settings(
        costs=str(costs), grid=32, max_rounds=1, recovery_epochs=1, latency_time_s=0.5, batch_size=64, **more
    )


def timed_there(request, costs):
    """What a user does on the device."""
    command = [sys.executable, "-m", "edgekit.device", "profile", str(request), "--out", str(costs), "--time", "1"]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_has_no_costs_goes_into_a_request_and_the_run_goes_on_when_they_are_there(workload, tmp_path):
    out, costs = tmp_path / "run", tmp_path / "costs.json"
    MeasuredCosts(threads=1, provider="cpu", measured={}).save(costs)
    request = out / "missing.request"
    # The network, then each decision by itself, then the plans made of them.
    for _ in range(3):
        with pytest.raises(EdgekitError, match="have no costs"):
            compress(workload, BUDGET, settings(costs), out=out)
        assert not (out / "report.json").exists()
        assert not {each.key for each in read_request(request)} & set(load_costs(costs).measured)
        timed_there(request, costs)
    report = compress(workload, BUDGET, settings(costs), out=out)
    known = load_costs(costs)
    for row in report.stages:
        found = predict(pieces(Path(row.file)), known)
        assert not found.missing
        assert row.latency_on_device_ms == pytest.approx(found.us / 1e3)
        assert row.device["known_median_error"] > 0
    saved = json.loads((out / "report.json").read_text())
    assert [row["device"]["ms"] for row in saved["stages"]] == [row.latency_on_device_ms for row in report.stages]
    rows = {row.stage: row.latency_on_device_ms for row in report.stages}
    assert saved["choices"][0]["baseline_ms"] == pytest.approx(rows["int8"], rel=1e-6)
    assert saved["choices"][0]["rungs"][0]["predicted_ms"] == pytest.approx(rows["pruned-1-int8"], rel=1e-6)
    assert "on the device" in report.verdict.text


def test_costs_of_another_number_of_threads_are_refused(workload, tmp_path):
    MeasuredCosts(threads=4, provider="cpu", measured={}).save(tmp_path / "costs.json")
    with pytest.raises(EdgekitError, match="measured with 4 thread"):
        compress(workload, BUDGET, settings(tmp_path / "costs.json"), out=tmp_path / "run")


def test_a_host_needs_a_file_for_its_costs():
    with pytest.raises(EdgekitError, match="without --costs"):
        Settings(host="pi@device")


@pytest.mark.slow
def test_a_host_times_what_is_missing(workload, tmp_path, monkeypatch):
    there = []

    def time_graphs_on(host, graphs, *, keep, known, python, threads, **_):
        there.append((host, python, threads, len(graphs)))
        from edgekit.device.timing import time_graphs

        return time_graphs(graphs, keep=keep, known=known, threads=threads, time_s=0.5)

    monkeypatch.setattr("edgekit.profiling.book.time_graphs_on", time_graphs_on)
    costs = tmp_path / "costs.json"
    report = compress(workload, BUDGET, settings(costs, host="pi@device", python="py"), out=tmp_path / "run")
    assert {row[:3] for row in there} == {("pi@device", "py", 1)}
    assert sum(row[3] for row in there) == len(load_costs(costs).measured)
    assert all(row.device for row in report.stages)


@pytest.mark.parametrize(("target", "told"), [("x86-vnni", True), ("x86-avx2", False)])
def test_latencies_of_another_kind_of_cpu_are_said_to_be_none_of_its_own(monkeypatch, target, told):
    for place in ("edgekit.quantize.targets", "edgekit.compress.measuring"):
        monkeypatch.setattr(f"{place}.isa_target", lambda: "x86-avx2")
    text = "latencies are those of this x86-avx2 processor, not of one that x86-vnni files are for"
    assert (text in measured_on_cpu(Settings(target=target))) is told
    assert text not in measured_on_cpu(Settings(target=target, costs="costs.json"))
