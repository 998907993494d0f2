"""The published errors of predictions: the page is that of its report, and the package tells the same errors."""

from __future__ import annotations

import importlib.util
import json
import statistics
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from edgekit.profiling import KNOWN_ERROR

ROOT = Path(__file__).parents[2]
OUT = ROOT / "artifacts" / "latency_prediction"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("latency_prediction", ROOT / "tools" / "latency_prediction.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reports():
    return [json.loads(path.read_text()) for path in sorted(OUT.glob("*.json"), reverse=True)]


@pytest.fixture(scope="module")
def report(reports):
    return reports[0]


def test_the_page_is_that_of_the_reports(tool, reports):
    assert tool.read(OUT) == reports
    assert (OUT / "README.md").read_text() == tool.page(reports)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_package_tells_the_errors_that_were_measured(reports, precision):
    rows = [row for report in reports for row in report["rows"] if row["precision"] == precision]
    off = [abs(row["predicted_us"] / min(row["measured_us"]) - 1) for row in rows]
    assert len(off) == 13 * len(reports) > 0
    assert KNOWN_ERROR[precision].median == pytest.approx(statistics.median(off), abs=0.0051)
    assert KNOWN_ERROR[precision].worst == pytest.approx(max(off), abs=0.0051)
    assert [row["missing"] for row in rows] == [[]] * len(off)


def test_the_goal_holds(tool, reports):
    for report in reports:
        assert all(statistics.median(tool.errors(report, precision)) <= tool.GOAL for precision in tool.PRECISIONS)


def test_the_picture_is_an_svg_that_comes_out_the_same(tool, report):
    made = tool.picture(report)
    assert ET.fromstring(made).tag.endswith("svg")  # noqa: S314 - it is our own
    assert made == tool.picture(report)


def test_what_is_over_the_goal_is_marked(tool, report):
    row = report["rows"][0] | {"name": "far", "error": -0.2}
    near = row | {"name": "near", "error": 0.05}
    lines = {
        line.split("|")[1].strip(): line
        for line in tool.page([report | {"rows": [row, near | {"precision": "int8"}]}]).splitlines()
        if line.startswith("| ")
    }
    assert "-20.0% **over the goal**" in lines["far"]
    assert "over the goal" not in lines["near"]


def test_a_folders_name_stands_for_files_called_fp32(tool):
    assert tool._name(Path("runs/unet/fp32.onnx")) == "unet"
    assert tool._name(Path("zoo/unet.onnx")) == "unet"
