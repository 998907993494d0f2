"""Small questions and changes that the passes over a graph share."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgekit.errors import QuantizeError


def load(path: Path) -> ir.Model:
    """Read an ONNX file whose nodes all have a name of their own.

    Raises:
        QuantizeError: there is no such file, or it is no ONNX.
    """
    if not path.is_file():
        raise QuantizeError(
            f"no file {path}", where="quantize", rule="an fp32 ONNX file", way_out="`edgekit export` writes one"
        )
    try:
        model = ir.load(path)
    except Exception as error:
        raise QuantizeError(
            f"not an ONNX file: {type(error).__name__}", where=str(path), rule="what `edgekit export` writes"
        ) from error
    taken = Counter(node.name for node in model.graph)
    for index, node in enumerate(model.graph):
        if not node.name or taken[node.name] > 1:
            node.name = f"{node.op_type}_{index}_{node.outputs[0].name}"
    return model


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The numbers behind a value that does not depend on the inputs, or None."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value.numpy()
    producer = value.producer()
    if producer is not None and producer.op_type == "Constant":
        tensor = ir.convenience.get_const_tensor(value)
        return None if tensor is None else tensor.numpy()
    return None


def only_user(value: ir.Value) -> bool:
    """Whether exactly one node uses a value, and it is no output of the graph."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """A new constant of the graph."""
    taken, number, unique = graph.initializers, 1, name
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    value = ir.Value(
        name=unique,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        const_value=ir.Tensor(array, name=unique),
    )
    graph.register_initializer(value)
    return value


def replace(graph: ir.Graph, old: ir.Node, new: ir.Node) -> None:
    """Put `new` in the place of `old`; its output takes over name, type, shape and uses."""
    before, after = old.outputs[0], new.outputs[0]
    after.shape, after.type = before.shape, before.type
    graph.insert_before(old, new)
    name = before.name
    ir.convenience.replace_all_uses_with(before, after, replace_graph_outputs=True)
    graph.remove(old, safe=True)
    after.name = name


def put(graph: ir.Graph, before: ir.Node, new: ir.Node, like: ir.Value) -> ir.Value:
    """Insert a node before another one; returns what it makes, with the type and shape of `like`."""
    made = new.outputs[0]
    made.name, made.type, made.shape = f"{new.name}_out", like.type, like.shape
    graph.insert_before(before, new)
    return made


def bypass(graph: ir.Graph, node: ir.Node, source: ir.Value) -> bool:
    """Let all that reads `node` read `source`, and remove the node; not where the name of an output would be lost."""
    output = node.outputs[0]
    if output.is_graph_output():
        # The name of an output is a promise to whoever runs the file, so the value in front of the node takes it over.
        if source.producer() is None or source.is_graph_output() or constant(source) is not None:
            return False
        name = output.name
        ir.convenience.replace_all_uses_with(output, source, replace_graph_outputs=True)
        output.name, source.name = None, name
    else:
        ir.convenience.replace_all_uses_with(output, source)
    graph.remove(node, safe=True)
    return True


def scalar(value: ir.Value | None, beside: ir.Value | None) -> float | None:
    """The one number of a constant that does not widen the shape of `beside` by broadcasting, or None."""
    numbers = constant(value)
    if numbers is None or numbers.size != 1 or beside is None:
        return None
    narrow = numbers.ndim == 0 or (beside.shape is not None and numbers.ndim <= len(beside.shape))
    return float(numbers.item()) if narrow else None


def drop_unused_nodes(graph: ir.Graph) -> None:
    """Remove nodes whose outputs nothing uses."""
    for node in reversed(list(graph)):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)


def drop_unused_initializers(graph: ir.Graph) -> None:
    """Remove constants that nothing uses."""
    for name in [
        name for name, value in graph.initializers.items() if not value.uses() and not value.is_graph_output()
    ]:
        del graph.initializers[name]
