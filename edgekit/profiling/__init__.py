"""Whole-model latency from what pieces of a network cost on a device."""
from edgekit.profiling.piece import Piece, pieces

__all__ = ["Piece", "pieces"]
