"""The report in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from quantizer_benchmark.making import GIVEN
from quantizer_benchmark.measuring import FP32
from quantizer_benchmark.quantizers import EDGEKIT


def table(report: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headers and rows for the terminal; metric and drop only where they are known."""
    from edgekit.report import interval
    from edgekit.units import format_bytes, format_latency

    metric = report["data"].get("metric")
    headers = ("file", "p50", f"vs {FP32} [95 %]", "verdict", "size", "made in", "peak memory", "steps apart")
    rows = []
    for row in report["rows"]:
        if row["status"] != "measured":
            rows.append((row["name"], "–", "–", row["status"], "–", "–", "–", "–", *(("–", "–") if metric else ())))
            continue
        scored = (interval(row["metric"], 2), interval(row["drop"], 2)) if metric else ()
        rows.append(
            (
                row["name"],
                format_latency(row["latency"]["p50_ms"]["value"]),
                interval(row["ratio_to_fp32"], 3, "×"),
                "baseline" if row["name"] == FP32 else row["verdict"],
                format_bytes(row["size_bytes"]),
                *effort(row),
                *scored,
            )
        )
    return (*headers, *((f"{metric} [95 %]", "drop [95 %]") if metric else ())), rows


def effort(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """How long a file took to make, the memory that took, and how far kernels are from what it says."""
    from edgekit.units import format_bytes, format_duration

    making, steps = row["making"], row["steps_apart"]
    if making is None:
        took = ("–", "–")
    else:
        seconds = making["seconds"]
        duration = format_duration(seconds) if seconds >= 1 else f"{seconds * 1e3:.0f} ms"
        took = (duration, format_bytes(making["peak_bytes"]))
    return *took, "–" if steps is None else str(steps)


def remarks(report: Mapping[str, Any]) -> Iterator[str]:
    """What is to be said below the table."""
    from edgekit.report import interval

    for row in report["rows"]:
        if row["status"] != "measured":
            yield f"{row['name']}: {row['status']}: {row['reason']}"
        for text in (row.get("note"), row.get("steps_unknown")):
            if text:
                yield f"{row['name']}: {text}"
    yield from report["notes"]
    data, conditions = report["data"], report["conditions"]
    if data["kind"] == "random":
        yield "calibrated on random numbers: only speed and size mean something"
    best = report["best_other"]
    if best is None:
        yield "no other quantizer made a file that runs: there is nothing to compare with"
    else:
        for row in report["rows"]:
            if row["status"] == "measured" and row["made_by"] in (GIVEN, EDGEKIT) and row["name"] != FP32:
                ratio = interval(row["ratio_to_best_other"], 3, "×")
                yield (
                    f"{row['name']}: {ratio} as fast as {best}, the fastest file of another quantizer "
                    f"({row['verdict_to_best_other']})"
                )
    measured = next(row for row in report["rows"] if row["name"] == FP32)
    yield (
        f"{measured['latency']['rounds']} interleaved rounds, threads {conditions['threads']}, batch "
        f"{conditions['batch']}, {report['environment']['cpu']['model']}"
    )
