"""What ONNX Runtime really does here: small graphs that are loaded, read back and timed."""

from edgekit.quantize.probe.patterns import PROBES, Probe, graph_of
from edgekit.quantize.probe.probing import fuses, probe, quantized

__all__ = ["PROBES", "Probe", "fuses", "graph_of", "probe", "quantized"]
