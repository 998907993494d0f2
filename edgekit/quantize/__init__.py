"""Quantization for ONNX Runtime: int8 exactly where a kernel fuses, and the reason wherever not."""

from edgekit.quantize.plan import NodePlacement, QuantPlan, Quantized, Scale
from edgekit.quantize.quantize import apply_plan, plan_quantization, quantize, sqnr_db

__all__ = [
    "NodePlacement",
    "QuantPlan",
    "Quantized",
    "Scale",
    "apply_plan",
    "plan_quantization",
    "quantize",
    "sqnr_db",
]
