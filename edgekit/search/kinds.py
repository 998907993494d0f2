"""A point of a front for further kinds of CPU than the run was for: an int8 file of the same network for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import EdgekitError
from edgekit.progress import Progress, silent
from edgekit.quantize import Quantized, quantize_for_targets
from edgekit.quantize.targets import CpuTarget
from edgekit.search.record import Front, Member
from edgekit.spec import IOSpec
from edgekit.stats import Estimate
from edgekit.store import Store, code_digest, file_sha256, write_json
from edgekit.validate import Score, SelectionJudge, calibration_feeds, compare
from edgekit.workload import Workload

MADE = "kinds.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForKind:
    """What a further kind of CPU gets.

    Args:
        target: the kind.
        path: the int8 file.
        metric: of the file on the selection split, with sums as that kind forms them.
        drop: against the fp32 file of the same network there, in points.
    """

    target: CpuTarget
    path: Path
    metric: Estimate
    drop: Estimate


def for_kinds(
    front: Front,
    member: Member,
    run: Path,
    workload: Workload,
    targets: Sequence[CpuTarget],
    *,
    spec: IOSpec,
    progress: Progress = silent,
) -> tuple[ForKind, ...]:
    """Quantize the network of a point for further kinds of CPU; each file is scored, none is timed.

    Files are kept in the run's folder, and made once.

    Args:
        front: of the run.
        member: the point.
        run: the run's folder.
        workload: that of the run: its calibration split gives ranges, its selection split scores.
        targets: the kinds.
        spec: inputs and outputs of the point's files.
        progress: told all along.

    Raises:
        EdgekitError: the point is in fp32, which every processor runs; or nothing of it can be quantized for a kind.
    """
    if member.target == "any":
        raise EdgekitError(
            f"point {front.members.index(member) + 1} is in fp32, which every processor runs",
            where="--also",
            rule="a point in int8",
            way_out="leave --also out, or name a point in int8",
        )
    wanted = tuple(dict.fromkeys(each for each in targets if each != member.target))
    if not wanted:
        return ()
    source = run / member.source
    settings = front.details.get("settings", {})
    ranges, seed = settings.get("ranges", "mse"), settings.get("seed", 0)
    judge = SelectionJudge(workload=workload, seed=seed, progress=progress)

    def make(folder: Path) -> None:
        made = quantize_for_targets(
            source,
            list(calibration_feeds(workload, spec)),
            {target: folder / f"{target}.onnx" for target in wanted},
            spec=spec,
            ranges=ranges,
            progress=progress,
        )
        base = judge.score(source, spec, target="any")
        write_json(folder / MADE, [_scored(each, judge, base) for each in made])

    key = {
        "code": code_digest(),
        "source": file_sha256(source),
        "splits": workload.splits.digests(),
        "targets": list(wanted),
        "ranges": ranges,
        "seed": seed,
    }
    store = Store(run / "stages")
    with store.locked():
        folder = store.build("kinds", key, make)
    return tuple(
        ForKind(
            target=row["target"],
            path=folder / row["file"],
            metric=Estimate(**row["metric"]),
            drop=Estimate(**row["drop"]),
        )
        for row in json.loads((folder / MADE).read_text())
    )


def _scored(made: Quantized, judge: SelectionJudge, base: Score) -> dict[str, Any]:
    found = judge.score(made.path, made.spec, target=made.plan.target)
    return {
        "target": made.plan.target,
        "file": made.path.name,
        "metric": found.metric.to_dict(),
        "drop": compare(found, base, judge.workload.task, seed=judge.seed).drop.to_dict(),
    }
