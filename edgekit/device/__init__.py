"""What runs on a device: numpy and onnxruntime, nothing else."""

from edgekit.device.latency import Latency, measure

__all__ = ["Latency", "measure"]
