"""Names that a reader of the graph knows: those of the PyTorch modules.

Quantization plans, reports and QAT speak of values by name, so a value is called after the module that made it
(`layer1.0.bn1`), and after its operator too where the module has several (`layer1.0.Relu_1`).
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from edgekit.export.dimensions import Names
from edgekit.export.flat import PREFIX

_SCOPES = "pkg.torch.onnx.name_scopes"
_ROLES = {
    "Conv": ("", "weight", "bias"),
    "ConvTranspose": ("", "weight", "bias"),
    "Gemm": ("", "weight", "bias"),
    "MatMul": ("weight", "weight"),
    "Add": ("bias", "bias"),
    "LSTM": ("", "W", "R", "B"),
    "GRU": ("", "W", "R", "B"),
    "RNN": ("", "W", "R", "B"),
}
"""What the constant inputs of an operator are called."""


def rename(
    model: ir.Model, inputs: Sequence[str], outputs: Sequence[str], dimensions: Names, known: Mapping[str, Tensor]
) -> None:
    """Name inputs, outputs, open dimensions, nodes, values and initializers, in place.

    Args:
        model: a graph as an exporter of `Flat` left it, its nodes still with the exporter's metadata.
        inputs: names of the inputs, in order.
        outputs: names of the outputs, in order.
        dimensions: names of the open dimensions of each input.
        known: the model's parameters and buffers by their names, which initializers keep, also transposed.
    """
    graph = model.graph
    _rename_dimensions(model, dimensions)
    scopes = {node: _scope(node) for node in graph}
    alone = Counter(scopes.values())
    # First out of the way, so that no new name meets an old one.
    originals: dict[ir.Value, str] = {}
    for index, value in enumerate(list(graph.initializers.values())):
        originals[value] = value.name or ""
        value.name = f"edgekit.initializer.{index}"
    taken = {*inputs, *outputs}
    for value, name in zip(graph.inputs, inputs, strict=True):
        value.name = name
    final = dict(zip(graph.outputs, outputs, strict=True))
    for node, scope in scopes.items():
        title = scope if scope and alone[scope] == 1 else f"{scope}.{node.op_type}".lstrip(".")
        node.name = _free(title, taken)
        for index, value in enumerate(node.outputs):
            value.name = final.get(value) or (node.name if index == 0 else _free(f"{node.name}.{index}", taken))
    kept = {value: name for value, title in originals.items() if (name := title.removeprefix(f"{PREFIX}.")) in known}
    missing = known.keys() - kept.values()
    matrices = {name: tensor for name, tensor in known.items() if tensor.ndim == 2 and name in missing}
    for value in originals:
        value.name = _free(kept.get(value) or _transposed(value, matrices) or _role(value, scopes), taken)


def _scope(node: ir.Node) -> str:
    """The qualified name of the module in which `node` arose; empty for the model itself."""
    if _SCOPES in node.metadata_props:
        # The first scope is the exported module, the last one the operator.
        modules = [part for part in ast.literal_eval(node.metadata_props[_SCOPES])[1:-1] if part]
        scope = modules[-1] if modules else ""
    else:
        # TorchScript: /model/layer1/layer1.0/conv1/Conv, the children of a container with its name before them.
        parts: list[str] = []
        for part in (node.name or "").split("/")[1:-1]:
            if parts and part.startswith(f"{parts[-1]}."):
                parts[-1] = part
            else:
                parts.append(part)
        scope = ".".join(parts)
    return "" if scope == PREFIX else scope.removeprefix(f"{PREFIX}.")


def _role(value: ir.Value, scopes: dict[ir.Node, str]) -> str:
    """A name for a constant that is no parameter as it stands: after its first reader, and what it is to it."""
    uses = list(value.uses())
    if not uses:
        return "constant"
    node, index = uses[0]
    roles = _ROLES.get(node.op_type, ())
    role = roles[index] if index < len(roles) else ""
    return f"{scopes.get(node, '')}.{role or f'{node.op_type}.constant'}".lstrip(".")


def _transposed(value: ir.Value, matrices: Mapping[str, Tensor]) -> str | None:
    """The name of the parameter that a factor of a product is, transposed: exporters fold that into its values."""
    if value.const_value is None or not all(node.op_type == "MatMul" and index == 1 for node, index in value.uses()):
        return None
    for name, tensor in matrices.items():
        if tuple(tensor.shape[::-1]) == tuple(value.const_value.shape.numpy()):
            own = tensor.detach().cpu().to(torch.float32).numpy().T
            if np.array_equal(own, value.const_value.numpy()):
                return name
    return None


def _free(name: str, taken: set[str]) -> str:
    """`name`, or `name_1`, `name_2`... if it is taken; then taken."""
    candidate, count = name, 0
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate


def _rename_dimensions(model: ir.Model, dimensions: Names) -> None:
    titles: dict[str, str] = {}
    for value, axes in zip(model.graph.inputs, dimensions, strict=True):
        if value.shape is None:
            continue
        for axis, title in axes.items():
            size = value.shape[axis]
            if isinstance(size, ir.SymbolicDim) and size.value:
                titles[str(size.value)] = title
    for value in _values(model):
        if value.shape is None or value.shape.frozen:
            continue
        for axis, size in enumerate(value.shape):
            if isinstance(size, ir.SymbolicDim) and str(size.value) in titles:
                value.shape[axis] = ir.SymbolicDim(titles[str(size.value)])


def _values(model: ir.Model) -> Iterable[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from node.outputs
