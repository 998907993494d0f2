"""Benchmarks beyond a device: PyTorch beside ONNX Runtime, and where a network's time goes, node by node.

What measures is `edgekit.device.benchmark`, which needs numpy and onnxruntime alone.
"""

from edgekit.bench.nodes import NodeRow, node_rows

__all__ = ["NodeRow", "node_rows"]
