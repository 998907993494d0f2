"""An ONNX graph made ready for cutting: every size known, every constant a constant, no DequantizeLinear shared."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from edgekit.errors import EdgekitError, did_you_mean

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
LARGEST_FOLD = 65_536
"""Constants of more numbers are computed by the device, as ONNX Runtime would."""
Shape = tuple[int, ...]


@dataclass(slots=True, kw_only=True, eq=False)
class Network:
    """A prepared graph.

    Args:
        nodes: in an order in which they can run; those that depend on no input are left out.
        constants: by name.
        derived: for each value that depends on constants alone but is not folded (weights behind a DequantizeLinear),
            the nodes that make it, in order.
        kinds: ONNX element type and sizes of every value.
        declared: sizes of values as ONNX Runtime knows them before it runs: a number, a dimension's name, or None.
            Some of its fusions ask for them.
        outputs: of the graph.
        opsets: version of each domain.
        ir_version: of the file.
    """

    nodes: list[onnx.NodeProto]
    constants: dict[str, onnx.TensorProto]
    derived: dict[str, list[onnx.NodeProto]]
    kinds: dict[str, tuple[int, Shape]]
    declared: dict[str, tuple[int | str | None, ...]]
    outputs: frozenset[str]
    opsets: dict[str, int]
    ir_version: int
    readers: dict[str, list[int]] = field(default_factory=dict)
    maker: dict[str, int] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for index, node in enumerate(self.nodes):
            for name in self.varying(node):
                self.readers.setdefault(name, []).append(index)
            self.maker.update(dict.fromkeys(filter(None, node.output), index))

    def varying(self, node: onnx.NodeProto) -> list[str]:
        """The values that a node reads and that depend on the graph's inputs, each once."""
        return [name for name in dict.fromkeys(node.input) if name and not self.is_constant(name)]

    def is_constant(self, name: str) -> bool:
        """Whether a value is the same in every run."""
        return name in self.constants or name in self.derived

    def array(self, name: str) -> np.ndarray:
        """The numbers of a constant, read out of the file's form once."""
        if name not in self.arrays:
            self.arrays[name] = numpy_helper.to_array(self.constants[name])
        return self.arrays[name]

    def size(self, name: str) -> int:
        """How many numbers a value has."""
        return math.prod(self.kinds[name][1])


def prepared(model: Path | onnx.ModelProto, shapes: Mapping[str, Sequence[int]] | None = None) -> Network:
    """Read a graph for one size of its inputs.

    Args:
        model: ONNX file or graph, fp32 or quantized.
        shapes: sizes of inputs by name. Where one is not given, an open first dimension is 1.

    Raises:
        EdgekitError: it is no ONNX file, an input has an open dimension that is not given, a node has a graph inside
            (If, Loop, Scan), or the sizes of a value cannot be told.
    """
    proto = _read(model)
    where = str(model) if isinstance(model, Path) else "model"
    _refuse_control_flow(proto.graph, where)
    constants = constants_of(proto.graph)
    nodes = list(proto.graph.node)
    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    make_light(proto.graph, nodes, constants)
    declared = _declared(proto)
    fix_inputs(proto.graph, shapes or {}, constants, where)
    forget_sizes(proto.graph)
    kinds = kinds_of(proto, constants)
    nodes, derived = _folded(nodes, constants, kinds, proto)
    network = Network(
        nodes=_unshared(nodes, kinds, declared, {value.name for value in proto.graph.output}),
        constants=constants,
        derived=derived,
        kinds=kinds,
        declared=declared,
        outputs=frozenset(value.name for value in proto.graph.output),
        opsets=opsets,
        ir_version=proto.ir_version,
    )
    unknown = [name for node in network.nodes for name in (*network.varying(node), *node.output) if name not in kinds]
    unknown = [name for name in unknown if name]
    if unknown:
        raise EdgekitError(
            f"the size of {unknown[0]!r} cannot be told",
            where=where,
            rule="operators whose sizes follow from those of the inputs",
            way_out="export the model with fixed sizes",
        )
    return network


def _read(model: Path | onnx.ModelProto) -> onnx.ModelProto:
    if isinstance(model, onnx.ModelProto):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy
    if not model.is_file():
        raise EdgekitError(
            f"no file {model}", where="profile", rule="an ONNX file", way_out="`edgekit export` writes one"
        )
    try:
        return onnx.load(model)
    except Exception as error:
        raise EdgekitError(
            f"not an ONNX file: {type(error).__name__}", where=str(model), rule="what `edgekit export` writes"
        ) from error


