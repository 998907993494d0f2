"""Accuracy, speed and size of real ONNX files in ONNX Runtime, each with its interval."""

from edgekit.validate.feeds import calibration_feeds, feeds_of, signature_of
from edgekit.validate.placement import Placement, nodes_by_provider
from edgekit.validate.scoring import Comparison, Score, compare, score, score_torch
from edgekit.validate.selection import SelectionJudge
from edgekit.validate.timing import Timing, latency_table
from edgekit.validate.validation import Row, Unavailable, Validation, first_feeds, validate

__all__ = [
    "Comparison",
    "Placement",
    "Row",
    "Score",
    "SelectionJudge",
    "Timing",
    "Unavailable",
    "Validation",
    "calibration_feeds",
    "compare",
    "feeds_of",
    "first_feeds",
    "latency_table",
    "nodes_by_provider",
    "score",
    "score_torch",
    "signature_of",
    "validate",
]
