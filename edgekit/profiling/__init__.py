"""Whole-model latency, predicted from what pieces of a network cost on a device.

from edgekit.profiling import graphs, pieces, predict

found = pieces(Path("model.onnx"))
print(predict(found, load_costs(Path("costs.json"))).us)
"""

from edgekit.profiling.piece import Piece, graphs, pieces
from edgekit.profiling.prediction import KNOWN_ERROR, Error, Prediction, Share, anchored, error_of, predict, shares

__all__ = [
    "KNOWN_ERROR",
    "Error",
    "Piece",
    "Prediction",
    "Share",
    "anchored",
    "error_of",
    "graphs",
    "pieces",
    "predict",
    "shares",
]
