"""A search for a device that is known by what pieces of networks cost there."""

from __future__ import annotations

import sys

import pytest

from edgekit.cli import main
from edgekit.device.costs import MeasuredCosts, load_costs
from edgekit.device.request import read_request
from edgekit.device.timing import time_graphs
from edgekit.errors import EdgekitError, UnreachableError
from edgekit.profiling import pieces, predict
from edgekit.search import SearchSettings, search


@pytest.fixture
def settings(tmp_path):
    def make(**changes):
        quick = {"trials": 4, "epochs": 1, "finalists": 2, "batch_size": 32, "time_s": 600, "latency_time_s": 0.3}
        return SearchSettings(**{**quick, "costs": str(tmp_path / "costs.json"), **changes})

    return make


def timed_there(request, costs):
    """What a user does on the device."""
    known = load_costs(costs) if costs.exists() else None
    time_graphs(read_request(request), keep=lambda found: found.save(costs), known=known, time_s=0.2)


def finished(run, request, costs):
    """The search, begun again with more costs as often as it asks for them.

    How a trained network's weights are stored in int8 may be seen only when it is trained.
    """
    for _ in range(3):
        try:
            return run()
        except EdgekitError as error:
            assert "have no costs" in str(error)  # noqa: PT017 - anything else ends the test
            timed_there(request, costs)
    return run()


def check(front, out, costs):
    """Latencies are sums of what pieces of the kept files cost, and nothing else."""
    known = load_costs(costs)
    assert front.members
    for member in front.members:
        found = predict(pieces(front.file(out, member)), known)
        assert not found.missing
        assert member.point.latency_ms == pytest.approx(found.us / 1e3)
    assert front.details["device"] == list(known.device)


@pytest.mark.slow
def test_one_request_asks_for_what_networks_are_made_of(settings, config_for, tmp_path):
    out, costs = tmp_path / "run", tmp_path / "costs.json"
    with pytest.raises(EdgekitError, match=r"have no costs\n  where: .*costs.json, which is not there yet") as caught:
        search(config_for(), settings(), out=out)
    request = out / "missing.request"
    assert str(request) in str(caught.value)
    front = finished(lambda: search(config_for(), settings(), out=out), request, costs)
    check(front, out, costs)
    speeds = [trial["speed"]["latency_ms"] for trial in front.details["trials"] if trial["speed"]]
    assert len(speeds) >= 2
    total = sum(row.us for row in load_costs(costs).measured.values()) / 1e3
    assert all(0 < speed < total for speed in speeds)


@pytest.mark.slow
def test_a_network_of_other_pieces_is_given_up_and_says_why(settings, config_for, tmp_path, monkeypatch):
    out, costs = tmp_path / "run", tmp_path / "costs.json"
    # As if the sample had held the default network alone.
    monkeypatch.setattr("edgekit.search.speeds.PRICED_SAMPLE", 0)
    with pytest.raises(EdgekitError):
        search(config_for(), settings(), out=out)
    front = finished(lambda: search(config_for(), settings(trials=6), out=out), out / "missing.request", costs)
    check(front, out, costs)
    reasons = [trial["reason"] for trial in front.details["trials"] if trial["state"] == "pruned"]
    assert any("have no costs" in reason and "missing.request" in reason for reason in reasons)


@pytest.mark.slow
def test_a_host_times_what_is_missing(settings, config_for, tmp_path, monkeypatch):
    there = []

    def time_graphs_on(host, graphs, *, keep, known, python, threads, **_):
        there.append((host, python, threads, len(graphs)))
        return time_graphs(graphs, keep=keep, known=known, threads=threads, time_s=0.2)

    monkeypatch.setattr("edgekit.profiling.book.time_graphs_on", time_graphs_on)
    out, costs = tmp_path / "run", tmp_path / "costs.json"
    front = search(config_for(), settings(host="pi@device", python="py"), out=out)
    check(front, out, costs)
    assert {row[:3] for row in there} == {("pi@device", "py", 1)}
    # No piece is timed twice.
    assert sum(row[3] for row in there) == len(load_costs(costs).measured)


@pytest.mark.slow
def test_a_host_behind_a_real_ssh(settings, config_for, tmp_path, real_host):
    out, costs = tmp_path / "run", tmp_path / "costs.json"
    front = search(config_for("two"), settings(trials=2, host=real_host, python=sys.executable), out=out)
    check(front, out, costs)
    assert not (out / "missing.request").exists()
    assert {trial["choices"]["width"] for trial in front.details["trials"] if trial["speed"]} == {4, 8}


@pytest.mark.slow
def test_a_device_that_is_gone_ends_the_search_and_the_same_search_goes_on(settings, config_for, tmp_path, monkeypatch):
    calls = []

    def time_graphs_on(_host, graphs, *, keep, known, threads, **_):
        calls.append(len(graphs))
        # The baseline's pieces and those of the first network are timed.
        if len(calls) == 3:
            raise UnreachableError("ssh ended with 255", where="pi@device")
        return time_graphs(graphs, keep=keep, known=known, threads=threads, time_s=0.2)

    monkeypatch.setattr("edgekit.profiling.book.time_graphs_on", time_graphs_on)
    out, costs = tmp_path / "run", tmp_path / "costs.json"
    with pytest.raises(UnreachableError):
        search(config_for(), settings(host="pi@device"), out=out)
    kept = set(load_costs(costs).measured)
    front = search(config_for(), settings(host="pi@device"), out=out)
    check(front, out, costs)
    states = [trial["state"] for trial in front.details["trials"]]
    assert states.count("fail") == 1
    assert len([state for state in states if state in ("complete", "pruned")]) == 4
    assert kept < set(load_costs(costs).measured)
    assert not any("ssh" in (trial["reason"] or "") for trial in front.details["trials"])


@pytest.mark.slow
def test_the_table_says_for_which_device(project, tmp_path, monkeypatch, capsys):
    def time_graphs_on(_host, graphs, *, keep, known, threads, **_):
        return time_graphs(graphs, keep=keep, known=known, threads=threads, time_s=0.2)

    def describe_on(_host, *, threads, **_):
        return time_graphs((), keep=lambda _: None, threads=threads)

    monkeypatch.setattr("edgekit.profiling.book.describe_on", describe_on)
    monkeypatch.setattr("edgekit.profiling.book.time_graphs_on", time_graphs_on)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    words = ["search", f"{project}:two", "--train", f"{project}:train_data", "--test", f"{project}:test_data"]
    how = ["--trials", "2", "--epochs", "1", "--batch-size", "32", "--finalists", "1", "--on", "pi@device"]
    assert main([*words, *how, "--out", "run"]) == 0
    said = capsys.readouterr().out
    assert "latency there" in said
    model, runtime, *_ = load_costs(tmp_path / "run" / "costs.json").device
    assert f"predicted for {model}, {runtime}" in said.replace("\n", " ")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"host": "pi@device", "costs": None}, "without --costs"),
        ({"latency": "net.py:microseconds"}, "--costs, --latency"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, given, text):
    with pytest.raises(EdgekitError, match=text):
        settings(**given)


def test_costs_of_another_number_of_threads_are_refused(settings, config_for, tmp_path):
    MeasuredCosts(threads=4, provider="cpu", measured={}).save(tmp_path / "costs.json")
    with pytest.raises(EdgekitError, match="measured with 4 thread"):
        search(config_for(), settings(), out=tmp_path / "run")