def _refuse_control_flow(graph: onnx.GraphProto, where: str) -> None:
    for node in graph.node:
        if any(attribute.type in (attribute.GRAPH, attribute.GRAPHS) for attribute in node.attribute):
            raise EdgekitError(
                f"{node.op_type} {node.name!r} has a graph inside",
                where=where,
                rule="a graph without If, Loop and Scan: which of their nodes run depends on the data",
                way_out="export the model without control flow, or time it as a whole with `edgekit bench`",
            )


def constants_of(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """All initializers by name; Constant nodes are taken out of the graph and count as such."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    others = []
    for node in graph.node:
        if node.op_type == "Constant" and node.domain == "":
            constants[node.output[0]] = _tensor(node.attribute[0], node.output[0])
        else:
            others.append(node)
    del graph.node[:]
    graph.node.extend(others)
    return constants


def _tensor(attribute: onnx.AttributeProto, name: str) -> onnx.TensorProto:
    if attribute.type == attribute.TENSOR:
        return attribute.t
    value = onnx.helper.get_attribute_value(attribute)
    kind = np.float32 if attribute.name.startswith("value_float") else np.int64
    return numpy_helper.from_array(np.asarray(value, kind), name)


def fix_inputs(
    graph: onnx.GraphProto,
    shapes: Mapping[str, Sequence[int]],
    constants: Mapping[str, onnx.TensorProto],
    where: str,
    *,
    batch: int = 1,
    leave_open: bool = False,
) -> None:
    """Give the inputs of a graph these sizes, in place.

    Args:
        graph: is changed.
        shapes: sizes of inputs by name.
        constants: inputs of these names are none.
        where: the file, for messages.
        batch: size of an open first dimension that is not given.
        leave_open: dimensions that are not given stay open; it is an error otherwise.

    Raises:
        EdgekitError: there is no input of a name, sizes do not fit, or one is lacking.
    """
    inputs = [value for value in graph.input if value.name not in constants]
    wrong = sorted(set(shapes) - {value.name for value in inputs})
    if wrong:
        raise EdgekitError(
            f"no input {', '.join(wrong)}",
            where=where,
            rule=f"inputs {', '.join(value.name for value in inputs)}",
            way_out=did_you_mean(wrong[0], (value.name for value in inputs), "name the file's own inputs"),
        )
    bound: dict[str, int] = {}
    for value in inputs:
        dims = value.type.tensor_type.shape.dim
        given = shapes.get(value.name)
        if given is not None and len(given) != len(dims):
            raise EdgekitError(f"got {list(given)}", where=f"input {value.name!r}", rule=f"{len(dims)} sizes")
        for axis, dim in enumerate(dims):
            known = dim.dim_value or bound.get(dim.dim_param) or (batch if axis == 0 else 0)
            size = given[axis] if given is not None else known
            if size < 1 and leave_open:
                continue
            if dim.dim_value not in (0, size) or size < 1:
                raise EdgekitError(
                    f"axis {axis} is {size or 'open: ' + (dim.dim_param or '?')}",
                    where=f"input {value.name!r}",
                    rule=f"{dim.dim_value or 'a positive size'}",
                    way_out=f"--shape {value.name}=1x...",
                )
            if dim.dim_param:
                bound[dim.dim_param] = size
            dim.dim_value = size


def make_light(
    graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto], constants: Mapping[str, onnx.TensorProto]
) -> None:
    """Take the large weights out: sizes alone are asked for, and a weight as an input need not be copied."""
    del graph.initializer[:]
    inputs = {value.name for value in graph.input}
    for name, tensor in constants.items():
        if math.prod(tensor.dims) <= LARGEST_FOLD // 64:
            small = graph.initializer.add()
            small.CopyFrom(tensor)
            small.name = name
        elif name not in inputs:
            graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims)))
    del graph.node[:]
    graph.node.extend(_standing_in(node) for node in nodes)


def _declared(proto: onnx.ModelProto) -> dict[str, tuple[int | str | None, ...]]:
    """Sizes as far as the file tells them; the names that inference invents for unknown ones are no knowledge."""
    told = {dim.dim_param for value in _values(proto.graph) for dim in value.type.tensor_type.shape.dim}
    known = onnx.shape_inference.infer_shapes(proto).graph
    return {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param if dim.dim_param in told - {""} else None
            for dim in value.type.tensor_type.shape.dim
        )
        for value in _values(known)
        if value.type.tensor_type.HasField("shape")
    }


def _values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    yield from graph.input
    yield from graph.value_info
    yield from graph.output


def forget_sizes(graph: onnx.GraphProto) -> None:
    """Take out what the file says of the sizes of its values: it was written with open sizes of the inputs."""
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")


def kinds_of(proto: onnx.ModelProto, constants: Mapping[str, onnx.TensorProto]) -> dict[str, tuple[int, Shape]]:
    """Element type and sizes of every value whose sizes follow from those that the graph's inputs have now."""
    known = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    kinds = {}
    for value in _values(known):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            kinds[value.name] = (kind.elem_type, tuple(dim.dim_value for dim in kind.shape.dim))
    kinds.update({name: (tensor.data_type, tuple(tensor.dims)) for name, tensor in constants.items()})
    return kinds


def _standing_in(node: onnx.NodeProto) -> onnx.NodeProto:
    """For an operator of ONNX Runtime's own, one of ONNX whose outputs have the same sizes."""
    if node.op_type != "DynamicQuantizeLSTM":
        return node
    twin = onnx.NodeProto()
    twin.CopyFrom(node)
    twin.op_type, twin.domain = "LSTM", ""
    del twin.input[8:]
    return twin


def _folded(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, onnx.TensorProto],
    kinds: dict[str, tuple[int, Shape]],
    proto: onnx.ModelProto,
) -> tuple[list[onnx.NodeProto], dict[str, list[onnx.NodeProto]]]:
    """Nodes that depend on the inputs, and by value those that do not and cannot be folded; the rest is computed."""
    derived: dict[str, list[onnx.NodeProto]] = {}
    rest: list[onnx.NodeProto] = []
    for node in nodes:
        if node.op_type == "Shape" and node.input[0] in kinds:
            start, end = _ends(node)
            sizes = np.array(kinds[node.input[0]][1][start:end], np.int64)
            constants[node.output[0]] = numpy_helper.from_array(sizes, node.output[0])
            continue
        if not node.input or any(name and name not in constants and name not in derived for name in node.input):
            rest.append(node)
            continue
        read = [constants[name] for name in node.input if name in constants]
        small = sum(math.prod(tensor.dims) for tensor in read) <= LARGEST_FOLD
        folds = node.op_type not in (QUANTIZE, DEQUANTIZE) and not any(name in derived for name in node.input)
        if folds and small and not node.domain:
            for name, array in zip(node.output, _computed(node, constants, proto), strict=True):
                constants[name] = numpy_helper.from_array(np.asarray(array), name)
                kinds[name] = (constants[name].data_type, tuple(constants[name].dims))
        else:
            chain = [each for name in node.input for each in derived.get(name, ())]
            derived.update({name: [*chain, node] for name in node.output if name})
    return rest, derived


