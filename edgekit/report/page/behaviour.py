"""What compression changed besides the mean, as the page shows it: the field `behaviour` of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.report.charts import Chart, Interval, intervals, reliability
from edgekit.report.page.cells import DASH, Cell, Row, Table, estimate, number, plain, signed
from edgekit.report.page.pictures import png_link

MOST_CLASSES = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """A picture with what is to be said about it."""

    link: str
    words: str
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BehaviourView:
    """The section; each part is None or empty where the report has none of it."""

    lead: str
    churn: Table | None
    classes: Chart | None
    classes_said: str
    classes_table: Table | None
    reliability: Chart | None
    calibration: Table | None
    robustness: Table | None
    robustness_said: str
    outputs: Table | None
    broken_said: str
    broken: Sequence[Thumbnail]
    remarks: Sequence[str]


def behaviour(report: Mapping[str, Any]) -> BehaviourView | None:
    """The section, or None where the report has no such field."""
    found = report.get("behaviour")
    if not found:
        return None
    limits = {each.get("gate"): each.get("limit") for each in found.get("gates") or ()}
    names = (str(found.get("reference", "original")), str(found.get("candidate", "compressed")))
    classes, calibration = found.get("classes") or {}, found.get("calibration") or {}
    samples = found.get("broken_samples") or {}
    robustness = found.get("robustness") or {}
    sides = calibration.get("reference") or {}, calibration.get("candidate") or {}
    return BehaviourView(
        lead=f"{names[1]} against {names[0]} on {found.get('n', '–')} samples of the test split, answer by answer.",
        churn=_churn(found.get("churn") or {}),
        classes=_classes_chart(classes, limits.get("max_worst_class_drop")),
        classes_said=signed(_worst(classes)),
        classes_table=_classes_table(classes, names),
        reliability=reliability(*sides, names),
        calibration=_calibration(calibration, names),
        robustness=_robustness(robustness, names),
        robustness_said=signed(_robustness_said(robustness)),
        outputs=_outputs(found.get("outputs") or {}),
        broken_said=f"{samples['n']} samples broke; shown are the first by {samples['order']}."
        if samples.get("n")
        else "",
        broken=list(_thumbnails(samples.get("shown") or ())),
        remarks=[*(found.get("notes") or ()), *_missing(found.get("missing") or {})],
    )


def _churn(churn: Mapping[str, Any]) -> Table | None:
    rows = [
        Row(cells=[plain(words), estimate(churn[key], 2, " %"), _count((churn.get("counts") or {}).get(key))])
        for key, words in (
            ("changed", "answers that changed"),
            ("fixed", "wrong before, right now"),
            ("broken", "right before, wrong now"),
            ("both_wrong", "wrong before and now, differently"),
        )
        if churn.get(key)
    ]
    if churn.get("needed") is not None:
        words = "no model of the new accuracy could change less than"
        rows.append(Row(cells=[plain(words), number(churn["needed"], 2, " %"), DASH]))
    if not rows:
        return None
    headers = (f"of all {churn.get('of', 'samples')}", "share", "count")
    return Table(name="churn", caption="Answers that changed", headers=headers, rows=rows)


def _count(value: int | None) -> Cell:
    return DASH if value is None else Cell(text=str(value), value=value)


def _classes_chart(classes: Mapping[str, Any], limit: float | None) -> Chart | None:
    worst = (classes.get("worst") or {}).get("index")
    rows = sorted((row for row in classes.get("rows", ()) if row.get("drop")), key=lambda row: -row["drop"]["value"])
    return intervals(
        "classes",
        f"Drop of the {classes.get('metric', 'metric')} of each class",
        [
            Interval(
                name=str(row["name"]),
                value=row["drop"]["value"],
                low=row["drop"]["low"],
                high=row["drop"]["high"],
                strong=row["index"] == worst,
            )
            for row in rows[:MOST_CLASSES]
        ],
        axis=f"drop of the {classes.get('metric', 'metric')}, points (less is better)",
        unit="points",
        limit=limit,
    )


def _worst(classes: Mapping[str, Any]) -> str:
    worst = classes.get("worst")
    if not worst:
        return ""
    words = (
        f"{worst['name']} lost most: {worst['drop']['value']:.2f} points "
        f"[{worst['drop']['low']:.2f}, {worst['drop']['high']:.2f}], with an interval that allows for its having been "
        f"picked among {worst['compared']}."
    )
    if worst.get("chance") is not None:
        words += f" By chance alone the worst class would have lost about {worst['chance']:.2f} points"
        words += f" (p = {worst['p_value']:.2g})." if worst.get("p_value") is not None else "."
    left = len(classes.get("rows", ())) - MOST_CLASSES
    return words + (
        f" The chart shows the {MOST_CLASSES} that lost most; {left} more are in the table." if left > 0 else ""
    )


def _classes_table(classes: Mapping[str, Any], names: tuple[str, str]) -> Table | None:
    rows = [
        Row(
            cells=[
                plain(row["name"]),
                _count(row["n"]),
                *(estimate(row.get(k)) for k in ("reference", "candidate", "drop")),
            ]
        )
        for row in classes.get("rows", ())
    ]
    headers = ("class", "samples", *names, "drop")
    return Table(name="classes-table", caption="Every class", headers=headers, rows=rows) if rows else None


def _calibration(calibration: Mapping[str, Any], names: tuple[str, str]) -> Table | None:
    if not calibration:
        return None
    rows = [
        Row(
            cells=[
                plain(name),
                estimate(side.get("ece")),
                *(number(side.get(key)) for key in ("ece_equal_width", "confidence", "accuracy")),
            ]
        )
        for name, side in zip(names, (calibration["reference"], calibration["candidate"]), strict=True)
    ]
    rows.append(Row(cells=[plain("rise"), estimate(calibration.get("rise")), DASH, DASH, DASH]))
    headers = ("file", "calibration error (ECE), points", "ECE, bins of equal width", "mean confidence", "accuracy")
    return Table(name="calibration", caption="Confidence against correctness", headers=headers, rows=rows)


def _robustness(found: Mapping[str, Any], names: tuple[str, str]) -> Table | None:
    worst = found.get("worst") or {}
    rows = [
        Row(
            cells=[
                plain(" ".join(str(row[key]) for key in ("perturbation", "setting") if row.get(key))),
                _count(row.get("severity")),
                *(estimate(row.get(key)) for key in ("reference", "candidate", "drop", "added")),
            ],
            mark="worst" if worst and row == worst else "",
        )
        for row in ([found["clean"]] if found.get("clean") else []) + list(found.get("slices", ()))
    ]
    headers = ("perturbation", "severity", *names, "drop", "drop beyond that of clean inputs")
    return Table(name="robustness", caption="Under perturbations", headers=headers, rows=rows) if rows else None


def _robustness_said(found: Mapping[str, Any]) -> str:
    drop = found.get("drop")
    if not drop:
        return ""
    figure = f"{drop['value']:.2f} {found.get('unit', '')} [{drop['low']:.2f}, {drop['high']:.2f}]"
    return f"On {found.get('n')} samples the mean drop over all perturbations is {figure}."


def _outputs(found: Mapping[str, Any]) -> Table | None:
    rows = [
        Row(cells=[plain(words), *(estimate((found.get(key) or {}).get(p), 4) for p in ("p50", "p90", "p99"))])
        for key, words in (
            ("change", "change of an output"),
            ("reference", "metric of single samples, before"),
            ("candidate", "metric of single samples, now"),
        )
        if found.get(key)
    ]
    headers = (f"in {found.get('unit', 'the unit of the output')}", "p50", "p90", "p99")
    return Table(name="outputs", caption="How far outputs moved", headers=headers, rows=rows) if rows else None


def _thumbnails(shown: Sequence[Mapping[str, Any]]) -> Iterator[Thumbnail]:
    for each in shown:
        before, after = each["reference"], each["candidate"]
        yield Thumbnail(
            link=png_link(each.get("picture")),
            words=f"sample {each['index']}" + (f": {each['label_name']}" if each.get("label_name") else ""),
            caption=f"{_answer(before)} → {_answer(after)}",
        )


def _answer(said: Mapping[str, Any]) -> str:
    sure = said.get("confidence")
    if said.get("name"):
        return str(said["name"]) + ("" if sure is None else f" {100 * sure:.0f} %")
    return f"{said['value']:.3g}" if said.get("value") is not None else "–"


def _missing(missing: Mapping[str, str]) -> Iterator[str]:
    for part, why in missing.items():
        if part != "outputs":  # That classes are no quantities is nothing that a reader misses.
            yield f"{part.replace('_', ' ')}: {why}"
