"""What is said of ONNX files, against graphs whose figures are known by their making."""

import hashlib
import json

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.errors import EdgekitError
from edgekit.inspection import inspect_onnx

FLOAT = TensorProto.FLOAT
UNQUANTIZED = "its weights are not quantized (ONNX Runtime may do so when it loads the file)"


def value(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name, shape, kind=np.float32):
    return numpy_helper.from_array(np.ones(shape, kind), name)


@pytest.fixture
def saved(tmp_path):
    """Write a graph of nodes; gives the file."""

    def save(nodes, inputs, outputs, constants=(), *, name="net.onnx", **options):
        graph = helper.make_graph(nodes, "g", inputs, outputs, list(constants))
        domains = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=domains, ir_version=10, producer_name="tests", **options)
        helper.set_model_props(model, {"author": "nobody"})
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def network(saved):
    """A convolution over time, and a product; batch and time are open."""
    return saved(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1, 1], strides=[2], group=2),
            helper.make_node("Relu", ["c"], ["r"], name="relu"),
            helper.make_node("Transpose", ["r"], ["t"], name="turn", perm=[0, 2, 1]),
            helper.make_node("MatMul", ["t", "m"], ["y"], name="product"),
        ],
        [value("x", ["batch", 4, "time"])],
        [value("y", ["batch", "steps", 5])],
        [constant("w", (8, 2, 3)), constant("b", (8,)), constant("m", (8, 5))],
    )


def test_sizes_operators_weights_and_origin(network):
    found = inspect_onnx(network, shapes={"x": (2, 4, 20)})
    assert [str(tensor) for tensor in found.inputs] == ["float32 [batch, 4, time]"]
    assert found.dynamic == {"batch": ["x:0", "y:0"], "time": ["x:2"], "steps": ["y:1"]}
    assert found.assumed == {"x": (2, 4, 20)}
    assert found.operators == {"Conv": 1, "Relu": 1, "Transpose": 1, "MatMul": 1}
    assert found.parameters == 8 * 2 * 3 + 8 + 8 * 5
    assert found.weight_bytes == {"float32": 4 * found.parameters}
    assert {layer.name: layer.weight_bytes for layer in found.layers} == {"conv": 4 * 56, "product": 4 * 40}
    assert (found.opsets["ai.onnx"], found.ir_version, found.producer) == (20, 10, "tests")
    assert found.metadata == {"author": "nobody"}
    assert found.sha256 == hashlib.sha256(network.read_bytes()).hexdigest()
    assert found.size_bytes == network.stat().st_size


