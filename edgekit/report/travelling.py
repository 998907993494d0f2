"""A report as it may travel: a bundle goes to others, and pictures of the user's test data are not theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def without_pictures(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report in its JSON form without pictures of samples and without maps over them."""
    changes, explained = report.get("behaviour") or {}, report.get("explanations") or {}
    if changes:
        samples = changes["broken_samples"]
        bare = {**samples, "shown": [{**each, "picture": None} for each in samples["shown"]]}
        changes = {**changes, "broken_samples": bare}
    return {**report, "behaviour": changes, "explanations": {k: v for k, v in explained.items() if k != "panels"}}
