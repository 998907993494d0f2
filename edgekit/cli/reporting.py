"""`edgekit report` and `edgekit compare`: finished runs, for people and for other programs."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Literal

import typer

from edgekit.cli import show
from edgekit.cli.options import AsJson
from edgekit.errors import EdgekitError
from edgekit.report import CardFacts, Comparison, card, comment, facts_of, figures, read_run, to_csv
from edgekit.report.comparison import compare as compare_reports
from edgekit.report.comparison import compared_rows
from edgekit.report.table import interval
from edgekit.store import write_atomic
from edgekit.units import format_bytes, format_latency

CARD = "For --format card"


def report(
    run: Annotated[
        Path, typer.Argument(help="Folder of a finished run, its report.json, or a bundle.", show_default=False)
    ],
    format_: Annotated[
        Literal["html", "md", "card", "json", "csv"],
        typer.Option(
            "--format",
            "-f",
            help="html: one page that opens without a network, for phones, screens and paper. md: verdict, gates and "
            "table for a comment in CI, without a link. card: a model card with Hugging Face metadata. json: all "
            "figures. csv: one table of them.",
        ),
    ] = "html",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write.  \\[default: report.html in the run's folder; else stdout]"),
    ] = None,
    table: Annotated[
        Literal["stages", "candidates", "decisions", "latency", "seconds"],
        typer.Option(
            help="Which table --format csv gives: files on the test split, candidates on the selection split, priced "
            "pruning decisions, percentiles of latency, or the time of each stage."
        ),
    ] = "stages",
    license_: Annotated[
        str | None,
        typer.Option(
            "--license",
            help="License of the weights, as the Hub names it: apache-2.0, mit, other.",
            rich_help_panel=CARD,
        ),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(
            help="The model on the Hub that was compressed, such as timm/resnet18.a1_in1k.  \\[default: that of a "
            "workload timm:NAME]",
            rich_help_panel=CARD,
        ),
    ] = None,
    pipeline_tag: Annotated[
        str | None,
        typer.Option(
            help="What the model does, as the Hub names it.  \\[default: image-classification for images with classes]",
            rich_help_panel=CARD,
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Name of the data that it was tested on.", rich_help_panel=CARD)
    ] = None,
) -> None:
    """Show a finished run: a page for people, a comment for CI, a model card, or plain data.

    `compress` and `demo` leave the page in the run's folder; this makes it again, also of runs of older versions.

    Example: edgekit report edgekit-runs/demo --format md
    """
    found = read_run(run)
    if format_ == "html":
        from edgekit.report.page import write_page

        show.out.print(f"wrote {write_page(found, out)}", markup=False)
        return
    if format_ == "md":
        text = comment(found.report)
    elif format_ == "card":
        facts = CardFacts(license=license_, base_model=base_model, pipeline_tag=pipeline_tag, dataset=dataset)
        text = card(found.report, facts_of(found.workload, facts))
    elif format_ == "json":
        text = json_module.dumps(found.report, indent=2, ensure_ascii=False) + "\n"
    else:
        tables = figures(found)
        if table not in tables:
            raise EdgekitError(
                f"the run has no {table}",
                where="--table",
                rule=f"one of {', '.join(tables)}",
                way_out="what a run leaves depends on its version, and on whether anything could be pruned",
            )
        text = to_csv(tables[table])
    if out is None:
        print(text, end="")
    else:
        write_atomic(out, text)
        show.out.print(f"wrote {out}", markup=False)


def compare(
    a: Annotated[Path, typer.Argument(help="Folder of a finished run, or its report.json.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="Another one.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Also write a page for people to this file (.html).")
    ] = None,
    json: AsJson = False,
) -> None:
    """Put two finished runs side by side: verdicts, figures with intervals, what differs in settings and conditions.

    Says so where figures cannot be compared: other machines, busier machines, other data.

    Example: edgekit compare edgekit-runs/before edgekit-runs/after --out comparison.html
    """
    found = compare_reports(read_run(a).report, read_run(b).report)
    if out is not None:
        from edgekit.report.page import comparison_page

        write_atomic(out, comparison_page(found))
    if json:
        show.data(found.to_dict())
        return
    _tell(found)
    if out is not None:
        show.out.print(f"wrote {out}", markup=False)


def _tell(found: Comparison) -> None:
    for name, side in (("A", found.a), ("B", found.b)):
        show.out.print(f"{name}: {side['name']}: {side['verdict']['text']}", markup=False)
    show.out.print("")
    unit = found.a["unit"]
    rows = []
    for name, a, b in compared_rows(found):
        for whose, row in (("A", a), ("B", b)):
            rows.append(
                (
                    f"{name}, {whose}" if name != "chosen" else f"chosen, {whose}: {row['stage']}",
                    interval(row["metric"], 2),
                    interval(row["drop"], 2),
                    format_latency(row["latency"]["value"]),
                    interval(row["ratio_to_fp32"], 2, "×"),
                    format_bytes(row["size_bytes"]),
                )
            )
    show.table("files, 95 % intervals in brackets", ("file", "metric", "drop", "latency p50", "vs fp32", "size"), rows)
    differences = {
        "drop": "–" if found.drop is None else f"{interval(found.drop.to_dict(), 2)} {unit}",
        "speed vs fp32": interval(found.speed.to_dict(), 3, "×"),
        "size": f"{found.size:.2f}×",
    }
    show.facts("B less A, or B over A", differences)
    for title, entries in (
        ("settings that differ", found.settings),
        ("conditions that differ", found.environment),
        ("data that differ", found.data),
    ):
        if entries:
            show.table(title, ("entry", "A", "B"), [(each.name, each.a, each.b) for each in entries])
    for warning in found.warnings:
        show.out.print(f"warning: {warning}", markup=False)
    show.out.print(found.verdict, style="bold", markup=False)
