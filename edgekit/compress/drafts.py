"""The graphs that plans lead to, made without exporting and calibrating a network for each."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import onnx_ir as ir

from edgekit.errors import PruneError
from edgekit.export import export
from edgekit.prune import GraphPruner, PrunePlan, apply
from edgekit.workload import Workload


def float_graph(workload: Workload, source: GraphPruner, plan: PrunePlan) -> ir.Model:
    """The fp32 graph that a plan leads to.

    Args:
        workload: of the network that the plan was made for.
        source: of that network's exported graph.
        plan: what goes.
    """
    try:
        return source.pruned(plan)
    except PruneError:
        # Images are scaled, or the graph has an operator that drafts cannot follow: the long way.
        with tempfile.TemporaryDirectory(prefix="edgekit-draft-") as folder:
            pruned = export(
                apply(workload.model(), plan),
                workload.example(2),
                Path(folder) / "float.onnx",
                dynamic=workload.dynamic or "batch",
            )
            found = ir.load(pruned.path)
            ir.external_data.load_to_model(found)
            return found


def signature(graph: ir.Model) -> str:
    """Equal for graphs that cost the same: the same operators on the same shapes, beside the same operators.

    What stands beside an operator decides what it fuses with, and what of it becomes int8: the sketches of equal graphs
    are equal, too. The bounds of a Clip, and other numbers that patterns are told by, decide it as well; weights cost
    the same whatever they are. Names of open dimensions tell where in a graph they come from, and nothing of the cost.
    """

    def read(value: ir.Value | None) -> tuple[str | None, list[int | str] | None, object] | None:
        if value is None:
            return None
        made_by, shape, constant = value.producer(), value.shape, ir.convenience.get_const_tensor(value)
        sizes = None if shape is None else [size if isinstance(size, int) else "open" for size in shape]
        number = constant.numpy().item() if constant is not None and not constant.shape.dims else None
        return None if made_by is None else made_by.op_type, sizes, number

    def readers(value: ir.Value) -> list[str]:
        return sorted(use.node.op_type for use in value.uses())

    rows = sorted(
        f"{node.op_type} {sorted(map(str, node.attributes.values()))} {list(map(read, node.inputs))} "
        f"{list(map(readers, node.outputs))}"
        for node in graph.graph
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def file_bytes(graph: ir.Model) -> bytes:
    """The graph as a file has it, without the shapes in between."""
    proto = ir.to_proto(graph)
    proto.graph.ClearField("value_info")
    data: bytes = proto.SerializeToString()
    return data
