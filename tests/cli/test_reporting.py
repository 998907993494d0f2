"""`edgekit report` and `edgekit compare`, on the reports that lie in artifacts/."""

import csv
import io
import json
from pathlib import Path

import pytest

ARTIFACTS = Path(__file__).parents[2] / "artifacts"
RUN = ARTIFACTS / "resnet20-cifar10"
OTHER = ARTIFACTS / "keywords-lstm"


def test_the_page_is_written_where_it_is_wanted(edgekit, tmp_path):
    answer = edgekit("report", RUN, "--out", tmp_path / "page.html")
    assert (answer.code, answer.out.strip()) == (0, f"wrote {tmp_path / 'page.html'}")
    report = json.loads((RUN / "report.json").read_text())
    latency = {row["stage"]: row["latency"]["value"] for row in report["stages"]}
    times = latency["fp32"] / latency[report["verdict"]["chosen"]]
    assert f"resnet20 now answers {times:.1f} times as fast as before" in (tmp_path / "page.html").read_text()


def test_other_formats_go_to_stdout_or_to_a_file(edgekit, tmp_path):
    report = json.loads((RUN / "report.json").read_text())
    assert json.loads(edgekit("report", RUN, "--format", "json").out) == report
    rows = list(csv.DictReader(io.StringIO(edgekit("report", RUN, "--format", "csv", "--table", "seconds").out)))
    assert {row["work"]: float(row["seconds"]) for row in rows} == report["seconds"]
    assert edgekit("report", RUN, "--format", "md").out.startswith("### ✅ edgekit: the budget holds")
    card = edgekit("report", RUN, "--format", "card", "--license", "mit", "--out", tmp_path / "README.md")
    assert card.code == 0
    assert 'license: "mit"' in (tmp_path / "README.md").read_text()


def test_a_table_that_a_run_has_not_is_refused(edgekit):
    answer = edgekit("report", OTHER, "--format", "csv", "--table", "decisions")
    assert answer.code == 4
    assert "rule: one of stages, candidates, seconds" in answer.err


@pytest.mark.parametrize("command", [["report"], ["compare", RUN]])
def test_a_folder_without_a_run_is_refused(edgekit, command, tmp_path):
    answer = edgekit(*command, tmp_path)
    assert answer.code == 4
    assert "no report.json here" in answer.err
    assert "way out: " in answer.err


def test_two_runs_side_by_side(edgekit, tmp_path):
    answer = edgekit("compare", RUN, OTHER, "--out", tmp_path / "comparison.html")
    assert answer.code == 0
    assert "warning: The test splits differ" in answer.out
    assert "Both hold their budgets." in answer.out
    assert "Both hold their budgets." in (tmp_path / "comparison.html").read_text()
    data = json.loads(edgekit("compare", RUN, OTHER, "--json").out)
    sizes = [json.loads((folder / "report.json").read_text()) for folder in (RUN, OTHER)]
    chosen = [next(r for r in each["stages"] if r["stage"] == each["verdict"]["chosen"]) for each in sizes]
    assert data["difference"]["size_ratio"] == chosen[1]["size_bytes"] / chosen[0]["size_bytes"]
