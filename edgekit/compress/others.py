"""The chosen network for further kinds of CPU: an int8 file for each, where that holds the budget, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.bundle import Variant, variants_for_kinds
from edgekit.compress.run import Run
from edgekit.compress.stages import File, held_file, quantized_file, selection_score
from edgekit.quantize.targets import CpuTarget
from edgekit.stats import Estimate
from edgekit.validate import Score, compare, score
from edgekit.validate.behaviour import Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """What a further kind of CPU gets.

    Args:
        target: the kind.
        file: the int8 file for it; None where it gets the fp32 file.
        why: the reason for that.
    """

    target: CpuTarget
    file: File | None = None
    why: str = ""


def other_files(run: Run, original: File, source: File, chosen: File) -> tuple[Other, ...]:
    """Quantize the chosen network for the further kinds of CPU that the settings name.

    What the chosen file is made of is quantized anew, as kernels and what saturates differ between processors. A file
    that breaks drop or gates on the selection split climbs the quantization ladder, where there is time; one that still
    does is left out, and such processors get the fp32 file. Nothing is timed: there is no such processor here.

    Args:
        run: the run.
        original: the fp32 file that drops refer to.
        source: the fp32 file of the chosen network.
        chosen: the chosen file.
    """
    return tuple(
        _other(run, original, source, target)
        if chosen.target != "any"
        else Other(target=target, why="the chosen file is in fp32, which every processor runs")
        for target in run.settings.other_targets
    )


def _other(run: Run, original: File, source: File, target: CpuTarget) -> Other:
    stage = f"{source.stage}-{target}"
    made = quantized_file(run, stage, source, target=target)
    if isinstance(made, str):
        return Other(target=target, why=made)
    reference = selection_score(run, original)
    made = held_file(run, stage, source, made, reference)
    found = selection_score(run, made)
    drop = compare(found, reference, run.workload.task).drop
    if broken := _broken(run, made, drop, run.judge.changes(found, reference)):
        return Other(target=target, why=f"on the selection split the int8 file breaks {'; '.join(broken)}")
    return Other(target=target, file=made)


def tested(run: Run, others: Sequence[Other], reference: Score) -> list[dict[str, Any]]:
    """For each kind of CPU its file on the test split, against the original's score there.

    JSON-ready; a kind without a file has only the reason.
    """
    return [_row(run, other, reference) for other in others]


def _row(run: Run, other: Other, reference: Score) -> dict[str, Any]:
    row: dict[str, Any] = {"target": other.target, "why": other.why, "file": None}
    file, workload = other.file, run.workload
    if file is None:
        return row
    found = score(
        file.path,
        workload.splits.test,
        workload.task,
        spec=file.spec,
        target=file.target,
        threads=run.settings.threads,
        seed=run.settings.seed,
        progress=run.progress,
    )
    compared = compare(found, reference, workload.task, seed=run.settings.seed)
    changes = run.judge.changes(found, reference)
    return row | {
        "stage": file.stage,
        "file": str(file.path),
        "sha256": file.sha256,
        "size_bytes": file.path.stat().st_size,
        "metric": found.metric.to_dict(),
        "drop": compared.drop.to_dict(),
        "agreement": compared.agreement.to_dict(),
        "broken": _broken(run, file, compared.drop, changes),
        "details": file.details,
    }


def _broken(run: Run, file: File, drop: Estimate, changes: Figures) -> list[str]:
    """Which limits a file breaks, in words; that on latency is for the CPU that the run is for."""
    budget, size = run.budget, file.path.stat().st_size
    return [
        *budget.broken(drop=drop.value, latency_ms=0.0, size_bytes=size),
        *budget.gates.before_the_end.broken(changes),
    ]


def variants(chosen: File, rows: Sequence[Mapping[str, Any]], source: File) -> dict[str, Variant]:
    """The files of a bundle for CPUs, by name, as `edgekit.bundle.variants_for_kinds` orders them.

    `rows` is what `tested` gave, and `source` the fp32 file of the chosen network.
    """
    precision = "fp32" if chosen.target == "any" else "int8"
    return variants_for_kinds(
        Variant(path=chosen.path, precision=precision, target=chosen.target),
        {row["target"]: None if row["file"] is None else Path(row["file"]) for row in rows},
        source.path,
    )
