"""The costs of a device that is elsewhere, in a file that grows."""

from __future__ import annotations

import onnx
import pytest

from edgekit.device.costs import MeasuredCosts, load_costs
from edgekit.device.request import read_request
from edgekit.device.timing import time_graphs
from edgekit.errors import EdgekitError
from edgekit.profiling import pieces, predict
from edgekit.profiling.book import CostBook, target_of


def network(width):
    """x [n, 4] through a product of `width` columns and a tanh."""
    weights = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [4, width], [0.5] * (4 * width))
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["m"]), onnx.helper.make_node("Tanh", ["m"], ["y"])]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", size])
        for name, size in (("x", 4), ("y", width))
    ]
    graph = onnx.helper.make_graph(nodes, "net", ends[:1], ends[1:], [weights])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


NARROW, WIDE = (network(width).SerializeToString() for width in (3, 5))
SHAPES = {"x": (1, 4)}


@pytest.fixture
def book(tmp_path):
    def make(**more):
        return CostBook(tmp_path / "costs.json", **{"threads": 1, "request": tmp_path / "missing.request", **more})

    return make


@pytest.fixture
def there(monkeypatch):
    """The graphs that the host was asked to time, call by call."""
    asked = []

    def time_graphs_on(host, graphs, *, keep, known, threads, **_):
        assert host == "pi@device"
        asked.append({each.key for each in graphs})
        return time_graphs(graphs, keep=keep, known=known, threads=threads, time_s=0.05)

    monkeypatch.setattr("edgekit.profiling.book.time_graphs_on", time_graphs_on)
    return asked


def test_a_device_that_is_elsewhere_says_what_files_it_runs(tmp_path, monkeypatch):
    """By its costs, or by itself where there are none yet; it is asked once."""
    asked, path = [], tmp_path / "costs.json"

    def describe_on(host, *, python, threads):
        asked.append((host, python, threads))
        about = {"isa_target": "arm64"}
        return MeasuredCosts(threads=threads, provider="cpu", measured={}, conditions=({"before": about},))

    monkeypatch.setattr("edgekit.profiling.book.describe_on", describe_on)
    assert target_of(None, None) is None
    assert target_of(path, None) is None
    assert target_of(path, "pi@device", python="py", threads=2) == "arm64"
    assert target_of(path, "pi@device") == target_of(path, None) == "arm64"
    assert asked == [("pi@device", "py", 2)]


def test_a_request_holds_what_is_missing_of_all_networks_so_far(book, tmp_path):
    request, costs = tmp_path / "missing.request", tmp_path / "costs.json"
    for data in (NARROW, WIDE):
        with pytest.raises(EdgekitError, match="pieces of the networks have no costs"):
            book().predicted({"net": data}, SHAPES)
    time_graphs(read_request(request), keep=lambda found: found.save(costs), time_s=0.05)
    found = book().predicted({"narrow": NARROW, "wide": WIDE}, SHAPES)
    for name, data in (("narrow", NARROW), ("wide", WIDE)):
        parts, prediction = found[name]
        assert parts == pieces(onnx.load_from_string(data), SHAPES)
        assert prediction == predict(parts, load_costs(costs))
        assert prediction.us > 0
        assert not prediction.missing


def test_a_request_leaves_out_what_has_costs_by_now(book, tmp_path):
    request, costs = tmp_path / "missing.request", tmp_path / "costs.json"
    with pytest.raises(EdgekitError, match="which is not there yet"):
        book().predicted({"net": NARROW}, SHAPES)
    time_graphs(read_request(request), keep=lambda found: found.save(costs), time_s=0.05)
    with pytest.raises(EdgekitError, match="have no costs"):
        book().predicted({"net": WIDE}, SHAPES)
    assert not {each.key for each in read_request(request)} & set(load_costs(costs).measured)


def test_a_host_times_each_piece_once_whoever_asks(book, there):
    first, second = book(host="pi@device"), book(host="pi@device")
    first.predicted({"net": NARROW}, SHAPES)
    first.predicted({"net": NARROW}, SHAPES)
    second.predicted({"net": NARROW}, SHAPES)
    assert len(there) == 1
    second.predicted({"net": WIDE}, SHAPES)
    first.predicted({"net": WIDE}, SHAPES)
    assert len(there) == 2
    assert not there[0] & there[1]
    assert second.key["device"] == list(load_costs(second.path).device)


def test_what_the_device_could_not_run_is_said(book, tmp_path):
    with pytest.raises(EdgekitError):
        book().predicted({"net": NARROW}, SHAPES)
    failed = {each.key: "no such operator" for each in read_request(tmp_path / "missing.request")}
    MeasuredCosts(threads=1, provider="cpu", measured={}, failed=failed).save(tmp_path / "costs.json")
    with pytest.raises(EdgekitError, match=r"the device could not run .* no such operator"):
        book().predicted({"net": NARROW}, SHAPES)


def test_costs_of_another_number_of_threads_are_refused(book, tmp_path):
    MeasuredCosts(threads=4, provider="cpu", measured={}).save(tmp_path / "costs.json")
    with pytest.raises(EdgekitError, match="measured with 4 thread"):
        book()
