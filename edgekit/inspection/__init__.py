"""What a model is made of, without running it: sizes, operators, multiply-accumulates, weights, int8."""

from edgekit.inspection.facts import Layer, ModelFacts
from edgekit.inspection.onnx_model import inspect_onnx

__all__ = ["Layer", "ModelFacts", "inspect_onnx"]
