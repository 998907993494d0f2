"""Cutting: what is equal has equal keys, every node is in one piece, and each graph runs as it would inside."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgekit.device.onnx_scan import scan
from edgekit.device.timing import call_of
from edgekit.errors import EdgekitError
from edgekit.profiling import graphs, pieces
from tests.profiling.conftest import Maker, quantized, residual

NETWORKS = {"fp32": residual, "int8": quantized}


def operators(graph: bytes, tmp_path: Path) -> Counter[str]:
    """What ONNX Runtime makes of a graph."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_every_node_lies_in_exactly_one_piece(network):
    model = network()
    constants = {tensor.name for tensor in model.graph.initializer}
    weights_only = {node.name for node in model.graph.node if set(node.input) <= constants}
    held = Counter(name for piece in pieces(model) for name in piece.nodes)
    expected = Counter(node.name for node in model.graph.node if node.name not in weights_only)
    shared = Counter(name for node in model.graph.node for name in node.input)
    for node in model.graph.node:
        # A DequantizeLinear that several read is part of each reader.
        if node.op_type == "DequantizeLinear" and node.name in expected:
            expected[node.name] = shared[node.output[0]] or 1
    assert held == expected


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_names_and_weights_do_not_matter(network):
    one, other = pieces(network(seed=1)), pieces(network(seed=2, prefix="other/"))
    assert [piece.key for piece in one] == [piece.key for piece in other]
    assert [each.graph for each in graphs(one)] == [each.graph for each in graphs(other)]


def test_scales_of_int8_do_not_matter():
    one, other = pieces(quantized(scale=0.1, zero=120)), pieces(quantized(scale=0.03, zero=140))
    assert [piece.key for piece in one] == [piece.key for piece in other]


def test_a_single_weight_does_not_matter_and_a_single_factor_does():
    def heads(seed, factor):
        maker = Maker(seed)
        times = maker.node("Mul", maker.conv("x", 3, 1), maker.constant(np.array(factor, np.float32)))
        return [piece.key for piece in pieces(maker.model(times))]

    assert heads(1, 2.0) == heads(2, 2.0)
    assert heads(1, 2.0) != heads(1, 3.0)


def test_a_width_changes_the_pieces_beside_it_and_no_others():
    wide, narrow = pieces(residual(blocks=3, inner=16)), pieces(residual(blocks=3, inner=8))
    known = {piece.key for piece in wide}
    same = [piece.text for piece in narrow if piece.key in known]
    assert same == ["GlobalAveragePool -> 1x16x1x1", "Reshape + Gemm -> 1x4"]


def test_blocks_that_are_alike_are_counted():
    three, nine = ({piece.key: piece.count for piece in pieces(residual(blocks=n))} for n in (3, 9))
    assert three.keys() == nine.keys()
    grown = {key for key in three if nine[key] > three[key]}
    assert sum(nine.values()) - sum(three.values()) == 6 * 2  # A block is Conv+Relu and Conv+Add+Relu.
    assert grown
    assert {nine[key] - three[key] for key in grown} == {6}


def test_a_convolution_takes_sum_and_activation_with_it():
    texts = {piece.text: piece.count for piece in pieces(residual(blocks=2))}
    assert texts["Conv 16x3x3x3 + Relu -> 1x16x16x16"] == 1
    assert sum(count for text, count in texts.items() if text == "Conv 16x16x3x3 + Add + Relu -> 1x16x16x16") == 2 - 1
    assert sum(piece.count for piece in pieces(residual(blocks=2)) if "Add" in piece.text) == 2


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_every_graph_runs_and_is_safe_to_send(network):
    for each in graphs(pieces(network())):
        scan(each.graph, "piece")
        outputs = call_of(each)()
        assert all(np.isfinite(array.astype(np.float64)).all() for array in outputs)


def test_an_int8_piece_runs_on_integers_as_inside_the_network(tmp_path):
    found = pieces(quantized())
    conv = next(piece for piece in found if piece.text.startswith("Conv 16x16x3x3 + Relu"))
    assert conv.precision == "int8"
    kinds = operators(conv.together.graph, tmp_path)
    assert kinds["QLinearConv"] == 2
    assert not {"Conv", "FusedConv", "QuantizeLinear", "DequantizeLinear"} & set(kinds)
    assert operators(quantized().SerializeToString(), tmp_path)["QLinearConv"] == 2


