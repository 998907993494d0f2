"""Shapes of a graph's values, by ONNX's own inference."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import onnx_ir as ir
import onnx_ir.passes.common as passes


def inferred(model: ir.Model) -> ir.Model:
    """The model with its shapes; without any where they disagree, which onnx-ir would log with a traceback."""
    log = logging.getLogger(passes.ShapeInferencePass.__module__)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        return passes.ShapeInferencePass(strict_mode=True, data_prop=True)(model).model
    finally:
        log.setLevel(level)


def sized(model: ir.Model) -> dict[str, tuple[int, ...]]:
    """Shapes with a size for each open dimension, by the names of values; those that cannot be inferred are not there.

    No two open dimensions have the same size, so that a graph whose sizes disagree is found out.
    """
    twin = model.clone()
    forget(twin)
    given: dict[str, int] = {}
    for value in twin.graph.inputs:
        assert value.shape is not None
        known = [size if isinstance(size, int) else given.setdefault(str(size), 2 + len(given)) for size in value.shape]
        value.shape = ir.Shape(known)
    for value in twin.graph.outputs:
        value.shape = None
    graph = inferred(twin).graph
    values = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    return {
        str(value.name): tuple(int(size) for size in value.shape)  # type: ignore[arg-type] # all are numbers
        for value in values
        if value.shape is not None and all(isinstance(size, int) for size in value.shape)
    }


def declared(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes that the exporter wrote down, with the sizes that open dimensions have in `shapes`, those of `sized`.

    Masks are often made in ways that inference does not follow.
    """
    given: dict[str, int] = {}
    for value in model.graph.inputs:
        assert value.shape is not None
        given |= {str(size): own for size, own in zip(value.shape, shapes[str(value.name)], strict=True)}
    found: dict[str, tuple[int, ...]] = {}
    for value in (value for node in model.graph for value in node.outputs):
        sizes = [size if isinstance(size, int) else given.get(str(size)) for size in value.shape or (None,)]
        if None not in sizes:
            found[str(value.name)] = tuple(size for size in sizes if size is not None)
    return found


def forget(model: ir.Model) -> None:
    """Drop the shapes between inputs and outputs."""
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
