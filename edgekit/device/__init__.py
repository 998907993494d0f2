"""What runs on a device: load and verify a bundle, predict, measure. numpy and onnxruntime, nothing else.

from edgekit.device import load

model = load("resnet20.edgekit")
print(model.predict("photo.jpg"))
"""

from edgekit.device.benchmark import benchmark
from edgekit.device.candidates import Benchmark, Candidate
from edgekit.device.doctor import Finding, doctor
from edgekit.device.environment import describe, isa_target
from edgekit.device.footprint import Footprint, footprint
from edgekit.device.golden import Golden
from edgekit.device.inspection import inspect
from edgekit.device.latency import Latency, measure
from edgekit.device.model import Check, Model, load
from edgekit.device.processing import (
    ClassificationPostprocessing,
    Detection,
    DetectionPostprocessing,
    ImagePreprocessing,
    LogMelPreprocessing,
    Postprocessing,
    Prediction,
    Preprocessing,
    TextPostprocessing,
    TokenInputs,
    Vocabulary,
    WaveformPreprocessing,
    WordpiecePreprocessing,
)
from edgekit.device.scenarios import Scenario

__all__ = [
    "Benchmark",
    "Candidate",
    "Check",
    "ClassificationPostprocessing",
    "Detection",
    "DetectionPostprocessing",
    "Finding",
    "Footprint",
    "Golden",
    "ImagePreprocessing",
    "Latency",
    "LogMelPreprocessing",
    "Model",
    "Postprocessing",
    "Prediction",
    "Preprocessing",
    "Scenario",
    "TextPostprocessing",
    "TokenInputs",
    "Vocabulary",
    "WaveformPreprocessing",
    "WordpiecePreprocessing",
    "benchmark",
    "describe",
    "doctor",
    "footprint",
    "inspect",
    "isa_target",
    "load",
    "measure",
]
