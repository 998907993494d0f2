"""ReLUs, Clips, minima and maxima that follow each other as one Clip, or as a ReLU, which fuses into an int8 range."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import bypass, constant, initializer, only_user, replace, scalar


def merge_clips(graph: ir.Graph) -> int:
    """Write chains of Relu, Clip, and Min and Max with constants as one Clip, or one Relu, or nothing.

    Each of them cuts a number off at two bounds, and so do two in a row: at what the second makes of the first's
    bounds. ONNX Runtime takes one activation along with an operator, not two, and neither Min nor Max.
    """
    return sum(_merge(graph, node) for node in list(graph))


@dataclass(frozen=True, slots=True)
class _Cut:
    """x becomes min(max(x, low), high)."""

    low: float = -math.inf
    high: float = math.inf

    def of(self, number: float) -> float:
        return min(max(number, self.low), self.high)

    def after(self, first: _Cut) -> _Cut:
        return _Cut(self.of(first.of(-math.inf)), self.of(first.of(math.inf)))


def _merge(graph: ir.Graph, node: ir.Node) -> bool:
    found = _cut_of(node)
    if found is None:
        return False
    source, cut = found
    before = source.producer()
    first = None if before is None else _cut_of(before)
    if first is not None:
        both = cut.after(first[1])
        if both == first[1]:
            return bypass(graph, node, source)
        if only_user(source):
            source, cut = first[0], both
    if cut == _Cut():
        return bypass(graph, node, source)
    plain = cut == _Cut(low=0.0)
    if source is found[0] and node.op_type == ("Relu" if plain else "Clip"):
        return False
    name = str(node.outputs[0].name)
    bounds = [] if plain else [_bound(graph, f"{name}.low", cut.low), _bound(graph, f"{name}.high", cut.high)]
    replace(graph, node, ir.node("Relu" if plain else "Clip", [source, *bounds], name=node.name))
    if source is not found[0]:
        assert before is not None
        graph.remove(before, safe=True)
    return True


def _cut_of(node: ir.Node) -> tuple[ir.Value, _Cut] | None:
    """What a node cuts off, and where, if that is all it does."""
    values = [value for value in node.inputs if value is not None and constant(value) is None]
    if node.domain not in ("", "ai.onnx") or len(values) != 1 or values[0].dtype != ir.DataType.FLOAT:
        return None
    source = values[0]
    if node.op_type == "Relu":
        return source, _Cut(low=0.0)
    if node.op_type == "Clip" and not node.attributes:  # Up to opset 10 the bounds are attributes.
        low, high = [*node.inputs[1:], None, None][:2]
        bounds = [
            -math.inf if low is None else _number(low, source),
            math.inf if high is None else _number(high, source),
        ]
    elif node.op_type in ("Min", "Max"):
        numbers = [_number(value, source) for value in node.inputs if value is not source]
        bounds = [-math.inf, *numbers] if node.op_type == "Max" else [*numbers, math.inf]
    else:
        return None
    if any(map(math.isnan, bounds)):
        return None
    if node.op_type == "Clip":
        return source, _Cut(*bounds)
    return source, _Cut(low=max(bounds)) if node.op_type == "Max" else _Cut(high=min(bounds))


def _number(value: ir.Value | None, source: ir.Value) -> float:
    """A bound; NaN where it is no single number, and infinite where it is the largest that there is."""
    found = scalar(value, source)
    if found is None:
        return math.nan
    return found if abs(found) < np.finfo(np.float32).max else math.copysign(math.inf, found)


def _bound(graph: ir.Graph, name: str, number: float) -> ir.Value | None:
    return None if math.isinf(number) else initializer(graph, name, np.array(number, np.float32))
