"""The page's tables, out of a report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from edgekit.report.charts import ranked
from edgekit.report.headline import chosen, original
from edgekit.report.machine import machine_facts, said
from edgekit.report.page.cells import (
    DASH,
    Cell,
    Row,
    Table,
    estimate,
    latency,
    latency_estimate,
    number,
    plain,
)
from edgekit.report.taken import chosen_decisions, chosen_round, priced
from edgekit.units import format_bytes, format_count, format_duration, format_latency

MOST_DECISIONS = 40

KINDS = (
    ("recovering", "training pruned networks back (recovery)"),
    ("score-screening", "scoring"),
    ("screening", "short recoveries, to see which plan to aim at"),
    ("price", "pricing each decision by measurement"),
    ("export", "exporting to ONNX"),
    ("quantize", "quantizing to int8"),
    ("improve", "winning back accuracy of int8"),
    ("score", "scoring"),
    ("latency", "measuring latency"),
    ("final", "final measurements on the test split"),
)
"""Beginnings of stage names and what is done there."""


def stages(report: Mapping[str, Any]) -> Table:
    """Every file that was scored on the test split."""
    elsewhere = any(row.get("device") for row in report["stages"])
    headers = (
        *("file", report["metric"], f"drop, {report['unit']}", "latency p50", "against fp32", "against int8"),
        *("size", "parameters", "MACs"),
        *(("predicted on the device",) if elsewhere else ()),
    )
    rows = []
    for row in report["stages"]:
        cells = [
            plain(row["stage"]),
            estimate(row["metric"]),
            estimate(row["drop"]),
            latency_estimate(row["latency"]),
            estimate(row["ratio_to_fp32"], 2, "×"),
            estimate(row.get("ratio_to_int8"), 2, "×"),
            Cell(text=format_bytes(row["size_bytes"]), value=row["size_bytes"]),
            Cell(text=format_count(row["parameters"]), value=row["parameters"]),
            Cell(text=format_count(row["macs"]), value=row["macs"]),
            *((_on_device(row.get("device")),) if elsewhere else ()),
        ]
        rows.append(Row(cells=cells, mark="chosen" if row["stage"] == report["verdict"]["chosen"] else ""))
    return Table(name="stages", caption="Files on the test split", headers=headers, rows=rows)


def _on_device(device: Mapping[str, Any] | None) -> Cell:
    if device is None:
        return DASH
    return Cell(
        text=format_latency(device["ms"]),
        note=f"± {device['known_median_error']:.0%} in the median",
        value=device["ms"],
    )


def others(report: Mapping[str, Any]) -> Table | None:
    """The files that the bundle holds for further kinds of CPU."""
    headers = ("processor", report["metric"], f"drop, {report['unit']}", "size", "limits", "SHA-256")
    rows = [
        Row(cells=[plain(each["target"]), DASH, DASH, DASH, plain(f"gets the fp32 file: {each['why']}"), DASH])
        if each["file"] is None
        else Row(
            cells=[
                plain(each["target"]),
                estimate(each["metric"]),
                estimate(each["drop"]),
                Cell(text=format_bytes(each["size_bytes"]), value=each["size_bytes"]),
                plain("; ".join(each["broken"]) or "hold"),
                plain(each["sha256"][:12], code=True),
            ]
        )
        for each in report.get("others", ())
    ]
    caption = "The same network for other processors: scored on the test split as they compute, not timed"
    return Table(name="others", caption=caption, headers=headers, rows=rows) if rows else None


def more_of_stages(report: Mapping[str, Any]) -> Table:
    """What else was measured of each file."""
    headers = (
        *("file", "same answers as the original", "better on", "worse on", "latency p90", "latency p99", "loading"),
        *("first call", "peak memory", "nodes that run", "SHA-256"),
    )
    rows = []
    for row in report["stages"]:
        nodes = sum((row.get("nodes") or {}).get("optimized", {}).values())
        peak = row.get("peak_bytes")
        rows.append(
            Row(
                cells=[
                    plain(row["stage"]),
                    estimate(row["agreement"], 2, " %"),
                    *(Cell(text="–") if row.get(key) is None else _count(row[key]) for key in ("fixed", "broken")),
                    *(latency(row.get(key)) for key in ("latency_p90_ms", "latency_p99_ms", "load_ms", "first_ms")),
                    DASH if not peak else Cell(text=format_bytes(peak), value=peak),
                    _count(nodes) if nodes else DASH,
                    plain(row["sha256"][:12], code=True),
                ]
            )
        )
    return Table(name="more", caption="More of each file", headers=headers, rows=rows)


def _count(value: int) -> Cell:
    return Cell(text=f"{value:,}".replace(",", "\u202f"), value=value)


def nodes(report: Mapping[str, Any]) -> Table | None:
    """Operators that ONNX Runtime runs, in the original and in the chosen file."""
    before, after = ((row.get("nodes") or {}).get("optimized", {}) for row in (original(report), chosen(report)))
    names = sorted({*before, *after}, key=lambda name: (-before.get(name, 0) - after.get(name, 0), name))
    if not names:
        return None
    rows = [
        Row(cells=[plain(name, code=True), *(_count(side[name]) if name in side else DASH for side in (before, after))])
        for name in names
    ]
    headers = ("operator", original(report)["stage"], chosen(report)["stage"])
    return Table(name="nodes", caption="Nodes of the graph as ONNX Runtime runs it", headers=headers, rows=rows)


def decisions(report: Mapping[str, Any]) -> Table | None:
    """The priced decisions, those taken first, then by what they cost for what they save."""
    choices, taken = priced(report).get("choices", ()), chosen_decisions(report)
    if not choices:
        return None
    rows = [
        Row(
            cells=[
                plain(each["text"].replace("->", "→"), code=True),
                number(each["damage"], 3),
                latency(each["gain_ms"]) if each["gain_ms"] >= 0 else _negative(each["gain_ms"]),
                number(each["damage"] / (1e3 * each["gain_ms"]), 4) if each["gain_ms"] > 0 else DASH,
                DASH if (size := each.get("gain_bytes")) is None else Cell(text=format_bytes(size), value=size),
            ],
            mark="taken" if each["text"] in taken else "",
        )
        for each in ranked(choices, taken)[:MOST_DECISIONS]
    ]
    left = len(choices) - len(rows)
    caption = f"{len(choices)} decisions, each priced alone" + (f"; {left} more are in decisions.csv" if left else "")
    headers = ("decision", "damage (rise of the loss)", "latency saved", "damage per µs", "size saved")
    return Table(name="decisions-table", caption=caption, headers=headers, rows=rows)


def _negative(ms: float) -> Cell:
    return Cell(text=f"−{format_latency(-ms)}", value=ms)


def plans(report: Mapping[str, Any]) -> Table | None:
    """The ladder of plans: what was predicted, what a short and a long recovery left."""
    rungs = priced(report).get("rungs", ())
    if not rungs:
        return None
    screened = {each["rung"]: each for each in priced(report).get("screened", ())}
    rounds = {each["rung"]: each for each in report.get("rounds", ()) if "rung" in each}
    mine = chosen_round(report)
    rows = []
    for index, rung in enumerate(rungs):
        short, long = screened.get(index), rounds.get(index)
        rows.append(
            Row(
                cells=[
                    plain(f"plan {index + 1}"),
                    _count(len(rung["choices"])),
                    number(rung["predicted_ratio"], 2, "×"),
                    number(rung["damage"], 2),
                    DASH if short is None else estimate(short["drop"]),
                    DASH if long is None else estimate(long["selection"]["drop"]),
                    DASH if long is None else latency(long["selection"]["latency_ms"]),
                    DASH if long is None else plain("yes" if long.get("holds_with_margin") else "no"),
                ],
                mark="chosen" if mine is not None and mine.get("rung") == index else "",
            )
        )
    unit = report["unit"]
    headers = (
        *("plan", "decisions", "predicted against int8", "joint damage", f"drop after a short recovery, {unit}"),
        *(f"drop after the whole recovery, {unit}", "latency p50", "holds with a margin"),
    )
    return Table(
        name="plans",
        caption="Plans from mild to bold (selection split)",
        headers=headers,
        rows=rows,
        words=frozenset({7}),
    )


def seconds(report: Mapping[str, Any]) -> Table:
    """Where the time went, by kind of work."""
    by_kind: defaultdict[str, float] = defaultdict(float)
    for stage, spent in report["seconds"].items():
        by_kind[next((words for start, words in KINDS if stage.startswith(start)), stage)] += spent
    total = sum(by_kind.values()) or 1.0
    rows = [
        Row(
            cells=[
                plain(kind),
                Cell(text=format_duration(spent), value=spent, share=spent / total),
                number(100 * spent / total, 1, " %"),
            ]
        )
        for kind, spent in sorted(by_kind.items(), key=lambda pair: -pair[1])
    ]
    rows.append(Row(cells=[plain("all"), Cell(text=format_duration(total), value=total), plain("100 %")], mark="sum"))
    return Table(name="seconds", caption="Time by kind of work", headers=("work", "time", "share"), rows=rows)


def every_second(report: Mapping[str, Any]) -> Table:
    """Where the time went, stage by stage, in the order in which they were begun."""
    longest = max(report["seconds"].values(), default=1.0) or 1.0
    rows = [
        Row(cells=[plain(stage, code=True), Cell(text=format_duration(spent), value=spent, share=spent / longest)])
        for stage, spent in report["seconds"].items()
    ]
    return Table(name="every-second", caption="Time of each stage", headers=("stage", "time"), rows=rows)


def environment(report: Mapping[str, Any]) -> Table:
    """The machine before and after the final measurements; what changed meanwhile is marked, with both values."""
    sides = report["environment"]
    before, after = (machine_facts(sides.get(when) or {}) for when in ("before", "after"))
    rows = []
    for key in dict.fromkeys([*before, *after]):
        first, last = before.get(key, "–"), after.get(key, "–")
        same = first == last
        rows.append(
            Row(cells=[plain(key), plain(first if same else f"{first} → {last}")], mark="" if same else "changed")
        )
    return Table(
        name="environment",
        caption="The machine before and after the final measurements",
        headers=("", "before → after"),
        rows=rows,
        words=frozenset({1}),
    )


def splits(report: Mapping[str, Any]) -> Table:
    """The data, by split, with digests."""
    rows = [
        Row(
            cells=[
                plain(name),
                _count(each["n"]) if isinstance(each.get("n"), int) else DASH,
                plain(each.get("source", "–"), code=True),
                plain(str(each.get("sha256", "–"))[:16], code=True),
            ]
        )
        for name, each in report["splits"].items()
        if isinstance(each, Mapping)
    ]
    headers = ("split", "samples", "from", "SHA-256 (beginning)")
    return Table(
        name="splits",
        caption="Splits of the data, with digests of what is in them",
        headers=headers,
        rows=rows,
        words=frozenset({2, 3}),
    )


def settings(report: Mapping[str, Any]) -> Table:
    """Everything that decided the result beside the model and the data."""
    entries = {**report["settings"], **{f"budget: {key}": value for key, value in report["budget"].items()}}
    rows = [
        Row(cells=[plain(key.replace("_", " ")), plain(said(key, value))])
        for key, value in entries.items()
        if value is not None
    ]
    return Table(name="settings", caption="Settings", headers=("setting", "value"), rows=rows, words=frozenset({1}))
