"""A finalist whose int8 file misses the limits that its fp32 file holds climbs the quantization ladder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.quantize import Climbed, Judged, Quantized, climb
from edgekit.search.site import Site
from edgekit.spec import IOSpec
from edgekit.store import file_sha256, write_json
from edgekit.validate import Score, calibration_feeds, compare, score
from edgekit.validate.behaviour import figures_of

SHARE = 0.1
"""Of the time, for the ladders of all finalists together."""


def judged(site: Site, found: Score, reference: Score) -> Judged:
    """By how much a score breaks the limits on behaviour, and its drop, against the reference's on the same samples."""
    gates, task = site.settings.gates, site.workload.task
    figures = figures_of(reference, found, task, seed=site.settings.seed) if gates else None
    return Judged(0.0 if figures is None else gates.excess(figures), compare(found, reference, task).drop.value)


def holds(site: Site, found: Score, reference: Score) -> bool:
    """Whether a file that was scored so is within the limits on drop and behaviour; where there are none, it is."""
    about = judged(site, found, reference)
    return about.excess <= 0 and _is_enough(site, about.drop)


def _is_enough(site: Site, drop: float) -> bool:
    limit = site.settings.max_drop
    return limit is None or drop <= limit


def improved(site: Site, int8: Path, first: Quantized, source: Path, reference: Score) -> tuple[Quantized, list[Any]]:
    """The file at the end of the ladder that begins with `first`, and the rungs, or what was found before.

    Its rungs are learned rounding of weights, then the layers that cost most accuracy for the time they save in fp32
    (`edgekit.quantize.climb`); each is judged on the selection split. Training with quantized weights is left out: the
    finalist's own training has just ended.

    Args:
        site: of the search.
        int8: the file of `first`.
        first: the int8 file that misses the limits.
        source: the fp32 file it was made of.
        reference: score of what drops refer to.
    """
    settings = site.settings
    share_s = SHARE * settings.time_s / settings.finalists

    def judge(path: Path) -> Judged:
        return judged(site, selection_score(site, path, first.spec, first.plan.target), reference)

    def make(folder: Path) -> None:
        climbed: Climbed = climb(
            first,
            source,
            list(calibration_feeds(site.workload, first.spec)),
            folder,
            judge=judge,
            enough=lambda drop: _is_enough(site, drop),
            time_s=share_s,
            seed=settings.seed,
            progress=site.progress,
        )
        write_json(folder / "climbed.json", climbed.to_dict())

    key = {
        "first": file_sha256(int8),
        "max_drop": settings.max_drop,
        "gates": settings.gates.to_dict(),
        "time": round(share_s),
    }
    folder = site.stage("improve", key, make)
    found: Mapping[str, Any] = json.loads((folder / "climbed.json").read_text())
    return Quantized.from_dict(found["quantized"], folder), found["rungs"]


def selection_score(site: Site, path: Path, spec: IOSpec, target: str) -> Score:
    """Score a file on the selection split in ONNX Runtime."""
    return score(
        path,
        site.workload.splits.selection,
        site.workload.task,
        spec=spec,
        target=target,
        threads=site.settings.threads,
        seed=site.settings.seed,
        progress=site.progress,
    )
