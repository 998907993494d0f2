"""Whether the compressed network looks at the same parts of its inputs: the field `explanations` of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.report.page.behaviour import Thumbnail
from edgekit.report.page.cells import DASH, Cell, Row, Table, estimate, plain
from edgekit.report.page.pictures import png_link


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplanationsView:
    """The section."""

    lead: str
    files: Table | None
    panels: Sequence[Thumbnail]
    remarks: Sequence[str]


def explanations(report: Mapping[str, Any]) -> ExplanationsView | None:
    """The section, or None where the report has no such field."""
    found = report.get("explanations")
    if not found:
        return None
    samples, fill = found.get("samples") or {}, (found.get("input") or {}).get("fill")
    lead = ""
    if found.get("files"):
        lead = (
            f"Parts of the input were covered{f' ({fill})' if fill else ''} to see which of them an answer rests on: "
            f"{samples.get('explained', '–')} samples that {found.get('original', 'the original')} answers right. "
            "A rank correlation of 1 means that the same parts matter in the same order."
        )
    return ExplanationsView(
        lead=lead,
        files=_files(found),
        panels=[
            Thumbnail(link=link, words=str(each.get("class", "")), caption=str(each.get("caption", "")))
            for each in found.get("panels") or ()
            if (link := png_link(each.get("png_base64")))
        ],
        remarks=list(found.get("notes") or ()),
    )


def _files(found: Mapping[str, Any]) -> Table | None:
    rows = [
        Row(
            cells=[
                plain(each["file"]),
                estimate(each.get("correlation"), 3),
                Cell(text=str(each["both_right"]), value=each["both_right"]) if "both_right" in each else DASH,
            ]
        )
        for each in found.get("files") or ()
    ]
    yardstick = found.get("yardstick") or {}
    if rows and yardstick.get("correlation"):
        words = f"for comparison: {yardstick.get('what', '')}".rstrip(": ")
        rows.append(Row(cells=[plain(words), estimate(yardstick["correlation"], 3), DASH]))
    headers = ("file", "mean rank correlation with the original", "samples that both answer right")
    return Table(name="drift", caption="Agreement of explanations", headers=headers, rows=rows) if rows else None
