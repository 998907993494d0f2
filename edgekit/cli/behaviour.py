"""What compression changed besides the mean: the options that limit it, and how it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.cli import show
from edgekit.cli.options import HOW, LIMITS
from edgekit.progress import Progress
from edgekit.report import interval
from edgekit.units import parse_duration_s

if TYPE_CHECKING:  # It needs torch, and --help need not wait for it.
    from edgekit.validate import Validation
    from edgekit.validate.behaviour import Gates, Inputs
    from edgekit.workload import Workload

MaxChurn = Annotated[
    float | None,
    typer.Option(
        metavar="PERCENT",
        help="Gate: most answers that may change, right or wrong (the churn). An unchanged accuracy can hide many "
        "broken answers behind as many fixed ones.",
        rich_help_panel=LIMITS,
    ),
]
MaxWorstClassDrop = Annotated[
    float | None,
    typer.Option(
        metavar="POINTS",
        help="Gate: most that any single class may lose: of the accuracy on its samples, its IoU (segmentation) or its "
        "F1 (multilabel).",
        rich_help_panel=LIMITS,
    ),
]
MaxEceRise = Annotated[
    float | None,
    typer.Option(
        metavar="POINTS",
        help="Gate: most that the expected calibration error may rise, in percentage points: 2 allows 5 % where it was "
        "3 %.",
        rich_help_panel=LIMITS,
    ),
]
Confidence = Annotated[
    float,
    typer.Option(
        min=0.5,
        max=1,
        help="How sure the selection split has to be that a file holds drop and gates: 0.95 keeps 1.6 standard errors "
        "between a figure and its limit, and finds slower files. A file at 0.7 may break a limit on the test split, "
        "which the result then shows.",
        rich_help_panel=LIMITS,
    ),
]
MaxRobustnessDrop = Annotated[
    float | None,
    typer.Option(
        metavar="POINTS",
        help="Gate: most that the metric may lose against the original on perturbed inputs (noise, blur, brightness, "
        "JPEG), in its points, averaged over all perturbations. Evaluated once, on the test split at the end; no "
        "candidate is chosen by it.",
        rich_help_panel=LIMITS,
    ),
]
RobustnessTime = Annotated[
    str,
    typer.Option(
        help="How long to score perturbed inputs (at most 1,000 samples): 20s, 2m; 0 for not at all.",
        rich_help_panel=HOW,
    ),
]
NAMES = {
    "max_churn": "churn, percent",
    "max_worst_class_drop": "worst class's drop, points",
    "max_ece_rise": "ECE rise, points",
    "max_robustness_drop": "robustness drop, points",
}


def gates_of(
    max_churn: float | None,
    max_worst_class_drop: float | None,
    max_ece_rise: float | None,
    max_robustness_drop: float | None,
) -> Gates:
    """The gates that the options ask for."""
    from edgekit.validate.behaviour import Gates

    return Gates(
        max_churn=max_churn,
        max_worst_class_drop=max_worst_class_drop,
        max_ece_rise=max_ece_rise,
        max_robustness_drop=max_robustness_drop,
    )


def robustness_time_s(text: str) -> float:
    """Seconds in `--robustness-time`, where 0 is allowed."""
    return 0.0 if text.strip().rstrip("smh") in ("0", "0.0") else parse_duration_s(text, "--robustness-time")


def behaviours(
    found: Validation,
    files: Mapping[str, Path],
    workload: Workload,
    inputs: Inputs,
    *,
    gates: Gates,
    time_s: float,
    threads: int,
    progress: Progress,
) -> list[dict[str, Any]]:
    """What changed in each file against the baseline on the same provider, with the gates, JSON-ready.

    `time_s` is for the perturbations of all files together.
    """
    from edgekit.validate.behaviour import Robustness, compare_behaviour, robustness
    from edgekit.validate.behaviour.behaviour import NOT_ASKED

    others = [row for row in found.rows if row.file != found.baseline]
    changes = []
    for row in others:
        suffered: Robustness | str = NOT_ASKED
        if time_s > 0:
            suffered = robustness(
                files[found.baseline],
                files[row.file],
                workload.task,
                inputs,
                time_s=time_s / len(others),
                provider=row.provider,
                threads=threads,
                progress=progress,
            )
        change = compare_behaviour(
            found.row(found.baseline, row.provider).score,
            row.score,
            workload.task,
            names=(found.baseline, row.file),
            labels=workload.labels,
            inputs=inputs,
            robustness=suffered,
            seed=inputs.seed,
        )
        changes.append({"provider": row.provider, **change.to_dict(), "gates": gates.rows(change.figures)})
    return changes


def summary(found: Mapping[str, Any]) -> None:
    """Print what `Behaviour.to_dict` holds as one short table, with a line for what is missing."""
    if not found:
        return
    show.table(
        f"{found['candidate']} against {found['reference']}: what changed besides the mean (n = {found['n']})",
        ("what", "before", "after", "change [95 %]", "remark"),
        [*_churn(found["churn"]), *_classes(found), *_calibration(found), *_outputs(found), *_robustness(found)],
    )
    # That classes are no quantities, or the other way round, is nothing that a reader misses.
    for name in sorted(found["missing"].keys() - {"outputs"}):
        show.out.print(f"{name}: {found['missing'][name]}", markup=False)
    for note in found["notes"]:
        show.out.print(f"note: {note}", markup=False)
    for gate in found.get("gates", ()):
        figure = "not measured" if gate["figure"] is None else f"{gate['figure']['value']:.2f}"
        words = f"{NAMES[gate['gate']]}: {figure}, at most {gate['limit']:.2f}"
        show.out.print(f"gate {'holds' if gate['holds'] else 'BROKEN'}: {words}", markup=False)


Row = tuple[str, str, str, str, str]


def _churn(churn: Mapping[str, Any]) -> list[Row]:
    counts = churn["counts"]
    remark = f"{counts['changed']} of {counts['n']} {churn['of']}"
    rows = [("churn, %", "", "", interval(churn["changed"], 2), remark)]
    for name, words in (("fixed", "fixed"), ("broken", "broken"), ("both_wrong", "changed, both wrong")):
        if churn[name] is not None:
            rows.append((f"  {words}, %", "", "", interval(churn[name], 2), f"{counts[name]}"))
    return rows


def _classes(found: Mapping[str, Any]) -> list[Row]:
    classes = found["classes"]
    if classes is None or classes["worst"] is None:
        return []
    worst = classes["worst"]
    row = classes["rows"][worst["index"]]
    remark = f"worst of {worst['compared']}, interval for all at once"
    if worst["chance"] is not None:
        remark += f"; {worst['chance']:.2f} by chance (p {worst['p_value']:.3f})"
    return [
        (
            f"drop of the worst class: {worst['name']}, {classes['metric']} (n = {row['n']})",
            f"{row['reference']['value']:.2f}",
            f"{row['candidate']['value']:.2f}",
            interval(worst["drop"], 2),
            remark,
        )
    ]


def _calibration(found: Mapping[str, Any]) -> list[Row]:
    calibration = found["calibration"]
    if calibration is None:
        return []
    before, after = calibration["reference"], calibration["candidate"]
    return [
        (
            "rise of ECE, points",
            interval(before["ece"], 2),
            interval(after["ece"], 2),
            interval(calibration["rise"], 2),
            f"confidence {before['confidence']:.1f} -> {after['confidence']:.1f} %",
        )
    ]


def _outputs(found: Mapping[str, Any]) -> list[Row]:
    outputs = found["outputs"]
    if outputs is None:
        return []
    return [
        (f"output moved, {name}", "", "", interval(outputs["change"][name], 4), f"spread {outputs['spread']:.4g}")
        for name in ("p50", "p90", "p99")
        if outputs["change"][name] is not None
    ]


def _robustness(found: Mapping[str, Any]) -> list[Row]:
    """The inputs as they are, the mean of all perturbations and the worst of them; each is in the JSON."""
    robustness = found["robustness"]
    if robustness is None or robustness["drop"] is None:
        return []
    worst, of = robustness["worst"], f"n = {robustness['n']}, {robustness['scale']}"
    named = f"drop under the worst: {worst['perturbation']} {worst['severity']}"
    rows = [("drop on the same samples, unperturbed", robustness["clean"], ""), (named, worst, worst["setting"])]
    mean = (f"drop under {len(robustness['slices'])} perturbations, mean", "", "", interval(robustness["drop"], 2), of)
    return [
        *(
            (
                name,
                f"{each['reference']['value']:.2f}",
                f"{each['candidate']['value']:.2f}",
                interval(each["drop"], 2),
                remark,
            )
            for name, each, remark in rows
            if each["drop"] is not None
        ),
        mean,
    ]
