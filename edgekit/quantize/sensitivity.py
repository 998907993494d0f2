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
from edgekit.device.variants import exact_config
from edgekit.progress import Progress, Step, silent
from edgekit.quantize.costs import Costs
from edgekit.quantize.layout import wired
from edgekit.quantize.placement import COMPUTE, activations_of
from edgekit.quantize.plan import QuantPlan
from edgekit.quantize.planning import prepared, static_nodes
from edgekit.quantize.qdq import insert
from edgekit.spec import Feeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """A layer's part in the error.

    Args:
        node: its name.
        alone: error with this layer alone in int8, as a share of the outputs' power.
        moved: what goes to fp32 for the sake of this layer: itself, or, where that regains more for each microsecond,
            also what makes the values that it reads, so that these are not rounded either.
        without: error of the whole plan with `moved` in fp32, likewise.
        lost_us: what `moved` costs more in fp32, by the device's profile, with the Q and DQ around it.
    """

    node: str
    alone: float
    moved: tuple[str, ...]
    without: float
    lost_us: float

    def worth(self, error: float) -> float:
        """The error that fp32 takes away for each microsecond that it costs; the least is counted as a tenth."""
        return (error - self.without) / max(self.lost_us, 0.1)

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
        """By what fp32 is worth for each."""
        return sorted(self.layers, key=lambda layer: -layer.worth(self.error))

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
        batches: a few inputs; the network runs three times for each layer.
        profile: of the device; by default the one that comes with edgekit.
        progress: told after each layer.
    """
    source = prepared(model, plan)
    everything = static_nodes(source.graph, plan)
    costs = Costs(profile or shipped_profile(plan.target))
    wanted = _outputs(source, batches, "any")
    fused = {name: str(follower.name) for name, follower in wired(source.graph, everything, plan.target).fused.items()}

    def error(nodes: Collection[str]) -> float:
        twin = source.clone()
        # The shifts undo what layers in front do, too: they belong to the whole plan.
        insert(twin, wired(twin.graph, nodes, plan.target), replace(plan, bias_shift={}))
        return _error(_outputs(twin, batches, plan.target), wanted)

    def lost_us(names: Collection[str]) -> float:
        moved = [node for node in source.graph if node.name in names]
        inside = {value.name for node in moved for value in node.outputs}
        borders = {value.name: value for node in moved for value in activations_of(node) if value.name not in inside}
        # Out of int8 in front of it, and back behind it.
        around = sum(map(costs.dequantize, borders.values())) + costs.quantize(moved[-1].outputs[0])
        return around + sum(fp32 - int8 for fp32, int8 in (plan.costs_us.get(name, (0.0, 0.0)) for name in names))

    whole = error(everything)
    layers = [node for node in source.graph if node.name in everything and node.op_type in COMPUTE]
    found = []
    for index, node in enumerate(layers):
        name = str(node.name)
        own = {name, fused.get(name, name)}
        alone = error(own)
        groups = {frozenset(own), frozenset(own | _makers(node, everything))}
        ways = [
            Sensitivity(
                node=name,
                alone=alone,
                moved=tuple(sorted(group)),
                without=error(everything - group),
                lost_us=lost_us(group),
            )
            for group in sorted(groups, key=len)
        ]
        found.append(max(ways, key=lambda way: way.worth(whole)))
        progress(Step("measuring layers", index + 1, len(layers)))
    return Sensitivities(error=whole, layers=tuple(found))


def _makers(node: ir.Node, int8: Collection[str]) -> set[str]:
    """The int8 nodes behind a node's inputs, back to those with weights."""
    found: set[str] = set()
    waiting = activations_of(node)
    while waiting:
        maker = waiting.pop().producer()
        if maker is None or maker.name not in int8 or str(maker.name) in found:
            continue
        found.add(str(maker.name))
        if maker.op_type not in COMPUTE:
            waiting += activations_of(maker)
    return found


def _outputs(model: ir.Model, batches: Sequence[Feeds], target: str) -> list[np.ndarray]:
    session = open_session(ir.to_proto(model).SerializeToString(), threads=0, config=exact_config(target))
    made = [array for feeds in batches for array in session.run(None, dict(feeds))]
    return [array.astype(np.float64) for array in made if np.issubdtype(array.dtype, np.floating)]


def _error(have: Sequence[np.ndarray], want: Sequence[np.ndarray]) -> float:
    noise = sum(float(((a - b) ** 2).sum()) for a, b in zip(have, want, strict=True))
    return noise / max(sum(float((b**2).sum()) for b in want), 1e-300)
