"""The page of a run: what it shows, in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.report import charts
from edgekit.report.charts.svg import Drawing, circle, line, rectangle
from edgekit.report.command import compress_command, config_entries
from edgekit.report.headline import caveat, chosen, gates, is_original, original, sentence, smaller
from edgekit.report.page import tables
from edgekit.report.page.behaviour import behaviour
from edgekit.report.page.cells import signed
from edgekit.report.page.downloads import downloads
from edgekit.report.page.explanations import explanations
from edgekit.report.page.operators import operators
from edgekit.report.page.render import render
from edgekit.report.saved import SavedRun
from edgekit.report.taken import chosen_decisions, priced
from edgekit.store import write_atomic
from edgekit.units import format_bytes, format_duration, format_latency

PAGE = "report.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One of the large figures.

    Args:
        label: what it is.
        figure: the figure; `value` is its exact value.
        detail: lines in small.
        unit: of the figure.
        drawing: where the figure lies against its limit.
    """

    label: str
    figure: str
    value: float
    detail: Sequence[str]
    unit: str = ""
    drawing: Drawing | None = None


def page(run: SavedRun) -> str:
    """The report of a run as one HTML file: opens without a network, runs no script, and is under 3 MB.

    Fields that a report of an older version lacks leave their sections out.
    """
    report = run.report
    mine = chosen(report)
    return render(
        "report.html.jinja",
        report=report,
        chosen=mine,
        original=original(report),
        title=f"{report['name']}: edgekit report",
        sentence=sentence(report),
        caveat=signed(caveat(report)),
        gates=[(gate, signed(gate.measured)) for gate in gates(report)],
        tiles=tiles(report),
        notes=report.get("notes", ()),
        conditions=_conditions(report),
        stages=tables.stages(report),
        more_table=tables.more_of_stages(report),
        others=tables.others(report),
        nodes=tables.nodes(report),
        tradeoff=charts.tradeoff(report),
        candidates=len(report.get("candidates", ())),
        latencies=charts.latencies(run.latencies, mine["stage"]),
        decisions=charts.decisions(priced(report).get("choices", ()), chosen_decisions(report)),
        decisions_table=tables.decisions(report),
        plans=tables.plans(report),
        providers=[each for each in report.get("providers", ()) if each.get("provider") != "cpu"],
        operators=operators(report),
        behaviour=behaviour(report),
        explanations=explanations(report),
        seconds=tables.seconds(report),
        every_second=tables.every_second(report),
        spent=format_duration(sum(report["seconds"].values())),
        allowed=_allowed(report),
        environment=tables.environment(report),
        splits=tables.splits(report),
        settings=tables.settings(report),
        command=compress_command(report, run.workload),
        config_entries=config_entries(run.workload),
        next_commands=report.get("next_commands", ()),
        downloads=downloads(run),
    )


def write_page(run: SavedRun, path: Path | None = None) -> Path:
    """Write the page, beside `report.json` unless another path is named.

    Raises:
        StoreError: it cannot be written.
    """
    path = path or run.folder / PAGE
    write_atomic(path, page(run))
    return path


def tiles(report: Mapping[str, Any]) -> list[Tile]:
    """The four figures that matter: speed, quality, size, agreement with the original."""
    row, before = chosen(report), original(report)
    ratio, drop, same = row["ratio_to_fp32"], row["drop"], row["agreement"]
    most = report["budget"].get("max_drop_points")
    limit = "" if most is None else f"; limit {most:.2f}"
    better = " (below zero: better than before)" if drop["value"] < 0 else ""
    latencies = [format_latency(each["latency"]["value"]) for each in (before, row)]
    n = same.get("n")
    return [
        Tile(
            label="Speed against fp32 ONNX",
            figure=f"{ratio['value']:.2f}×",
            value=ratio["value"],
            detail=[
                f"95 % interval {ratio['low']:.2f} to {ratio['high']:.2f}",
                f"{latencies[0]} → {latencies[1]} for one sample (median)",
            ],
        ),
        Tile(
            label=f"Drop of {report['metric']}",
            figure=signed(f"{drop['value']:.2f}"),
            unit=report["unit"],
            value=drop["value"],
            detail=[
                signed(f"95 % interval {drop['low']:.2f} to {drop['high']:.2f}{limit}"),
                f"{before['metric']['value']:.2f} → {row['metric']['value']:.2f}{better}",
            ],
            drawing=_drop_drawing(drop, most),
        ),
        Tile(
            label="Size of the file",
            figure=f"{times:.2f}×" if (times := smaller(report)) >= 1 else f"{1 / times:.2f}×",
            unit="smaller" if times >= 1 else "larger",
            value=row["size_bytes"],
            detail=[f"{format_bytes(before['size_bytes'])} → {format_bytes(row['size_bytes'])}"],
        ),
        Tile(
            label="Same answer as the original",
            figure=f"{same['value']:.1f} %",
            value=same["value"],
            detail=[
                f"of {n} test samples" if n else "of the test samples",
                *([_changed(row)] if not is_original(report) and row.get("fixed") is not None else []),
            ],
        ),
    ]


def _changed(row: Mapping[str, Any]) -> str:
    return f"better on {row['fixed']}, worse on {row['broken']} of them"


def _drop_drawing(drop: Mapping[str, Any], most: float | None) -> Drawing:
    """The interval of the drop on a line, with zero and the limit."""
    width, height, middle = 220, 30, 12.0
    ends: list[float] = [0.0, drop["low"], drop["high"], *([most] if most is not None else [])]
    low, high = min(ends), max(ends)
    room = 0.12 * (high - low) or 1.0
    low, high = low - room, high + room

    def at(value: float) -> float:
        return (value - low) / (high - low) * width

    found = []
    if most is not None:
        found += [
            rectangle(at(most), 0, width - at(most), 2 * middle, "beyond"),
            line(at(most), 0, at(most), 2 * middle, "limit"),
        ]
    return Drawing(
        width=width,
        height=height,
        elements=[
            *found,
            line(0, middle, width, middle, "grid"),
            line(at(0), middle - 7, at(0), middle + 7, "axis"),
            line(at(drop["low"]), middle, at(drop["high"]), middle, "interval"),
            circle(at(drop["value"]), middle, 5, "mark accent"),
        ],
    )


def _conditions(report: Mapping[str, Any]) -> str:
    """Under which conditions latencies were taken, in a line."""
    machine = report["environment"].get("before") or {}
    cpu, versions = machine.get("cpu") or {}, machine.get("versions") or {}
    threads = report["settings"].get("threads")
    words = [
        f"{cpu['model']}{f', {cores} cores' if (cores := cpu.get('cores')) else ''}" if cpu.get("model") else "",
        f"ONNX Runtime {versions['onnxruntime']}" if versions.get("onnxruntime") else "",
        f"{threads} thread{'' if threads == 1 else 's'}" if threads else "",
        "one sample a call, all files in interleaved rounds",
    ]
    return ", ".join(word for word in words if word)


def _allowed(report: Mapping[str, Any]) -> str:
    seconds = report["budget"].get("time_s")
    return "" if seconds is None else format_duration(seconds)
