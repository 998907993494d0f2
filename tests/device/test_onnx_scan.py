from __future__ import annotations

from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgekit.device.onnx_scan import scan
from edgekit.errors import BundleError

value = helper.make_tensor_value_info
X, Y = value("x", TensorProto.FLOAT, [2]), value("y", TensorProto.FLOAT, [2])
WEIGHT = numpy_helper.from_array(np.ones(2, np.float32), "w")


def model(nodes, *, initializers=(), opsets=(("", 20),), **options):
    graph = helper.make_graph(nodes, "g", [X], [Y], list(initializers), **options)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(*pair) for pair in opsets], ir_version=10)


def external(name="w"):
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../secret")
    return tensor


def attribute_tensor(tensor):
    return helper.make_node("Constant", [], ["y"], value=tensor)


def subgraph(*nodes, initializers=()):
    return helper.make_graph(list(nodes), "sub", [], [Y], list(initializers))


def function(domain="", node_domain="", tensor=None):
    node = helper.make_node("Relu", ["a"], ["b"], domain=node_domain)
    nodes = [node] if tensor is None else [helper.make_node("Constant", [], ["b"], value=tensor)]
    return helper.make_function(domain, "F", ["a"], ["b"], nodes, [helper.make_opsetid("", 20)])


RELU = helper.make_node("Relu", ["x"], ["y"])


def with_function(made):
    built = model([RELU])
    built.functions.append(made)
    return built


def nested(depth):
    graph = subgraph(RELU)
    for _ in range(depth):
        graph = subgraph(helper.make_node("If", ["c"], ["y"], then_branch=graph))
    return model([helper.make_node("If", ["c"], ["y"], then_branch=graph)])


def sparse(tensor):
    made = onnx.SparseTensorProto(dims=[4])
    made.values.CopyFrom(tensor)
    made.indices.CopyFrom(numpy_helper.from_array(np.array([0, 1])))
    return made


def training_info(tensor):
    built = model([RELU])
    built.training_info.add().algorithm.initializer.append(tensor)
    return built


def location_only():
    tensor = numpy_helper.from_array(np.ones(2, np.float32), "w")
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def test_counts_agree_with_onnx():
    built = model(
        [
            helper.make_node("Add", ["x", "w"], ["a"]),
            helper.make_node("Gelu", ["a"], ["b"], domain="com.microsoft"),
            helper.make_node("Relu", ["b"], ["c"]),
            helper.make_node("Relu", ["c"], ["y"]),
        ],
        initializers=[WEIGHT],
        opsets=(("", 20), ("com.microsoft", 1)),
    )
    found = scan(built.SerializeToString(), "model")
    assert found.operators == {"Relu": 2, "Add": 1, "com.microsoft.Gelu": 1}
    assert found.opsets == {"ai.onnx": 20, "com.microsoft": 1}
    assert (found.ir_version, found.tensors) == (10, 1)
    assert found.to_dict()["nodes"] == len(built.graph.node)


@pytest.mark.parametrize(
    ("built", "text"),
    [
        (model([RELU], initializers=[external()]), "keeps its data in another file"),
        (model([RELU], initializers=[location_only()]), "keeps its data in another file"),
        (model([attribute_tensor(external())]), "keeps its data in another file"),
        (model([RELU], sparse_initializer=[sparse(external())]), "keeps its data in another file"),
        (with_function(function()), "functions of its own"),
        (with_function(function(tensor=external())), "functions of its own"),
        (training_info(external()), "keeps its data in another file"),
        (
            model([helper.make_node("If", ["x"], ["y"], then_branch=subgraph(RELU, initializers=[external()]))]),
            "keeps its data in another file",
        ),
        (model([RELU], opsets=(("", 20), ("evil", 1))), "operator domain 'evil'"),
        (model([helper.make_node("Relu", ["x"], ["y"], domain="evil")]), "operator domain 'evil'"),
        (model([helper.make_node("Conv", ["x"], ["y"], domain="com.microsoft.nchwc")]), "'com.microsoft.nchwc'"),
        (with_function(function(domain="evil")), "functions of its own"),
        (model([helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")]), "operator EPContext"),
        (model([helper.make_node("PythonOp", ["x"], ["y"], domain="com.microsoft")]), "operator PythonOp"),
        (nested(20), "nested too deeply"),
    ],
)
def test_refuses_what_reaches_beyond_the_file(built, text):
    with pytest.raises(BundleError) as caught:
        scan(built.SerializeToString(), "model.onnx")
    assert text in str(caught.value)
    assert "where: model.onnx" in str(caught.value)


def test_a_little_nesting_is_fine():
    assert scan(nested(5).SerializeToString(), "m").operators == {"If": 6, "Relu": 1}


def field(number, wire, body):
    return bytes([number << 3 | wire]) + body


def text_field(number, body):
    return field(number, 2, bytes([len(body)]) + body)


def test_a_field_of_a_wrong_wire_type_hides_no_domain():
    # A parser ignores the number and keeps the text "evil".
    node = text_field(4, b"Relu") + text_field(7, b"evil") + field(7, 0, b"\x00")
    graph = text_field(1, node)
    data = field(1, 0, b"\x0a") + text_field(7, graph) + text_field(8, field(2, 0, b"\x14"))
    assert onnx.load_model_from_string(data).graph.node[0].domain == "evil"
    with pytest.raises(BundleError, match="operator domain 'evil'"):
        scan(data, "m")


def test_a_graph_given_in_two_parts_is_seen_whole():
    first = model([RELU]).SerializeToString()
    second = text_field(7, text_field(1, text_field(4, b"Relu") + text_field(7, b"evil")))
    assert len(onnx.load_model_from_string(first + second).graph.node) == 2
    with pytest.raises(BundleError, match="operator domain 'evil'"):
        scan(first + second, "m")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "no graph or no operator set"),
        (b"\x08", "the file ends within a number"),
        (b"\x08" + b"\xff" * 11, "a number of more than 10 bytes"),
        (b"\x3a\x05ab", "a field of 5 bytes where 2 are left"),
        (b"\x0b", "wire type 3"),
        (b"\x00\x00", "field number 0"),
        (b"\x18\x00\x00\x00ORTM", "an ORT-format model"),
        (b"\x0d\x00\x00\x00\x00", "no graph or no operator set"),
    ],
)
def test_refuses_what_is_no_onnx(data, text):
    with pytest.raises(BundleError, match=text):
        scan(data, "m")


def test_limits_nodes(monkeypatch):
    monkeypatch.setattr("edgekit.device.onnx_scan.MAX_NODES", 2)
    nodes = [helper.make_node("Relu", ["x"], [f"y{i}"]) for i in range(3)]
    with pytest.raises(BundleError, match="more than 2 nodes"):
        scan(model(nodes).SerializeToString(), "m")


WHOLE = model([RELU], initializers=[WEIGHT]).SerializeToString()


@given(st.binary(max_size=200))
@example(WHOLE[: len(WHOLE) // 2])
def test_any_bytes_give_a_scan_or_a_bundle_error(data):
    with suppress(BundleError):
        scan(data, "m")


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_any_changed_byte_gives_a_scan_or_a_bundle_error(position, change):
    data = bytearray(WHOLE)
    data[position] ^= change
    with suppress(BundleError):
        scan(bytes(data), "m")
