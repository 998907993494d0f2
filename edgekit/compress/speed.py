"""How fast plans are, found out without exporting and calibrating a network for each."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir
from torch import nn

from edgekit.compress.run import Run
from edgekit.errors import PruneError
from edgekit.export import export
from edgekit.prune import PrunePlan, apply, prune_graph
from edgekit.quantize import sketch
from edgekit.spec import Feeds
from edgekit.validate import latency_table

MEASURE_S_PER_FILE = 0.6


def int8_graph(run: Run, model: nn.Module, source: ir.Model, plan: PrunePlan) -> ir.Model:
    """The int8 graph that a plan leads to, on made-up scales.

    Args:
        run: of which this is a part.
        model: the original network.
        source: its exported graph.
        plan: what goes.
    """
    try:
        pruned = prune_graph(source, plan)
    except PruneError:
        # The graph keeps these weights in a form of its own: the long way.
        with tempfile.TemporaryDirectory(prefix="edgekit-speed-") as folder:
            path = Path(folder) / "float.onnx"
            workload = run.workload
            pruned = ir.load(
                export(apply(model, plan), workload.example(2), path, dynamic=workload.dynamic or "batch").path
            )
            ir.external_data.load_to_model(pruned)
    return sketch(pruned, run.settings.target)


def signature(graph: ir.Model) -> str:
    """Equal for graphs that cost the same: the same operators with the same attributes on the same shapes."""
    rows = sorted(
        f"{node.op_type} {sorted(map(str, node.attributes.values()))} "
        f"{[None if value is None else str(value.shape) for value in node.inputs]}"
        for node in graph.graph
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def file_bytes(graph: ir.Model) -> bytes:
    """The graph as a file has it, without the shapes in between."""
    proto = ir.to_proto(graph)
    proto.graph.ClearField("value_info")
    data: bytes = proto.SerializeToString()
    return data


def latencies_ms(run: Run, graphs: Mapping[str, bytes], feeds: Feeds) -> dict[str, float]:
    """Milliseconds of one sample for each graph, timed against each other in one interleaved run.

    The first one is the baseline; the others are its median over their paired ratio, since each one's own median drifts
    with the machine.
    """
    baseline = next(iter(graphs))
    with tempfile.TemporaryDirectory(prefix="edgekit-speed-") as folder:
        files = {}
        for index, (name, data) in enumerate(graphs.items()):
            files[name] = Path(folder) / f"{index}.onnx"
            files[name].write_bytes(data)
        timings = latency_table(
            files,
            feeds,
            baseline=baseline,
            threads=run.settings.threads,
            time_s=MEASURE_S_PER_FILE * len(files),
            seed=run.settings.seed,
            progress=run.progress,
        )
    base = timings[baseline].latency.p50.value
    return {name: base / timing.ratio.value for name, timing in timings.items()}
