"""What the kinds of device ask of an int8 file."""

from __future__ import annotations

from typing import Literal

Target = Literal["x86-vnni", "x86-avx2", "arm64", "cuda"]
TARGETS = ("x86-vnni", "x86-avx2", "arm64", "cuda")
WEIGHT_LIMIT = {"x86-vnni": 127, "x86-avx2": 63, "arm64": 127, "cuda": 0}
"""Largest absolute integer of a weight: VPMADDUBSW adds two products in 16 bits, and saturates with 8-bit weights."""
ACTIVATION = {"x86-vnni": "uint8", "x86-avx2": "uint8", "arm64": "int8"}
"""Type of the activations."""
