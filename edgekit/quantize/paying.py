"""Which of the conditional rewrites make a network faster on a device."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir

from edgekit.quantize.costs import Costs
from edgekit.quantize.placement import activations_of, place
from edgekit.quantize.rewrites import Pays


def paying(costs: Costs, target: str, *, keep_float: Collection[str] = ()) -> Pays:
    """What `rewrite` asks: a rewrite pays where a node stands behind int8 operators and the profile says it is faster.

    Behind fp32 operators it does not: ONNX Runtime has fast fp32 kernels for what the rewrites take apart, and fuses
    several of them into a convolution.

    Args:
        costs: of the device.
        target: the kind of device.
        keep_float: names of nodes that stay in fp32, and as they are.
    """

    def pays(node: ir.Node, instead: Mapping[str, float]) -> bool:
        if node.name in keep_float or not costs.is_cheaper(node, instead):
            return False
        assert isinstance(node.graph, ir.Graph)
        int8 = place(node.graph, target, keep_float=keep_float).nodes
        makers = [value.producer() for value in activations_of(node)]
        return node.name in int8 or all(maker is not None and maker.name in int8 for maker in makers)

    return pays
