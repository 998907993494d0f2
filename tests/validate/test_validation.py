from __future__ import annotations

import json
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from edgekit.errors import EdgekitError, ProviderError
from edgekit.tasks import classification
from edgekit.validate import first_feeds, latency_table, nodes_by_provider, validate
from edgekit.validate import validation as module


def test_each_node_is_counted_where_it_ran(exported):
    found = nodes_by_provider(exported.path)
    assert list(found.providers) == ["CPUExecutionProvider"]
    ran = found.providers["CPUExecutionProvider"]
    # Conv and Relu become one FusedConv in either layout; what ran is what the optimized graph holds.
    assert sum(ran.values()) == sum(found.optimized.values())
    assert not {"Relu", "BatchNormalization"} & set(ran)
    assert ran["Gemm"] == 1
    assert any("Conv" in operator for operator in ran)


def test_without_feeds_any_input_type_gets_zeros(tmp_path):
    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", 3]),
        helper.make_tensor_value_info("mask", TensorProto.BOOL, ["batch", 3]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.INT64, ["batch", 3])]
    nodes = [helper.make_node("Where", ["mask", "tokens", "tokens"], ["y"])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    onnx.save(model, tmp_path / "m.onnx")
    assert nodes_by_provider(tmp_path / "m.onnx").providers == {"CPUExecutionProvider": {"Where": 1}}


def test_a_slower_file_is_called_slower(tmp_path, data, exported):
    # The same answers after a great deal of work: its ratio must lie far below 1 on any machine.
    model = onnx.load(exported.path)
    size = 400
    weight = helper.make_tensor(
        "w", TensorProto.FLOAT, [size, size], np.eye(size, dtype=np.float32).tobytes(), raw=True
    )
    model.graph.initializer.append(weight)
    model.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 1]))
    nodes = [helper.make_node("RandomNormal", [], ["r"], shape=[size, size])]
    nodes += [
        helper.make_node("MatMul", [["r", "m0"][i > 0] if i < 2 else f"m{i - 1}", "w"], [f"m{i}"]) for i in range(5)
    ]
    nodes += [
        helper.make_node("ReduceSum", ["m4"], ["s"], keepdims=0),
        helper.make_node("Sub", ["s", "s"], ["z"]),
        helper.make_node("Add", [model.graph.node[-1].output[0] + "_raw", "z"], [model.graph.node[-1].output[0]]),
    ]
    model.graph.node[-1].output[0] += "_raw"
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, tmp_path / "slow.onnx")
    feeds = first_feeds(data, exported.spec)
    files = {"slow": tmp_path / "slow.onnx", "net": exported.path}
    table = latency_table(files, feeds, baseline="net", time_s=0.3)
    assert list(table) == ["slow", "net"]
    assert table["slow"].verdict == "slower"
    assert table["slow"].ratio.high < 0.5
    assert (table["net"].ratio.value, table["net"].verdict) == (1.0, "no measurable difference")
    with pytest.raises(EdgekitError, match="no file 'other'"):
        latency_table(files, feeds, baseline="other")


def test_all_claims_about_each_file_and_a_row_for_the_provider_that_is_not_here(exported, other, data, monkeypatch):
    def here(provider):
        if provider == "cuda":
            raise ProviderError("provider 'cuda' is not in this onnxruntime", rule="available here: CPU")
        return {"cpu": "CPUExecutionProvider"}[provider]

    monkeypatch.setattr(module, "provider_name", here)
    found = validate(
        {"fp32": exported.path, "changed": other},
        data,
        classification(),
        spec=exported.spec,
        baseline="fp32",
        providers=("cpu", "cuda"),
        time_s=0.2,
    )
    base, changed = found.row("fp32"), found.row("changed")
    assert (base.comparison.drop.value, base.comparison.agreement.value) == (0, 100)
    want = base.score.metric.value - changed.score.metric.value
    assert changed.comparison.drop.value == pytest.approx(want)
    assert changed.comparison.broken - changed.comparison.fixed == pytest.approx(want * 37 / 100)
    assert changed.comparison.agreement.value < 100
    assert base.footprint.size_bytes == exported.path.stat().st_size
    assert base.footprint.load_ms > 0
    assert base.footprint.first_ms > 0
    assert base.footprint.peak_bytes > base.footprint.base_bytes > 0
    assert base.timing.latency.p50.value > 0
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [row["provider"] for row in record["rows"]] == ["cpu", "cpu", "cuda"]
    assert record["rows"][2]["status"].startswith("unavailable: provider 'cuda' is not in this onnxruntime")
    assert record["rows"][0]["nodes"]["providers"].keys() == {"CPUExecutionProvider"}
    with pytest.raises(EdgekitError, match="no row for 'fp32' on 'cuda'"):
        found.row("fp32", "cuda")


def test_wrong_arguments(exported, data):
    task, files = classification(), {"fp32": exported.path}
    with pytest.raises(EdgekitError, match="no file 'int8'"):
        validate(files, data, task, spec=exported.spec, baseline="int8")
    with pytest.raises(ProviderError, match="unknown provider 'gpu'"):
        validate(files, data, task, spec=exported.spec, baseline="fp32", providers=("gpu",))


@pytest.mark.gpu
@pytest.mark.usefixtures("cuda")
def test_on_cuda_the_nodes_run_on_cuda(exported, data):
    found = validate(
        {"fp32": exported.path},
        data,
        classification(),
        spec=exported.spec,
        baseline="fp32",
        providers=("cuda",),
        time_s=0.5,
    )
    placed = Counter(
        {name: sum(nodes.values()) for name, nodes in found.row("fp32", "cuda").placement.providers.items()}
    )
    assert placed.most_common(1)[0][0] == "CUDAExecutionProvider"
    assert torch.isfinite(torch.tensor(found.row("fp32", "cuda").score.metric.value))
