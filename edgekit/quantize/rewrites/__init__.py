"""Exact rewrites that let more of a graph run in int8: one pass per file, each leaving every output as it was.

Each pass takes a graph, changes it in place, and returns how many places it changed. Those of `CONDITIONAL` make a node
faster in int8 and slower in fp32: they ask for each node whether it pays, and return the names of those that they wrote
otherwise, so that a plan can record and repeat it.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from edgekit.quantize.graph import drop_unused_initializers
from edgekit.quantize.rewrites.activations import name_activations
from edgekit.quantize.rewrites.asking import Pays
from edgekit.quantize.rewrites.batchnorm import fold_batchnorm
from edgekit.quantize.rewrites.channelwise import average_pools_to_convolutions, norms_to_convolutions
from edgekit.quantize.rewrites.clips import merge_clips
from edgekit.quantize.rewrites.constants import fold_constants
from edgekit.quantize.rewrites.factors import fold_factors
from edgekit.quantize.rewrites.hard import (
    fold_hard_sigmoids,
    hard_sigmoids_to_convolutions,
    hard_swishes_to_products,
)
from edgekit.quantize.rewrites.no_ops import remove_no_ops
from edgekit.quantize.rewrites.padding import merge_padding
from edgekit.quantize.rewrites.pooling import pool_spatial_means
from edgekit.quantize.rewrites.shortcuts import shortcuts_to_convolutions
from edgekit.quantize.rewrites.shuffles import fold_shuffles
from edgekit.quantize.rewrites.swish import swishes_to_products
from edgekit.quantize.rewrites.transposes import cancel_transposes, linears_to_convolutions
from edgekit.quantize.rewrites.upsampling import upsamplings_to_convolutions

PASSES = (
    fold_constants,
    remove_no_ops,
    cancel_transposes,
    merge_clips,
    name_activations,
    swishes_to_products,
    fold_batchnorm,
    fold_factors,
    fold_hard_sigmoids,
    merge_padding,
    shortcuts_to_convolutions,
    pool_spatial_means,
    fold_shuffles,
)
"""What is never slower, in this order."""

CONDITIONAL = (
    linears_to_convolutions,
    upsamplings_to_convolutions,
    norms_to_convolutions,
    hard_sigmoids_to_convolutions,
    hard_swishes_to_products,
    average_pools_to_convolutions,
)
"""What pays between int8 operators: what does not fold becomes a convolution of its own."""


def rewrite(model: ir.Model, pays: Pays) -> tuple[str, ...]:
    """Apply all rewrites in place.

    Args:
        model: with a name of its own for each node.
        pays: told a node and what would stand in its place, says whether to do so.

    Returns:
        The names of the nodes for which it paid; `rewrite_again` takes them.
    """
    for one in PASSES:
        one(model.graph)
    names = [name for one in CONDITIONAL for name in one(model.graph, pays)]
    drop_unused_initializers(model.graph)
    return tuple(names)


def rewrite_again(model: ir.Model, names: Collection[str]) -> None:
    """Apply the rewrites that `rewrite` has chosen for the same file."""
    rewrite(model, lambda node, _: node.name in names)


__all__ = [
    "CONDITIONAL",
    "PASSES",
    "Pays",
    "average_pools_to_convolutions",
    "cancel_transposes",
    "fold_batchnorm",
    "fold_constants",
    "fold_factors",
    "fold_hard_sigmoids",
    "fold_shuffles",
    "hard_sigmoids_to_convolutions",
    "hard_swishes_to_products",
    "linears_to_convolutions",
    "merge_clips",
    "merge_padding",
    "name_activations",
    "norms_to_convolutions",
    "pool_spatial_means",
    "remove_no_ops",
    "rewrite",
    "rewrite_again",
    "shortcuts_to_convolutions",
    "swishes_to_products",
    "upsamplings_to_convolutions",
]
