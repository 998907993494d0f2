"""The page of a comparison of two runs."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.report.charts import Interval, intervals
from edgekit.report.comparison import Comparison, Difference, compared_rows
from edgekit.report.headline import chosen, sentence
from edgekit.report.page.cells import DASH, Cell, Row, Table, estimate, latency_estimate, plain, signed
from edgekit.report.page.render import render
from edgekit.units import format_bytes, format_count, format_duration


def comparison_page(found: Comparison) -> str:
    """Two runs side by side as one HTML file, like the page of a run."""
    unit = found.a["unit"]
    return render(
        "comparison.html.jinja",
        title=f"{found.a['name']} and {found.b['name']}: edgekit comparison",
        found=found,
        verdict=signed(found.verdict),
        sides=[(name, report, sentence(report)) for name, report in (("A", found.a), ("B", found.b))],
        chosen_table=_chosen(found),
        stages=_stages(found),
        drops=intervals(
            "drops",
            "Drop of every file of both runs",
            [
                Interval(
                    name=f"{side}: {row['stage']}",
                    value=row["drop"]["value"],
                    low=row["drop"]["low"],
                    high=row["drop"]["high"],
                    strong=row is chosen(report),
                )
                for side, report in (("A", found.a), ("B", found.b))
                for row in report["stages"][1:]
            ],
            axis=f"drop, {unit} (less is better)",
            unit=unit,
            marked="chosen by its run",
        )
        if found.drop is not None
        else None,
        settings=_differences("settings", "Settings that differ", found.settings),
        environment=_differences("environment", "Conditions that differ", found.environment),
        data=_differences("splits", "Data that differ", found.data),
    )


def _chosen(found: Comparison) -> Table:
    a, b = chosen(found.a), chosen(found.b)
    times = [sum(report["seconds"].values()) for report in (found.a, found.b)]
    more = found.b["metric"] if found.drop is not None else f"{found.a['metric']} and {found.b['metric']}"
    rows = [
        Row(cells=[plain("file"), plain(a["stage"]), plain(b["stage"]), DASH]),
        Row(cells=[plain(more), estimate(a["metric"]), estimate(b["metric"]), DASH]),
        Row(
            cells=[
                plain(f"drop, {found.a['unit']}"),
                estimate(a["drop"]),
                estimate(b["drop"]),
                DASH if found.drop is None else estimate(found.drop.to_dict()),
            ]
        ),
        Row(
            cells=[
                plain("speed against fp32"),
                estimate(a["ratio_to_fp32"], 2, "×"),
                estimate(b["ratio_to_fp32"], 2, "×"),
                estimate(found.speed.to_dict(), 3, "×"),
            ]
        ),
        Row(cells=[plain("latency p50"), latency_estimate(a["latency"]), latency_estimate(b["latency"]), DASH]),
        Row(
            cells=[
                plain("size"),
                *(Cell(text=format_bytes(row["size_bytes"]), value=row["size_bytes"]) for row in (a, b)),
                Cell(text=f"{found.size:.2f}×", value=found.size),
            ]
        ),
        Row(cells=[plain("MACs"), *(Cell(text=format_count(row["macs"]), value=row["macs"]) for row in (a, b)), DASH]),
        Row(cells=[plain("time of the run"), *(Cell(text=format_duration(each), value=each) for each in times), DASH]),
    ]
    headers = ("", "A", "B", "B less A, or B over A")
    return Table(name="chosen", caption="The chosen files", headers=headers, rows=rows)


def _stages(found: Comparison) -> Table:
    rows = []
    for name, a, b in list(compared_rows(found))[1:]:
        for side, row in (("A", a), ("B", b)):
            rows.append(
                Row(
                    cells=[
                        plain(f"{name}, {side}"),
                        estimate(row["metric"]),
                        estimate(row["drop"]),
                        latency_estimate(row["latency"]),
                        estimate(row["ratio_to_fp32"], 2, "×"),
                        Cell(text=format_bytes(row["size_bytes"]), value=row["size_bytes"]),
                    ]
                )
            )
    headers = ("file", "metric", "drop", "latency p50", "against fp32", "size")
    return Table(name="stages", caption="Files that both runs have", headers=headers, rows=rows)


def _differences(name: str, caption: str, found: Sequence[Difference]) -> Table | None:
    rows = [Row(cells=[plain(each.name.replace("_", " ")), plain(each.a), plain(each.b)]) for each in found]
    headers = ("", "A", "B")
    return Table(name=name, caption=caption, headers=headers, rows=rows, words=frozenset({1, 2})) if rows else None
