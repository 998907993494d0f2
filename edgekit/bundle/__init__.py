"""Bundles: an ONNX Runtime model package with everything a device needs to use the model rightly, and to distrust it.

`edgekit.device` reads them; writing is a matter for the workstation.
"""

from edgekit.bundle.archive import pack
from edgekit.bundle.checking import Verified, verify_bundle
from edgekit.bundle.golden import record_golden
from edgekit.bundle.kinds import variants_for_kinds
from edgekit.bundle.schema import bundle_schema
from edgekit.bundle.signing import sign_bundle
from edgekit.bundle.write import Side, Variant, postprocessing_for, write_bundle
from edgekit.device.golden import Golden
from edgekit.device.inspection import inspect

__all__ = [
    "Golden",
    "Side",
    "Variant",
    "Verified",
    "bundle_schema",
    "inspect",
    "pack",
    "postprocessing_for",
    "record_golden",
    "sign_bundle",
    "variants_for_kinds",
    "verify_bundle",
    "write_bundle",
]
