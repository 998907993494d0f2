"""Quantization for ONNX Runtime: int8 exactly where a kernel fuses, and the reason wherever not."""

from edgekit.quantize.applying import apply_plan
from edgekit.quantize.judging import sqnr_db
from edgekit.quantize.ladder import Climbed, Judged, Rung, climb
from edgekit.quantize.plan import NodePlacement, Quantized, QuantPlan, Scale
from edgekit.quantize.planning import plan_quantization
from edgekit.quantize.quantize import quantize, quantize_for_targets
from edgekit.quantize.sketch import sketch

__all__ = [
    "Climbed",
    "Judged",
    "NodePlacement",
    "QuantPlan",
    "Quantized",
    "Rung",
    "Scale",
    "apply_plan",
    "climb",
    "plan_quantization",
    "quantize",
    "quantize_for_targets",
    "sketch",
    "sqnr_db",
]
