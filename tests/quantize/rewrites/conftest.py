"""What the tests of rewrites share: small graphs, and ONNX Runtime without optimizations as the oracle."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from edgekit.export import spec_of
from edgekit.quantize import quantize, rewrites


def make_graph(nodes, constants, shape=(4, 8, 8), *, output="y", opset=20, made=None):
    """A checked model with an open batch, and shapes inferred; `made` is an output's, where inference cannot tell."""
    outputs = [output] if isinstance(output, str) else output
    domains = {node[3]["domain"] for node in nodes if "domain" in node[3]}
    graph = helper.make_graph(
        [helper.make_node(op, ins, outs, name=f"{op}_{i}", **given) for i, (op, ins, outs, given) in enumerate(nodes)],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, made and ["batch", *made]) for name in outputs],
        [numpy_helper.from_array(_single(array), name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    model = shape_inference.infer_shapes(model, strict_mode=not domains)
    onnx.checker.check_model(model)
    return model


def _single(array):
    """Before numpy 2 a number with one of Python's is of double precision."""
    array = np.asarray(array)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def answer(model, x):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


@pytest.fixture
def random() -> Callable[..., np.ndarray]:
    """Standard normal numbers; other ones at each call of a test."""
    rng = np.random.default_rng(0)
    return lambda *shape: rng.standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="session")
def built() -> Callable[..., onnx.ModelProto]:
    return make_graph


@pytest.fixture(scope="session")
def applied() -> Callable[..., tuple[int, list[str]]]:
    """Apply a pass; outputs must stay as they were. Gives how often it was applied and the operators that are left.

    A pass that asks whether it pays is told that it does, and then that it does not, and nothing may change.
    """

    def apply(one_pass, model):
        changed = ir.from_proto(model)
        if one_pass in rewrites.CONDITIONAL:
            assert one_pass(changed.graph, lambda *_: False) == []
            assert ir.to_proto(changed).graph.node == model.graph.node
            count = len(one_pass(changed.graph, lambda *_: True))
        else:
            count = one_pass(changed.graph)
        after = ir.to_proto(changed)
        onnx.checker.check_model(after, full_check=True)
        assert [value.name for value in after.graph.output] == [value.name for value in model.graph.output]
        names = [node.name for node in after.graph.node]
        assert all(names)
        assert len(set(names)) == len(names)
        shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:]]
        rng = np.random.default_rng(1)
        for samples in (1, 3):
            # Wide enough for what cuts off to do so.
            x = (3 * rng.standard_normal((samples, *shape))).astype(np.float32)
            for want, have in zip(answer(model, x), answer(after, x), strict=True):
                np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(want).max()))
        return count, [node.op_type for node in after.graph.node]

    return apply


@pytest.fixture(scope="session")
def reference() -> Callable[..., list[np.ndarray]]:
    """What ONNX Runtime computes of a graph without optimizations."""
    return answer


@pytest.fixture
def after_quantizing(tmp_path, kernels):
    """Quantize a graph on random inputs; gives the operators that ONNX Runtime makes of it, counted."""

    def make(model, **options):
        source = tmp_path / "source.onnx"
        onnx.save(model, source)
        rng = np.random.default_rng(2)
        spec = spec_of(ir.from_proto(model))
        shape = spec.inputs[0].shape[1:]
        batches = [{"x": (3 * rng.standard_normal((8, *shape))).astype(np.float32)} for _ in range(2)]
        path = tmp_path / "int8.onnx"
        quantize(source, batches, path, spec=spec, scheme="static", bias_correction=False, **options)
        return kernels(path)

    return make
