"""The table that is published: all networks, all quantizers, and whether what is asked holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from quantizer_benchmark.bar import RULES, requirements
from quantizer_benchmark.measuring import FP32
from quantizer_benchmark.quantizers import EDGEKIT
from quantizer_benchmark.table import effort

PICTURE = "quantizers.svg"


def readme(reports: Mapping[str, Mapping[str, Any]], families: Mapping[str, str]) -> str:
    """The page, in Markdown.

    Args:
        reports: by network, as tools/benchmark_quantizers.py writes them.
        families: of all reference networks, those that are not measured included.
    """
    return "\n".join([*_head(reports), *_table(reports), *_bar(reports, families), *_remarks(reports, families)]) + "\n"


def _head(reports: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    conditions = _joined(
        f"{one['conditions']['threads']} thread{'s' if one['conditions']['threads'] > 1 else ''}, "
        f"batch {one['conditions']['batch']}"
        for one in reports.values()
    )
    machine = _joined(one["environment"]["cpu"]["model"] for one in reports.values())
    versions = _joined(
        f"{name} {number}"
        for one in reports.values()
        for row in one["rows"]
        for name, number in (row.get("making") or {"versions": {}})["versions"].items()
        if name in ("onnxruntime", "nncf", "aimet-onnx")
    )
    yield "# int8 files of edgekit and of other quantizers"
    yield ""
    yield (
        "Every reference network is exported to fp32 ONNX once. Each quantizer makes its int8 file of it in a fresh "
        "process, with the same calibration samples, called as its documentation advises. All files of a network are "
        "scored on the selection split (the test split stays out of it) and timed in one run of interleaved rounds "
        f"({conditions}, {machine}; {versions}). Brackets hold 95 % intervals; drops are paired with fp32 sample by "
        "sample. Time is from the tool imported to the file written, memory the most that its process ever held. Steps "
        "are quantization steps between what a kernel of ONNX Runtime computes and what the file says, at most. "
        "`NETWORK.json` beside this page has every figure."
    )
    yield ""
    yield "    python tools/quantizer_table.py --python nncf=NNCF-ENV/bin/python --python aimet=AIMET-ENV/bin/python"
    yield ""
    yield f"![speed-up and drop of each quantizer on each network]({PICTURE})"
    yield ""


def _table(reports: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    from edgekit.report import interval, markdown
    from edgekit.units import format_bytes, format_latency

    headers = (
        *("network", "quantizer", "metric [95 %]", "drop [95 %]", "p50", f"vs {FP32} [95 %]"),
        *("edgekit vs best other [95 %]", "size", "made in", "peak memory", "steps"),
    )
    rows = []
    for network, report in reports.items():
        for row in report["rows"]:
            name = f"**{row['name']}**" if row["made_by"] == EDGEKIT else row["name"]
            if row["status"] != "measured":
                rows.append((network, name, row["status"], *["–"] * (len(headers) - 3)))
                continue
            beside = {report["best_other"]: "best other"}.get(row["name"], "")
            if row["made_by"] == EDGEKIT and report["best_other"] is not None:
                beside = f"{interval(row['ratio_to_best_other'], 3, '×')} {row['verdict_to_best_other']}"
            rows.append(
                (
                    network,
                    name,
                    interval(row["metric"], 2),
                    "–" if row["name"] == FP32 else interval(row["drop"], 2),
                    format_latency(row["latency"]["p50_ms"]["value"]),
                    "–" if row["name"] == FP32 else interval(row["ratio_to_fp32"], 2, "×"),
                    beside,
                    format_bytes(row["size_bytes"]),
                    *effort(row),
                )
            )
    yield markdown(headers, rows)
    yield ""


def _bar(reports: Mapping[str, Mapping[str, Any]], families: Mapping[str, str]) -> Iterator[str]:
    from edgekit.report import markdown

    found = {network: requirements(report, families[network]) for network, report in reports.items()}
    yield "## What is asked of edgekit's file"
    yield ""
    for index, (name, rule) in enumerate(RULES.items()):
        told = [each[index].holds for each in found.values() if each[index].holds is not None]
        yield f"- **{name}**: {rule}. Holds on {sum(told)} of {len(told)} networks."
    yield ""
    yield "The values decide; their intervals are in the table above. A dash: there is nothing to judge."
    yield ""
    yield markdown(("network", *RULES), [(name, *(each.cell for each in row)) for name, row in found.items()])
    yield ""


def _remarks(reports: Mapping[str, Mapping[str, Any]], families: Mapping[str, str]) -> Iterator[str]:
    said = [
        f"- {network}, {row['name']}: {text}"
        for network, report in reports.items()
        for row in report["rows"]
        for text in (row.get("reason"), row.get("note"), row.get("steps_unknown"))
        if text
    ]
    absent = [name for name in families if name not in reports]
    if said or absent:
        yield "## Remarks"
        yield ""
        yield from said
        if absent:
            yield f"- not measured: {', '.join(absent)}"


def _joined(values: Iterator[str]) -> str:
    """What is said, each once."""
    return ", ".join(dict.fromkeys(values))
