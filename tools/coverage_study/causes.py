"""Classes of what goes wrong: a table of many failures shows which few faults lie behind them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

CAUSES: Mapping[str, str] = {
    r"torchvision::|torchvision\.ops": "torchvision's own operators are missing in this environment",
    r"out of processor time|out of time or memory|not enough memory|MemoryError|bad_alloc": "limit of time or memory",
    r"crashed": "a process crashed",
    r"images of none of": "takes no images of the sizes that were tried",
    r"torch\.export refuses|UserError|GuardOnDataDependent": "torch.export refuses the model",
    r"fixes what was to stay open": "the model fixes the number of images",
    r"No ONNX function found|UnsupportedOperator|Failed to decompose": "an operator that the exporters do not know",
    r"differs by .*PyTorch": "parity gate: other values",
    r"NaN or infinite|not finite": "values that are not finite",
    r"nothing (can be|was) pruned": "nothing to prune",
    r"differs from the masked": "proof: another result",
    r"does not run": "proof: the pruned model does not run",
    r"too coarse": "int8 too coarse",
    r"no smaller": "int8 file no smaller",
}
"""The cause behind the messages that a pattern is found in; the first that fits."""


def cause(stage: Mapping[str, Any]) -> str:
    """The class of a failed step.

    >>> cause({"reason": "out of processor time"}), cause({"reason": "KeyError: 3", "error": "KeyError"})
    ('limit of time or memory', 'KeyError')
    """
    reason = str(stage.get("reason", ""))
    found = next((name for pattern, name in CAUSES.items() if re.search(pattern, reason)), None)
    return found or str(stage.get("error") or "unknown")
