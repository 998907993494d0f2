"""`edgekit profile MODEL.onnx`: requests, costs and predictions as a user asks for them."""

from __future__ import annotations

import json

import pytest

from edgekit.device import __main__ as device
from edgekit.device.costs import load_costs
from edgekit.device.request import read_request
from edgekit.profiling import KNOWN_ERROR, graphs, pieces, predict


@pytest.fixture(scope="module")
def costs(done, original, tmp_path_factory):
    path = tmp_path_factory.mktemp("costs") / "costs.json"
    answer = done("profile", original.path, "--time", "0.2s", "--out", path)
    return path, answer


def test_a_network_is_timed_and_its_latency_predicted(costs, original):
    path, answer = costs
    known, found = load_costs(path), pieces(original.path)
    assert known.measured.keys() == {each.key for each in graphs(found)}
    told = predict(found, known)
    assert told.missing == ()
    text = " ".join(answer.out.split())
    assert f"{original.path.name}: predicted {told.us:.1f} µs [{told.low:.1f} µs, {told.high:.1f} µs]" in text
    assert f"off by {KNOWN_ERROR['fp32'].median:.0%} (median), {KNOWN_ERROR['fp32'].worst:.0%} (worst)" in text
    assert "Conv 32x3x3x3 + Relu -> 1x32x8x8" in answer.out
    assert f"wrote {path}" in answer.out


def test_costs_that_are_there_are_not_timed_again(costs, done, original):
    path, _ = costs
    before = path.read_bytes()
    done("profile", original.path, "--time", "0.2s", "--out", path)
    assert path.read_bytes() == before


def test_costs_predict_without_timing(costs, done, original, int8):
    path, _ = costs
    before = path.read_bytes()
    told = done("profile", original.path, int8.path, "--costs", path, "--json").json["files"]
    assert path.read_bytes() == before
    fp32, other = told[str(original.path)], told[str(int8.path)]
    assert fp32["missing"] == []
    assert fp32["interval_us"][0] <= fp32["predicted_us"] <= fp32["interval_us"][1]
    assert sum(row["us"] for row in fp32["pieces"]) < fp32["predicted_us"]
    assert other["missing"]
    assert other["error"]["worst"] == KNOWN_ERROR["int8"].worst
    text = done("profile", int8.path, "--costs", path).out
    assert "kinds of pieces have no costs" in text


def test_a_request_is_what_a_device_times(done, original, int8, tmp_path, capsys):
    request, out = tmp_path / "ops.request", tmp_path / "costs.json"
    answer = done("profile", original.path, int8.path, "--request", request)
    asked = read_request(request)
    assert f"{len(asked)} graphs" in answer.out
    assert {each.key for each in asked} >= {
        each.key for path in (original.path, int8.path) for each in graphs(pieces(path))
    }
    assert device.main(["profile", str(request), "--out", str(out), "--time", "0.2"]) == 0
    assert f"{len(asked)} of {len(asked)} graphs timed" in capsys.readouterr().out
    told = done("profile", original.path, int8.path, "--costs", out, "--json").json["files"]
    assert [row["missing"] for row in told.values()] == [[], []]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The folder that one works in is empty."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--request", "x"], "no FILES for --request"),
        (["--on", "x"], "no FILES for --on"),
        (["FILE", "--request", "x", "--costs", "y"], "--request and --costs at once"),
        (["FILE", "--shape", "x=axb"], "INPUT=SIZES"),
        (["FILE", "--shape", "y=1x2"], "no input y"),
        (["FILE", "--on", "-oProxyCommand=x"], "got '-oProxyCommand=x'"),
        (["FILE", "--costs", "absent.json"], "cannot read"),
        (["absent.onnx", "--request", "x"], "no file absent.onnx"),
    ],
)
@pytest.mark.usefixtures("elsewhere")
def test_what_does_not_go_is_told(edgekit, original, tmp_path, words, match):
    answer = edgekit("profile", *[original.path if word == "FILE" else word for word in words])
    assert answer.code == 4
    assert match in answer.err
    assert list(tmp_path.iterdir()) == []


def test_costs_of_another_device_are_not_mixed(costs, edgekit, original, tmp_path):
    data = json.loads(costs[0].read_text())
    for row in data["conditions"]:
        row["before"]["cpu"]["model"] = "another"
    (tmp_path / "costs.json").write_text(json.dumps(data))
    answer = edgekit("profile", original.path, "--out", tmp_path / "costs.json")
    assert (answer.code, "measured on" in answer.err) == (4, True)
