"""What each layer's integers do to the outputs: each alone in int8, and each alone in fp32."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgekit.device.profile import DeviceProfile, shipped_profile
from edgekit.device.session import open_session
from edgekit.progress import Progress, Step, silent
from edgekit.quantize.costs import Costs
from edgekit.quantize.equalization import equalize
from edgekit.quantize.graph import load
from edgekit.quantize.layout import wired
from edgekit.quantize.placement import COMPUTE
from edgekit.quantize.plan import QuantPlan
from edgekit.quantize.planning import static_nodes
from edgekit.quantize.qdq import insert
from edgekit.quantize.rewrites import rewrite
from edgekit.spec import Feeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """A layer's part in the error.

    Args:
        node: its name.
        alone: error with this layer alone in int8, as a share of the outputs' power.
        without: error of the whole plan with this layer in fp32, likewise.
        lost_us: what the layer costs more in fp32, by the device's profile, with the Q and DQ around it.
    """

    node: str
    alone: float
    without: float
    lost_us: float

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivities:
    """Of all layers of a plan; `error` is that of the whole plan."""

    error: float
    layers: tuple[Sensitivity, ...]

    @property
    def worst_first(self) -> list[Sensitivity]:
        """By the error that fp32 takes away for each microsecond that it costs (the least is counted as a tenth)."""
        return sorted(self.layers, key=lambda layer: (layer.without - self.error) / max(layer.lost_us, 0.1))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {"error": self.error, "layers": [layer.to_dict() for layer in self.layers]}


def sensitivities(
    model: Path,
    plan: QuantPlan,
    batches: Sequence[Feeds],
    *,
    profile: DeviceProfile | None = None,
    progress: Progress = silent,
) -> Sensitivities:
    """Measure every convolution and matrix product of a static plan.

    Errors are squared differences to the fp32 outputs over all `batches`, over the squares of those outputs.

    Args:
        model: the fp32 file that the plan was made for.
        plan: a static plan.
        batches: a few inputs; the network runs twice for each layer.
        profile: of the device; by default the one that comes with edgekit.
        progress: told after each layer.
    """
    source = load(model)
    rewrite(source)
    equalize(source.graph, plan.equalized)
    everything = static_nodes(source.graph, plan)
    costs = Costs(profile or shipped_profile(plan.target))
    wanted = _outputs(source, batches)
    fused = {name: str(follower.name) for name, follower in wired(source.graph, everything, plan.target).fused.items()}

    def error(nodes: Collection[str]) -> float:
        twin = source.clone()
        # The shifts undo what layers in front do, too: they belong to the whole plan.
        insert(twin, wired(twin.graph, nodes, plan.target), replace(plan, bias_shift={}))
        return _error(_outputs(twin, batches), wanted)

    layers = [node for node in source.graph if node.name in everything and node.op_type in COMPUTE]
    found = []
    for index, node in enumerate(layers):
        names = {str(node.name), fused.get(str(node.name), str(node.name))}
        fp32_us, int8_us = plan.costs_us.get(str(node.name), (0.0, 0.0))
        # Out of int8 in front of it, and back behind it.
        around = costs.quantize(node.outputs[0]) + (costs.dequantize(node.inputs[0]) if node.inputs[0] else 0.0)
        found.append(
            Sensitivity(
                node=str(node.name),
                alone=error(names),
                without=error(everything - names),
                lost_us=fp32_us - int8_us + around,
            )
        )
        progress(Step("measuring layers", index + 1, len(layers)))
    return Sensitivities(error=error(everything), layers=tuple(found))


def _outputs(model: ir.Model, batches: Sequence[Feeds]) -> list[np.ndarray]:
    session = open_session(ir.to_proto(model).SerializeToString(), threads=0)
    made = [array for feeds in batches for array in session.run(None, dict(feeds))]
    return [array.astype(np.float64) for array in made if np.issubdtype(array.dtype, np.floating)]


def _error(have: Sequence[np.ndarray], want: Sequence[np.ndarray]) -> float:
    noise = sum(float(((a - b) ** 2).sum()) for a, b in zip(have, want, strict=True))
    return noise / max(sum(float((b**2).sum()) for b in want), 1e-300)
