import json

import numpy as np
import pytest

from edgekit.report import Report, StageRow, Verdict, markdown, stage_table
from edgekit.stats import Estimate


def exact(value):
    return Estimate(value=value, low=value - 0.5, high=value + 0.5, n=10)


def row(stage, latency, ratio_to_int8=None):
    return StageRow(
        stage=stage,
        file=f"{stage}.onnx",
        sha256="0" * 64,
        metric=exact(88.27),
        drop=exact(0.25),
        agreement=exact(99.0),
        fixed=3,
        broken=5,
        latency=exact(latency),
        latency_p90_ms=None,
        latency_p99_ms=None,
        ratio_to_fp32=exact(2.0),
        ratio_to_int8=ratio_to_int8,
        speed_verdict="faster",
        size_bytes=283_100,
        parameters=269_722,
        macs=40_551_040,
        load_ms=1.0,
        first_ms=1.0,
        peak_bytes=1,
        nodes={},
        details={},
    )


@pytest.fixture
def report():
    return Report(
        name="net",
        metric="top-1 accuracy",
        unit="points",
        verdict=Verdict(holds=True, chosen="int8", broken=(), text="budget holds"),
        budget={},
        settings={},
        stages=[row("fp32", 1.5), row("int8", 0.75, exact(1.0))],
        providers=[],
        splits={},
        choices=[],
        rounds=[],
        candidates=[],
        front=[],
        notes=[],
        environment={},
        seconds={"a": 1.0},
        bundle="net.edgekit",
        report="report.json",
        next_commands=[],
    )


def test_what_is_saved_is_what_is_printed(report, tmp_path):
    report.save(tmp_path / "report.json")
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved == json.loads(json.dumps(report.to_dict()))
    assert (saved["format"], saved["version"]) == ("edgekit-report", "1.0")
    assert saved["stages"][1]["ratio_to_int8"] == {"value": 1.0, "low": 0.5, "high": 1.5, "n": 10}
    assert saved["stages"][0]["ratio_to_int8"] is None


def test_nan_does_not_reach_a_report(report, tmp_path):
    report.seconds["b"] = np.nan
    with pytest.raises(ValueError, match="JSON"):
        report.save(tmp_path / "report.json")


def test_the_table_has_a_row_a_stage_and_marks_the_chosen_one(report):
    headers, rows = stage_table(report.to_dict())
    assert headers[1] == "top-1 accuracy [95 %]"
    assert [cells[0] for cells in rows] == ["fp32", "int8 ◀"]
    assert rows[0][1:] == (
        "88.27 [87.77, 88.77]",
        "0.25 [-0.25, 0.75]",
        "1.50 ms [1.00, 2.00]",
        "2.00× [1.50, 2.50]",
        "–",
        "283.1 kB",
        "269.7 k",
        "40.6 M",
    )
    assert rows[1][3] == "750.0 µs [250.0, 1250.0]"
    lines = markdown(headers, rows).splitlines()
    assert len(lines) == 4
    assert all(line.count("|") == len(headers) + 1 for line in lines)


def test_a_row_is_found_by_its_stage(report):
    assert report.row("int8").latency.value == 0.75
