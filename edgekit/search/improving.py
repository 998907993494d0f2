"""A finalist whose int8 file misses the limits that its fp32 file holds climbs the quantization ladder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.quantize import Quantized, climb
from edgekit.search.site import Site
from edgekit.store import file_sha256, write_json
from edgekit.validate import Score, calibration_feeds

SHARE = 0.1
"""Of the time, for the ladders of all finalists together."""


def improved(
    site: Site, int8: Path, first: Quantized, source: Path, *, found: Score, reference: Score
) -> tuple[Quantized, list[Any]]:
    """The file at the end of the ladder that begins with `first`, and the rungs, or what was found before.

    Its rungs are learned rounding of weights, then the layers that cost most accuracy for the time they save in fp32
    (`edgekit.quantize.climb`); each is judged on the selection split. Training with quantized weights is left out: the
    finalist's own training has just ended.

    Args:
        site: of the search.
        int8: the file of `first`.
        first: the int8 file that misses the limits.
        source: the fp32 file it was made of.
        found: score of `first`.
        reference: score of what drops refer to.
    """
    settings = site.settings
    share_s = SHARE * settings.time_s / settings.finalists

    def make(folder: Path) -> None:
        climbed = climb(
            first,
            source,
            list(calibration_feeds(site.workload, first.spec)),
            folder,
            judge=site.judge.of_files(first.spec, first.plan.target, reference),
            known=site.judge.judged(found, reference),
            enough=site.judge.holds,
            time_s=share_s,
            seed=settings.seed,
            progress=site.progress,
        )
        write_json(folder / "climbed.json", climbed.to_dict())

    key = {
        "first": file_sha256(int8),
        "max_drop": settings.max_drop,
        "gates": settings.gates.to_dict(),
        "margin": settings.margin,
        "time": round(share_s),
    }
    folder = site.stage("improve", key, make)
    kept: Mapping[str, Any] = json.loads((folder / "climbed.json").read_text())
    return Quantized.from_dict(kept["quantized"], folder), kept["rungs"]