def test_multiply_accumulates_of_each_node_follow_the_formulas(network):
    found = inspect_onnx(network, shapes={"x": (2, 4, 20)})
    steps = (20 + 2 - 3) // 2 + 1
    assert {layer.name: layer.macs for layer in found.layers} == {
        "conv": 2 * 8 * steps * (4 // 2) * 3,
        "product": 2 * steps * 8 * 5,
    }
    assert found.macs == sum(layer.macs for layer in found.layers)
    assert inspect_onnx(network, shapes={"x": (6, 4, 20)}).macs == 3 * found.macs


def test_what_open_sizes_leave_unknown_is_named_and_not_zero(network):
    found = inspect_onnx(network, batch=3)
    assert found.assumed == {"x": (3, 4, "time")}
    assert [(layer.name, layer.macs) for layer in found.layers] == [("conv", None), ("product", None)]
    assert [layer.name for layer in found.unknown] == ["conv", "product"]
    assert all("--shape" in layer.why for layer in found.unknown)
    assert found.uncounted == {}


def test_an_operator_without_a_rule_is_named(saved):
    path = saved(
        [
            helper.make_node("DFT", ["x", "n"], ["y"], name="spectrum", onesided=1),
            helper.make_node("Tea", ["y"], ["z"], domain="com.microsoft"),
        ],
        [value("x", [1, 8, 1])],
        [value("z", None)],
        [numpy_helper.from_array(np.array(8, np.int64), "n")],
    )
    found = inspect_onnx(path)
    assert found.uncounted == {"DFT": ("spectrum",), "com.microsoft.Tea": ("z",)}
    assert [(layer.name, layer.macs) for layer in found.unknown] == [("spectrum", None), ("z", None)]
    assert found.to_dict()["unknown"] == ["spectrum", "z"]


def test_a_graph_inside_has_its_operators_counted_and_its_work_unknown(saved):
    def branch(name):
        node = helper.make_node("MatMul", ["x", "w"], [name])
        return helper.make_graph([node], name, [], [value(name, [2, 2])])

    path = saved(
        [helper.make_node("If", ["c"], ["y"], name="choice", then_branch=branch("a"), else_branch=branch("b"))],
        [value("x", [2, 2]), value("c", [], TensorProto.BOOL)],
        [value("y", [2, 2])],
        [constant("w", (2, 2))],
    )
    found = inspect_onnx(path)
    assert found.operators == {"MatMul": 2, "If": 1}
    assert found.uncounted == {"If": ("choice",)}


def quantized(saved, *, after=True, weights=True, data=True, operator="Conv"):
    """x -> Q -> DQ -> operator -> Relu -> Q -> DQ -> MatMul in fp32."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z8"], ["wd"]),
        helper.make_node(
            operator, ["xd" if data else "x", "wd" if weights else "wf"], ["c"], name="main", pads=[1, 1, 1, 1]
        ),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "s", "z"], ["rq"]),
        helper.make_node("DequantizeLinear", ["rq", "s", "z"], ["rd"]),
        helper.make_node("MatMul", ["rd" if after else "r", "m"], ["y"], name="last"),
    ]
    constants = [
        constant("w", (4, 4, 3, 3), np.int8),
        constant("wf", (4, 4, 3, 3)),
        constant("m", (6, 2)),
        constant("s", ()),
        numpy_helper.from_array(np.zeros((), np.uint8), "z"),
        numpy_helper.from_array(np.zeros((), np.int8), "z8"),
    ]
    used = {name for node in nodes for name in node.input}
    return saved(
        nodes, [value("x", [1, 4, 6, 6])], [value("y", [1, 4, 6, 2])], [each for each in constants if each.name in used]
    )


def test_int8_is_counted_where_a_kernel_can_fuse(saved):
    found = inspect_onnx(quantized(saved))
    conv, last = 4 * 36 * 4 * 9, 4 * 6 * 6 * 2
    assert found.macs == conv + last
    assert {layer.name: (layer.precision, layer.why) for layer in found.computing} == {
        "main": ("int8", ""),
        "last": ("float32", UNQUANTIZED),
    }
    assert found.int8_share_of_macs == pytest.approx(conv / (conv + last))
    assert found.int8_share_of_nodes == 0.5
    # Scales and zero points are no parameters; weights of a byte take one, and their zero point another.
    assert found.parameters == 4 * 4 * 9 + 12
    assert {layer.name: layer.weight_bytes for layer in found.computing} == {"main": 144 + 1, "last": 48}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"weights": False, "data": False}, "neither its data nor its weights are quantized"),
        ({"data": False}, "its weights alone are quantized"),
        ({"weights": False}, UNQUANTIZED),
        ({"operator": "ConvTranspose"}, "ONNX Runtime has no int8 kernel for ConvTranspose"),
        ({"after": False}, "nothing quantizes what it makes, so no kernel fuses"),
    ],
)
def test_why_a_node_is_not_int8(saved, options, why):
    path = quantized(saved, **options)
    assert {layer.name: (layer.precision, layer.why) for layer in inspect_onnx(path).computing}["main"] == (
        "float32",
        why,
    )
    planned = inspect_onnx(path, reasons={"main": "the plan says so"})
    assert next(layer.why for layer in planned.computing if layer.name == "main") == "the plan says so"
    assert planned.to_dict()["int8"]["not_int8"]["main"] == "the plan says so"


@pytest.mark.parametrize("options", [{}, {"after": False}, {"data": False}])
def test_what_is_called_int8_is_what_onnx_runtime_fuses(saved, tmp_path, options):
    path = quantized(saved, **options)
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    settings.log_severity_level = 4
    onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    fused = "QLinearConv" in {node.op_type for node in ir.load(tmp_path / "optimized.onnx").graph}
    main = next(layer for layer in inspect_onnx(path).computing if layer.name == "main")
    assert (main.precision == "int8") == fused


def test_sizes_are_known_behind_onnx_runtimes_own_operators(saved):
    """Their sizes by hand; ONNX Runtime itself gives the output's."""
    path = saved(
        [
            helper.make_node(
                "MatMulNBits",
                ["x", "packed", "scales"],
                ["a"],
                name="few",
                domain="com.microsoft",
                K=32,
                N=48,
                bits=4,
                block_size=32,
            ),
            helper.make_node("FastGelu", ["a"], ["g"], domain="com.microsoft"),
            helper.make_node("Attention", ["g", "wa", "ba"], ["t"], name="att", domain="com.microsoft", num_heads=2),
            helper.make_node("MatMul", ["t", "m"], ["y"], name="last"),
        ],
        [value("x", ["batch", 7, 32])],
        [value("y", ["batch", 7, 3])],
        [
            numpy_helper.from_array(np.zeros((48, 1, 16), np.uint8), "packed"),
            constant("scales", (48,)),
            constant("wa", (48, 24)),
            constant("ba", (24,)),
            constant("m", (8, 3)),
        ],
    )
    found = inspect_onnx(path, batch=2)
    assert {layer.name: layer.macs for layer in found.layers if layer.macs} == {
        "few": 14 * 32 * 48,
        "att": 14 * 48 * 24 + 2 * 7 * 7 * (8 + 8),
        "last": 14 * 8 * 3,
    }
    assert found.unknown == ()
    assert found.parameters == 32 * 48 + 48 * 24 + 24 + 24
    assert next(layer for layer in found.layers if layer.name == "few").why == "its weights alone have few bits"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.ones((2, 7, 32), np.float32)})[0].shape == (2, 7, 3)


