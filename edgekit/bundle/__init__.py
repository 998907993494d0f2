"""Bundles: an ONNX Runtime model package with everything a device needs to use the model rightly, and to distrust it.

`edgekit.device` reads them; writing is a matter for the workstation.
"""

from edgekit.bundle.golden import record_golden
from edgekit.bundle.schema import bundle_schema
from edgekit.bundle.write import Side, Variant, postprocessing_for, write_bundle
from edgekit.device.golden import Golden
from edgekit.device.inspection import inspect

__all__ = [
    "Golden",
    "Side",
    "Variant",
    "bundle_schema",
    "inspect",
    "postprocessing_for",
    "record_golden",
    "write_bundle",
]
