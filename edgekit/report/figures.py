"""The figures of a run as plain tables for spreadsheets and scripts: a quantity a column, its unit in the name."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping

import numpy as np

from edgekit.report.saved import SavedRun
from edgekit.report.taken import chosen_decisions, priced

PERCENTILES = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100)

Cell = str | float | None
Table = tuple[tuple[str, ...], list[tuple[Cell, ...]]]
"""Column names and rows."""


def figures(run: SavedRun) -> dict[str, Table]:
    """The tables that a run has, by name: `stages`, `candidates`, `decisions`, `latency`, `seconds`."""
    return {name: table for name, make in TABLES.items() if (table := make(run))[1]}


def to_csv(table: Table) -> str:
    r"""A table as CSV; an empty cell is an unknown figure.

    Text that a spreadsheet would take for a formula gets an apostrophe in front.

    >>> to_csv((("a", "b"), [("=x", None), ("y", -1.5)]))
    "a,b\n'=x,\ny,-1.5\n"
    """
    headers, rows = table
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(headers)
    writer.writerows([["" if cell is None else _harmless(cell) for cell in row] for row in rows])
    return out.getvalue()


def _harmless(cell: str | float) -> str | float:
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def _stages(run: SavedRun) -> Table:
    estimates = (
        ("metric", "metric"),
        (f"drop_{_identifier(run.report['unit'])}", "drop"),
        ("agreement_percent", "agreement"),
        ("latency_p50_ms", "latency"),
        ("ratio_to_fp32", "ratio_to_fp32"),
        ("ratio_to_int8", "ratio_to_int8"),
    )
    plain = (
        *("latency_p90_ms", "latency_p99_ms", "speed_verdict", "size_bytes", "parameters", "macs"),
        *("load_ms", "first_ms", "peak_bytes", "fixed", "broken", "sha256"),
    )
    headers = ["stage", "chosen"]
    for title, _ in estimates:
        headers += [title, f"{title}_low", f"{title}_high", f"{title}_n"]
    elsewhere = any(row.get("device") for row in run.report["stages"])
    rows: list[tuple[Cell, ...]] = []
    for row in run.report["stages"]:
        cells: list[Cell] = [row["stage"], int(row["stage"] == run.report["verdict"]["chosen"])]
        for _, key in estimates:
            estimate = row.get(key) or {}
            cells += [estimate.get(part) for part in ("value", "low", "high", "n")]
        cells += [row.get(key) for key in plain]
        rows.append((*cells, *([(row.get("device") or {}).get("ms")] if elsewhere else [])))
    return (*headers, *plain, *(("predicted_for_device_ms",) if elsewhere else ())), rows


def _candidates(run: SavedRun) -> Table:
    front = {each["name"] for each in run.report.get("front", ())}
    return (
        ("file", "round", "selection_latency_ms", "selection_drop", "drop_low", "drop_high", "size_bytes", "on_front"),
        [
            (
                each["file"],
                each["round"],
                each["selection_latency_ms"],
                *(each["selection_drop"][part] for part in ("value", "low", "high")),
                each.get("size_bytes"),
                int(each["file"] in front),
            )
            for each in run.report.get("candidates", ())
        ],
    )


def _decisions(run: SavedRun) -> Table:
    taken = chosen_decisions(run.report)
    return (
        ("subject", "decision", "damage", "gain_ms", "gain_bytes", "taken"),
        [
            (
                *(each.get(key) for key in ("subject", "text", "damage", "gain_ms", "gain_bytes")),
                int(each["text"] in taken),
            )
            for each in priced(run.report).get("choices", ())
        ],
    )


def _latency(run: SavedRun) -> Table:
    names = tuple(f"p{each}_ms" for each in PERCENTILES)
    rows: list[tuple[Cell, ...]] = []
    for name, each in run.latencies.items():
        times = np.asarray(each["samples_ms"], dtype=np.float64)
        rows.append((name, len(times), *(float(value) for value in np.percentile(times, PERCENTILES))))
    return ("file", "calls", *names), rows


def _seconds(run: SavedRun) -> Table:
    return ("work", "seconds"), list(run.report["seconds"].items())


TABLES: Mapping[str, Callable[[SavedRun], Table]] = {
    "stages": _stages,
    "candidates": _candidates,
    "decisions": _decisions,
    "latency": _latency,
    "seconds": _seconds,
}


def _identifier(words: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in words.lower())
