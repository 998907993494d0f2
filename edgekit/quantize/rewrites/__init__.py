"""Exact rewrites that let more of a graph run in int8: one pass per file, each leaving every output as it was.

Each pass takes a graph, changes it in place, and returns how many places it changed.
"""

from __future__ import annotations

import onnx_ir as ir

from edgekit.quantize.graph import drop_unused_initializers
from edgekit.quantize.rewrites.batchnorm import fold_batchnorm
from edgekit.quantize.rewrites.channelwise import average_pools_to_convolutions, norms_to_convolutions
from edgekit.quantize.rewrites.no_ops import remove_no_ops
from edgekit.quantize.rewrites.pooling import pool_spatial_means
from edgekit.quantize.rewrites.shortcuts import shortcuts_to_convolutions

PASSES = (
    remove_no_ops,
    fold_batchnorm,
    norms_to_convolutions,
    shortcuts_to_convolutions,
    pool_spatial_means,
    average_pools_to_convolutions,
)
"""In this order: what does not fold becomes a convolution of its own."""


def rewrite(model: ir.Model) -> int:
    """Apply all rewrites in place; returns how many places were changed."""
    changed = sum(one(model.graph) for one in PASSES)
    drop_unused_initializers(model.graph)
    return changed


__all__ = [
    "PASSES",
    "average_pools_to_convolutions",
    "fold_batchnorm",
    "norms_to_convolutions",
    "pool_spatial_means",
    "remove_no_ops",
    "rewrite",
    "shortcuts_to_convolutions",
]
