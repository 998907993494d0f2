"""Graphs of `torch.export` without operators that write into their inputs, mostly without tracing them once more."""

from __future__ import annotations

import warnings

import torch
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram
from torch.fx import Node

aten = torch.ops.aten

FRESH = {
    *(aten.conv1d, aten.conv2d, aten.conv3d, aten.convolution, aten.conv_transpose1d, aten.conv_transpose2d),
    *(aten.linear, aten.addmm, aten.mm, aten.bmm, aten.cat, aten.constant_pad_nd),
    *(aten.batch_norm, aten.layer_norm, aten.group_norm, aten.instance_norm),
    *(aten.add, aten.sub, aten.mul, aten.div, aten.relu, aten.relu6, aten.leaky_relu, aten.elu, aten.gelu, aten.silu),
    *(aten.sigmoid, aten.tanh, aten.hardswish, aten.hardsigmoid, aten.hardtanh, aten.max_pool2d, aten.avg_pool2d),
    *(aten.zeros, aten.new_zeros, aten.zeros_like, aten.full, aten.new_full, aten.full_like, aten.clone),
}
"""Operators whose result shares no memory with any other value. Signatures do not tell: some operators (`dropout`,
`type_as`, `einsum`) may return their input, or a view of it, and do not say so."""

READS = {aten.sym_size.int, aten.sym_numel.default}
"""Operators that look at no element."""

WITH_STATISTICS = {aten.batch_norm.default: 5, aten.instance_norm.default: 5}
"""Operators that write into statistics when an argument says so, and its position."""


def functional(program: ExportedProgram) -> ExportedProgram:
    """The same program without writing operators; `program` itself may be changed.

    What writes into a value that nothing else reads afterwards (ReLUs and additions in place, as most CNNs have them)
    becomes its plain counterpart. Only where anything else writes does torch trace the program once more, which takes
    as long as an export.

    >>> class InPlace(torch.nn.Module):
    ...     def forward(self, x):
    ...         return torch.tanh(x).relu_()
    >>> program = functional(torch.export.export(InPlace(), (torch.ones(2, 3),)))
    >>> [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    ['aten.tanh.default', 'aten.relu.default']
    """
    order = {node: place for place, node in enumerate(program.graph.nodes)}
    for node in order:
        plain = _plain(node, order)
        if plain is not None:
            node.target = plain
    if not any(map(may_write, program.graph.nodes)):
        return program
    with warnings.catch_warnings():
        # torch copies its own tree specifications in a way that it has deprecated itself.
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
        # Without decompositions this only takes mutation out of the graph, so that values can be reasoned about.
        done: ExportedProgram = program.run_decompositions({})
        return done


def may_write(node: Node) -> bool:
    """Whether a node writes into a value that was there before, or holds a graph that might."""
    target = node.target
    if node.op != "call_function" or isinstance(target, HigherOrderOperator):
        return node.op == "call_function"
    if not isinstance(target, OpOverload):
        return False  # Arithmetic on sizes, and the parts of tuples.
    flag = WITH_STATISTICS.get(target)
    keeps_statistics = flag is not None and (len(node.args) <= flag or bool(node.args[flag]))
    return target._schema.is_mutable or keeps_statistics  # noqa: SLF001 - no public name


def _plain(node: Node, order: dict[Node, int]) -> OpOverload | None:
    """The operator that gives what `node` writes into its input, where nothing else can tell the two apart."""
    target = node.target
    if not isinstance(target, OpOverload) or not target._schema.is_mutable:  # noqa: SLF001 - no public name
        return None
    counterpart = _counterpart(target)
    inputs = node.all_input_nodes
    written = node.args[0]
    if counterpart is None or not isinstance(written, Node):
        return None
    # In place the result has the type of what is written into; apart, that which all inputs come to.
    kinds = {each.meta["val"].dtype for each in inputs if isinstance(each.meta.get("val"), torch.Tensor)}
    if len(kinds) != 1 or not (_is_fresh(written) and all(order[user] <= order[node] for user in written.users)):
        return None
    harmless = (user is node or _is_fresh(user) or user.target in READS for user in written.users)
    return counterpart if all(harmless) else None


def _counterpart(target: OpOverload) -> OpOverload | None:
    """The operator of the same arguments that leaves its input alone."""
    name, overload = target._schema.name.partition("::")[2], target._overloadname  # noqa: SLF001 - no public names
    packet = getattr(aten, name.removesuffix("_"), None) if name.endswith("_") else None
    found = getattr(packet, overload, None) if packet is not None and overload in packet.overloads() else None
    if not isinstance(found, OpOverload):
        return None
    mine, theirs = (
        [(argument.name, str(argument.type)) for argument in each._schema.arguments]  # noqa: SLF001 - no public name
        for each in (target, found)
    )
    return found if mine == theirs and not found._schema.is_mutable else None  # noqa: SLF001 - no public name


def _is_fresh(node: Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target.overloadpacket in FRESH