def test_a_graph_computes_what_its_nodes_compute():
    """A pooling has no weights to be replaced, so its graph must give what numpy gives."""
    maker = Maker()
    found = pieces(maker.model(maker.node("GlobalAveragePool", "x"), (1, 3, 4, 5)))
    (piece,) = found
    session = onnxruntime.InferenceSession(piece.together.graph, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 5)).astype(np.float32)
    (made,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(made, x.mean((2, 3), keepdims=True), rtol=1e-6)
    assert piece.behind.key == "call"


def test_what_is_behind_is_what_is_left_without_the_piece():
    for piece in pieces(residual()):
        together = onnx.load_from_string(piece.together.graph)
        behind = onnx.load_from_string(piece.behind.graph)
        if piece.behind.key != "call":
            ops = [Counter(node.op_type for node in each.graph.node) for each in (together, behind)]
            own = Counter(piece.text.split(" -> ")[0].replace(" 16x16x3x3", "").replace(" 16x3x3x3", "").split(" + "))
            assert ops[0] - ops[1] == own


def test_an_open_batch_is_one_and_other_sizes_are_asked_for():
    maker = Maker()
    model = maker.model(maker.node("Relu", "x"), ("batch", "time", 8))
    with pytest.raises(EdgekitError, match="axis 1 is open: time"):
        pieces(model)
    (piece,) = pieces(model, {"x": (1, 40, 8)})
    assert piece.text == "Relu -> 1x40x8"
    assert piece.together.inputs == (("float32", (1, 40, 8)),)
    assert pieces(model, {"x": (1, 41, 8)})[0].key != piece.key


def test_the_same_weights_shape_by_another_attribute_is_another_piece():
    found = []
    for stride in (1, 2):
        maker = Maker()
        found.append(pieces(maker.model(maker.conv("x", 3, 16, stride=stride))))
    assert found[0][0].key != found[1][0].key


def test_shapes_that_are_computed_are_folded():
    maker = Maker()
    shape = maker.node("Shape", "x")
    batch = maker.node("Gather", shape, maker.constant(np.array([0], np.int64)), axis=0)
    rest = maker.constant(np.array([-1], np.int64))
    flat = maker.node("Reshape", maker.node("Relu", "x"), maker.node("Concat", batch, rest, axis=0))
    (piece,) = pieces(maker.model(flat))
    assert piece.text == f"Relu + Reshape -> 1x{3 * 16 * 16}"


def test_weights_are_replaced_by_numbers_that_pack_well():
    maker = Maker()
    (piece,) = pieces(maker.model(maker.node("MatMul", "x", maker.weight(64, 512)), ("batch", 64)))
    (tensor,) = onnx.load_from_string(piece.together.graph).graph.initializer
    array = onnx.numpy_helper.to_array(tensor)
    assert array.shape == (64, 512)
    assert np.unique(array).size < 300
    assert np.abs(array).min() > np.finfo(np.float32).tiny


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda maker: maker.node("Unheard", "x"), "cannot be told"),
        (
            lambda maker: maker.node("If", maker.constant(np.array(True)), then_branch=_body(), else_branch=_body()),
            "graph inside",
        ),
    ],
    ids=["unknown operator", "control flow"],
)
def test_what_cannot_be_cut_is_refused(change, match):
    maker = Maker()
    with pytest.raises(EdgekitError, match=match):
        pieces(maker.model(maker.node("Relu", change(maker))))


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"no")
    with pytest.raises(EdgekitError, match="not an ONNX file"):
        pieces(tmp_path / "no.onnx")
    with pytest.raises(EdgekitError, match="no file"):
        pieces(tmp_path / "absent.onnx")


def test_wrong_sizes_are_refused():
    with pytest.raises(EdgekitError, match="no input y"):
        pieces(residual(), {"y": (1, 3, 16, 16)})
    with pytest.raises(EdgekitError, match="axis 1 is 4"):
        pieces(residual(), {"x": (1, 4, 16, 16)})


def _body():
    out = onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [1])
    return onnx.helper.make_graph([onnx.helper.make_node("Constant", [], ["b"], value_floats=[1.0])], "body", [], [out])