def _ends(node: onnx.NodeProto) -> tuple[int, int | None]:
    found = {attribute.name: attribute.i for attribute in node.attribute}
    return found.get("start", 0), found.get("end")


def _computed(
    node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto], proto: onnx.ModelProto
) -> list[np.ndarray]:
    from onnx.reference import ReferenceEvaluator

    feeds = {name: numpy_helper.to_array(constants[name]) for name in node.input if name}
    inputs = [onnx.helper.make_tensor_value_info(name, constants[name].data_type, None) for name in feeds]
    outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in node.output]
    graph = onnx.helper.make_graph([node], "constant", inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    return list(ReferenceEvaluator(model).run(None, feeds))


def _unshared(
    nodes: Sequence[onnx.NodeProto],
    kinds: dict[str, tuple[int, Shape]],
    declared: dict[str, tuple[int | str | None, ...]],
    outputs: Collection[str],
) -> list[onnx.NodeProto]:
    """A DequantizeLinear for each reader, as ONNX Runtime has it, too: each is part of its reader's kernel."""
    shared: dict[str, onnx.NodeProto] = {}
    made: list[onnx.NodeProto] = []
    uses = Counter(name for node in nodes for name in node.input)
    for node in nodes:
        if node.op_type == DEQUANTIZE and uses[node.output[0]] > 1 and node.output[0] not in outputs:
            shared[node.output[0]] = node
            continue
        if any(name in shared for name in node.input):
            twin = onnx.NodeProto()
            twin.CopyFrom(node)
            for position, name in enumerate(node.input):
                if name in shared:
                    own = onnx.NodeProto()
                    own.CopyFrom(shared[name])
                    own.output[0] = twin.input[position] = f"{name}/{len(made)}/{position}"
                    kinds[own.output[0]] = kinds[name]
                    if name in declared:
                        declared[own.output[0]] = declared[name]
                    made.append(own)
            made.append(twin)
        else:
            made.append(node)
    return made
