"""From what pieces cost to what the whole takes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.device.costs import MeasuredCosts
from edgekit.errors import EdgekitError
from edgekit.profiling.cutting import CALL
from edgekit.profiling.piece import Piece


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """By how much predictions were off on the reference networks, as fractions of what was measured.

    Args:
        median: over networks.
        worst: of all networks.
    """

    median: float
    worst: float


KNOWN_ERROR = {"fp32": Error(median=0.025, worst=0.050), "int8": Error(median=0.021, worst=0.059)}
"""Measured by tools/latency_prediction.py on 13 networks in each precision, one thread of an AVX512-VNNI x86 CPU; the
figures are those of artifacts/latency_prediction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Latency of a whole network.

    Args:
        us: microseconds of one call.
        low: lower end of the 95 % interval that the scatter of the measured pieces leaves. The method's own error comes
            on top: see `KNOWN_ERROR`.
        high: upper end.
        missing: pieces that have no costs, as text; they are not in `us`.
    """

    us: float
    low: float
    high: float
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What all occurrences of a piece cost in their place, in microseconds."""

    us: float
    piece: Piece


def predict(found: Sequence[Piece], costs: MeasuredCosts) -> Prediction:
    """The latency of a network by the costs of its pieces. Nothing is run.

    Args:
        found: what `pieces` gave.
        costs: of the device.
    """
    weights: defaultdict[str, float] = defaultdict(float, {CALL: 1.0})
    missing = []
    for piece in found:
        if piece.together.key in costs.measured and piece.behind.key in costs.measured:
            weights[piece.together.key] += piece.count
            weights[piece.behind.key] -= piece.count
        else:
            missing.append(piece.text)
    rows = [(weight, costs.measured[key]) for key, weight in weights.items() if key in costs.measured]
    us = sum(weight * row.us for weight, row in rows)
    below = math.sqrt(sum((weight * (row.us - row.low)) ** 2 for weight, row in rows))
    above = math.sqrt(sum((weight * (row.high - row.us)) ** 2 for weight, row in rows))
    return Prediction(us=us, low=us - below, high=us + above, missing=tuple(missing))


def error_of(found: Sequence[Piece]) -> Error:
    """The known error of predictions for networks of the same precision."""
    return KNOWN_ERROR["int8" if any(piece.precision == "int8" for piece in found) else "fp32"]


def anchored(changed: Prediction, original: Prediction, measured_us: float) -> Prediction:
    """The latency of a changed network by that of the original, which was measured.

    What both predictions get wrong in the same way cancels.

    Args:
        changed: prediction for the pruned or otherwise changed network.
        original: prediction for the network that was measured.
        measured_us: what that one took.

    Raises:
        EdgekitError: a prediction lacks pieces, or the measured latency is not positive.
    """
    missing = original.missing + changed.missing
    if missing:
        raise EdgekitError(
            f"no costs of {missing[0]}",
            where="anchored prediction",
            rule="costs of all pieces of both networks",
            way_out="time them: `edgekit profile ORIGINAL.onnx CHANGED.onnx --out costs.json`",
        )
    if not (measured_us > 0 and original.us > 0):
        raise EdgekitError(f"got {measured_us}", where="anchored(measured_us)", rule="a positive latency")
    scale = measured_us / original.us
    return Prediction(us=scale * changed.us, low=scale * changed.low, high=scale * changed.high)


def shares(found: Sequence[Piece], costs: MeasuredCosts) -> list[Share]:
    """What each piece costs in its place, the costliest first; pieces without costs are left out."""
    measured = costs.measured
    known = [piece for piece in found if piece.together.key in measured and piece.behind.key in measured]
    rows = [
        Share(us=piece.count * (measured[piece.together.key].us - measured[piece.behind.key].us), piece=piece)
        for piece in known
    ]
    return sorted(rows, key=lambda row: -row.us)
