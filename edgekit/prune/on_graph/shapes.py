"""Shapes of a graph's values, by ONNX's own inference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import onnx
import onnx_ir as ir

LARGE_BYTES = 1000
"""Weights of more than that stay out of what inference reads, which counts no shapes by them."""
Shapes = Mapping[str, tuple[int | str, ...]]
"""By the names of values; a text is an open dimension."""


def named(model: ir.Model) -> Shapes:
    """Shapes of all values that have one, as far as it can be inferred; open dimensions keep the names they have.

    Where shapes disagree, those of inputs and weights alone.
    """
    return _inferred(_without_weights(model))


def sized(model: ir.Model) -> dict[str, tuple[int, ...]]:
    """As `named` with a size for each open dimension; values for which one cannot be inferred are not there.

    No two open dimensions have the same size, so that a graph whose sizes disagree is found out.
    """
    proto, given = _without_weights(model), dict[str, int]()
    for value in proto.graph.input:
        for size in value.type.tensor_type.shape.dim:
            if size.HasField("dim_param"):
                size.dim_value = given.setdefault(size.dim_param, 2 + len(given))
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    return {
        name: tuple(size for size in shape if isinstance(size, int))
        for name, shape in _inferred(proto).items()
        if all(isinstance(size, int) for size in shape)
    }


def declared(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes that the exporter wrote down, with the sizes that open dimensions have in `shapes`, those of `sized`.

    Masks are often made in ways that inference does not follow.
    """
    given: dict[str, int] = {}
    for value in model.graph.inputs:
        assert value.shape is not None
        given |= {str(size): own for size, own in zip(value.shape, shapes[str(value.name)], strict=True)}
    found: dict[str, tuple[int, ...]] = {}
    for value in (value for node in model.graph for value in node.outputs):
        sizes = [size if isinstance(size, int) else given.get(str(size)) for size in value.shape or (None,)]
        if None not in sizes:
            found[str(value.name)] = tuple(size for size in sizes if size is not None)
    return found


def reshape(model: ir.Model, before: Shapes, now: Mapping[str, tuple[int, ...]]) -> None:
    """Write shapes into a graph: sizes from `now`, and the names of dimensions that were open `before`."""
    for value in (value for node in model.graph for value in node.outputs):
        if value.is_graph_output():
            continue
        sizes, names = now.get(str(value.name)), before.get(str(value.name))
        value.shape = (
            ir.Shape([size if isinstance(name, int) else name for size, name in zip(sizes, names, strict=True)])
            if sizes is not None and names is not None and len(sizes) == len(names)
            else None
        )


def _without_weights(model: ir.Model) -> onnx.ModelProto:
    """The model for inference: large weights are inputs, and no shapes are written between inputs and outputs."""
    with _as_inputs(model.graph):
        proto = ir.to_proto(model)
    proto.graph.ClearField("value_info")
    return proto


@contextmanager
def _as_inputs(graph: ir.Graph) -> Iterator[None]:
    """Have large weights among the inputs for a while."""
    every, count = list(graph.initializers.values()), len(graph.inputs)
    large = [each for each in every if each.const_value is not None and each.const_value.nbytes > LARGE_BYTES]
    tensors = [each.const_value for each in large]
    for each in large:
        assert each.name is not None
        graph.initializers.pop(each.name)
        each.const_value = None
        graph.inputs.append(each)
    try:
        yield
    finally:
        inputs = list(graph.inputs[:count])
        graph.inputs.clear()
        graph.inputs.extend(inputs)
        for each, tensor in zip(large, tensors, strict=True):
            each.const_value = tensor
        graph.initializers.clear()
        for each in every:
            graph.register_initializer(each)


def _inferred(proto: onnx.ModelProto) -> Shapes:
    try:
        graph = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError):
        graph = proto.graph
    found: dict[str, tuple[int | str, ...]] = {each.name: tuple(each.dims) for each in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        sizes = [each.dim_value if each.HasField("dim_value") else each.dim_param for each in kind.shape.dim]
        if kind.HasField("shape") and "" not in sizes:
            found[value.name] = tuple(sizes)
    return found
