"""From a PyTorch model to an fp32 ONNX file that is proved to compute the same."""

from edgekit.export.convert import EXPORTERS, OPSET, export
from edgekit.export.counts import mac_count, macs_by_module, parameter_count
from edgekit.export.dimensions import BATCH, Dynamic
from edgekit.export.exported import Exported, Parity
from edgekit.export.exporters import Exporter
from edgekit.spec import spec_of

__all__ = [
    "BATCH",
    "EXPORTERS",
    "OPSET",
    "Dynamic",
    "Exported",
    "Exporter",
    "Parity",
    "export",
    "mac_count",
    "macs_by_module",
    "parameter_count",
    "spec_of",
]
