"""The stage table: the same cells for the terminal, for Markdown and for the README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.units import format_bytes, format_count, format_latency

HEADERS = ("stage", "metric", "drop", "latency p50", "vs fp32", "vs int8", "size", "parameters", "MACs")
"""Column titles; the second and third are followed by the metric's unit."""
DEVICE = "predicted for the device"


def interval(estimate: Mapping[str, Any] | None, digits: int, suffix: str = "") -> str:
    """A value with its 95 % interval in brackets; a dash for none.

    >>> interval({"value": 1.5, "low": 1.4, "high": 1.6}, 1, "×")
    '1.5× [1.4, 1.6]'
    """
    if estimate is None:
        return "–"
    return f"{estimate['value']:.{digits}f}{suffix} [{estimate['low']:.{digits}f}, {estimate['high']:.{digits}f}]"


def stage_table(report: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headers and rows for the stages of a report as `Report.to_dict` gives it (or `report.json` holds it).

    Every figure that has an interval shows its 95 % interval in brackets. The row of the chosen file is marked.
    """
    elsewhere = any(row.get("device") for row in report["stages"])
    headers = (HEADERS[0], f"{report['metric']} [95 %]", *HEADERS[2:], *((DEVICE,) if elsewhere else ()))
    rows: list[tuple[str, ...]] = []
    for row in report["stages"]:
        latency = row["latency"]
        mark = " ◀" if row["stage"] == report["verdict"]["chosen"] else ""
        rows.append(
            (
                row["stage"] + mark,
                interval(row["metric"], 2),
                interval(row["drop"], 2),
                f"{format_latency(latency['value'])} [{latency['low'] * 1e3:.1f}, {latency['high'] * 1e3:.1f}]"
                if latency["value"] < 1
                else f"{format_latency(latency['value'])} [{latency['low']:.2f}, {latency['high']:.2f}]",
                interval(row["ratio_to_fp32"], 2, "×"),
                interval(row["ratio_to_int8"], 2, "×"),
                format_bytes(row["size_bytes"]),
                format_count(row["parameters"]),
                format_count(row["macs"]),
                *((_on_device(row["device"]),) if elsewhere else ()),
            )
        )
    return headers, rows


def other_table(report: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headers and rows for the files that the bundle holds for further kinds of CPU.

    They are scored with sums as those processors form them, and not timed.
    """
    headers = ("processor", f"{report['metric']} [95 %]", "drop", "size", "limits")
    return headers, [
        (each["target"], "–", "–", "–", f"gets the fp32 file: {each['why']}")
        if each["file"] is None
        else (
            each["target"],
            interval(each["metric"], 2),
            interval(each["drop"], 2),
            format_bytes(each["size_bytes"]),
            "; ".join(each["broken"]) or "hold",
        )
        for each in report.get("others", ())
    ]


def _on_device(device: Mapping[str, Any] | None) -> str:
    return "–" if device is None else f"{format_latency(device['ms'])} ± {device['known_median_error']:.0%}"


def markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A GitHub-flavoured Markdown table.

    >>> print(markdown(("a", "b"), [("1", "2")]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = ["| " + " | ".join(headers) + " |", "|" + "---|" * len(headers)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
