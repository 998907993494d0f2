"""What a conditional rewrite asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

Pays = Callable[[ir.Node, Mapping[str, float]], bool]
"""Whether it pays to write a node otherwise: as these patterns of a device's profile, each with its amount of work."""