def test_shared_weights_are_counted_once(saved):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    found = inspect_onnx(saved(nodes, [value("x", [1, 4])], [value("y", [1, 4])], [constant("w", (4, 4))]))
    assert (found.parameters, [layer.weight_bytes for layer in found.layers]) == (16, [64, 0])


def test_functions_of_the_file_itself_are_written_out(saved):
    body = helper.make_function(
        "own", "Twice", ["a"], ["c"], [helper.make_node("Add", ["a", "a"], ["c"])], [helper.make_opsetid("", 20)]
    )
    path = saved(
        [helper.make_node("Twice", ["x"], ["y"], domain="own")], [value("x", [1])], [value("y", [1])], functions=[body]
    )
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("own", 1))
    onnx.save(model, path)
    found = inspect_onnx(path)
    assert (found.operators, found.uncounted) == ({"Add": 1}, {})


def test_external_data_are_named_and_not_opened(saved, tmp_path):
    (tmp_path / "beside.data").write_bytes(b"\0" * 64)
    tensors = []
    for index, location in enumerate(("beside.data", "gone.data", "../outside.data", "/etc/passwd")):
        tensor = onnx.TensorProto(name=f"w{index}", data_type=FLOAT, dims=[4, 4])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        tensors.append(tensor)
    nodes = [
        helper.make_node("MatMul", [f"v{index}" if index else "x", f"w{index}"], [f"v{index + 1}"])
        for index in range(4)
    ]
    found = inspect_onnx(saved(nodes, [value("x", [1, 4])], [value("v4", [1, 4])], tensors))
    assert found.external == {"beside.data": 64, "gone.data": None, "../outside.data": None, "/etc/passwd": None}
    assert (found.parameters, found.macs) == (64, 64)


@pytest.mark.parametrize("content", [b"", b"not ONNX at all", b"\x08\x0a", b"\xff" * 64])
def test_a_file_that_is_none_is_an_error_with_a_way_out(tmp_path, content):
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(EdgekitError, match="not an ONNX file") as raised:
        inspect_onnx(tmp_path / "x.onnx")
    assert raised.value.way_out


def test_a_file_that_is_cut_off_is_an_error(network):
    content = network.read_bytes()
    network.write_bytes(content[: len(content) // 2])
    with pytest.raises(EdgekitError):
        inspect_onnx(network)


@pytest.mark.parametrize(
    ("tensor", "problem"),
    [
        (TensorProto(name="w", data_type=FLOAT, dims=[1 << 40], raw_data=b"1234"), "has 4 bytes"),
        (TensorProto(name="w", data_type=FLOAT, dims=[-4, 4]), "has the sizes"),
    ],
)
def test_a_tensor_that_is_not_as_large_as_it_says_is_refused(saved, tensor, problem):
    path = saved([helper.make_node("Add", ["x", "w"], ["y"])], [value("x", [4])], [value("y", [4])], [tensor])
    with pytest.raises(EdgekitError, match=problem) as raised:
        inspect_onnx(path)
    assert raised.value.way_out


def test_a_size_that_does_not_fit_and_an_input_that_is_not_there(network):
    with pytest.raises(EdgekitError, match="axis 1 is 5"):
        inspect_onnx(network, shapes={"x": (1, 5, 20)})
    with pytest.raises(EdgekitError, match="no input tokens"):
        inspect_onnx(network, shapes={"tokens": (1, 4, 20)})


def test_the_nearest_input_is_named(saved):
    path = saved([helper.make_node("Relu", ["image"], ["y"])], [value("image", [1])], [value("y", [1])])
    with pytest.raises(EdgekitError, match="no input imge") as raised:
        inspect_onnx(path, shapes={"imge": (1,)})
    assert raised.value.way_out == "did you mean image?"


def test_the_facts_are_json(network):
    about = json.loads(json.dumps(inspect_onnx(network).to_dict()))
    assert about["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 4, "time"]}]
    assert about["int8"]["share_of_nodes"] == 0


def test_the_costs_of_quantization_count_alike(network):
    """`edgekit.quantize.macs` counts one sample of a graph whose sizes need not be known; where they are, the same."""
    from edgekit.quantize.macs import macs

    model = ir.load(network)
    model.graph.inputs[0].shape = ir.Shape((1, 4, 20))
    proto = onnx.shape_inference.infer_shapes(ir.to_proto(model))
    counted = {node.name: macs(node) for node in ir.from_proto(proto).graph}
    expected = {layer.name: layer.macs for layer in inspect_onnx(network, shapes={"x": (1, 4, 20)}).layers}
    assert {name: count for name, count in counted.items() if count} == expected
