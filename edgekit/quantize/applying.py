"""Writing the file that a plan describes."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import onnx
import onnx_ir as ir

from edgekit.errors import QuantizeError
from edgekit.quantize import dynamic, half, storage
from edgekit.quantize.equalization import equalize
from edgekit.quantize.graph import load
from edgekit.quantize.layout import wired
from edgekit.quantize.plan import QuantPlan
from edgekit.quantize.qdq import insert
from edgekit.quantize.rewrites import rewrite_again
from edgekit.quantize.targets import PAIR_LIMIT
from edgekit.store import write_atomic

RECIPE = "edgekit.quantized"
"""The metadata property of a quantized file that says, as JSON, how it was made."""


def apply_plan(model: Path, plan: QuantPlan, path: Path) -> None:
    """Write the quantized file that `plan` describes: one file, checked by onnx, with the recipe in its metadata.

    Raises:
        QuantizeError: the plan was not made for this file.
        StoreError: the file cannot be written.
    """
    graph = load(model)
    if plan.scheme == "half":
        graph = half.converted(graph)
    else:
        if plan.scheme == "static":
            rewrite_again(graph, plan.rewrites)
        _check_nodes(graph.graph, plan, model)
        recurrent = {str(node.name) for node in graph.graph if node.op_type == "LSTM"}
        if plan.scheme == "static":
            equalize(graph.graph, plan.equalized)
            _insert(graph, plan, frozenset(plan.nodes) - recurrent, model)
        if plan.scheme == "weights":
            storage.convert(graph, frozenset(plan.nodes), plan.weight_limit.bit_length())
        at_run_time = frozenset(plan.nodes) & {"static": recurrent, "dynamic": set(plan.nodes)}.get(plan.scheme, set())
        if at_run_time:
            dynamic.convert(graph, at_run_time, plan.weight_limit, PAIR_LIMIT.get(plan.target))
    graph.metadata_props[RECIPE] = json.dumps(
        {
            "scheme": plan.scheme,
            "target": plan.target,
            "ranges": plan.ranges,
            "weight_limit": plan.weight_limit,
            "equalization": bool(plan.equalized),
            "weight_scales": "mse" if plan.weight_scales else "max",
            "bias_correction": bool(plan.bias_shift),
            "int8_nodes": len(plan.nodes),
        }
    )
    with tempfile.TemporaryDirectory(prefix="edgekit-quantize-") as folder:
        temporary = Path(folder) / "model.onnx"
        proto = ir.to_proto(graph)
        # Shapes between inputs and outputs follow from those, and Q and DQ are known by their values: in a small file
        # these make a twentieth that nobody needs.
        proto.graph.ClearField("value_info")
        for node in proto.graph.node:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                node.ClearField("name")
        onnx.checker.check_model(proto)
        onnx.save(proto, temporary)
        write_atomic(path, temporary.read_bytes())


def _insert(graph: ir.Model, plan: QuantPlan, nodes: frozenset[str], model: Path) -> None:
    placement = wired(graph.graph, nodes, plan.target)
    odd = sorted(placement.quantized - set(plan.activations))
    if odd:
        raise QuantizeError(
            f"the plan has no scales for {', '.join(odd[:5])}",
            where=str(model),
            rule="values between int8 nodes have scales",
            way_out="plan again; nodes that shall stay in fp32 are named in keep_float",
        )
    insert(graph, placement, plan)


def _check_nodes(graph: ir.Graph, plan: QuantPlan, model: Path) -> None:
    missing = set(plan.nodes) - {str(node.name) for node in graph}
    if missing:
        raise QuantizeError(
            f"no nodes {', '.join(sorted(missing)[:5])}", where=str(model), rule="the file that the plan was made for"
        )
