"""The other forms of a report: comment, card, tables, command, comparison; and what is refused."""

import csv
import inspect
import io
import json
import re
import shlex

import pytest
import typer

from edgekit.cli.app import app
from edgekit.errors import EdgekitError
from edgekit.report import CardFacts, card, comment, compare, facts_of, figures, read_run, to_csv
from edgekit.report import command as making
from edgekit.report.card import yaml_lines
from edgekit.report.command import compress_command, config_entries
from edgekit.report.headline import caveat, gates, sentence
from edgekit.report.taken import chosen_decisions

EVIL = "<b>|x|</b> [a](b) https://example.org www.example.org @me #1 `c` *d* &#60;"


def test_the_sentence_says_what_came_out(report, make):
    assert sentence(report) == (
        "net now answers 3.0 times as fast as before, from a file 4.0 times smaller, and loses 0.38 points of top-1 "
        "accuracy."
    )
    report["stages"][2]["drop"] = make.estimate(0.2, 0.25)
    assert sentence(report).endswith("with no measurable change in top-1 accuracy.")
    report["stages"][2]["drop"] = make.estimate(-0.5, 0.25)
    assert sentence(report).endswith("and gains 0.50 points of top-1 accuracy.")
    report["verdict"] |= {"holds": False, "broken": ["size 250.0 kB > 200.0 kB"]}
    assert sentence(report).startswith("No version of net stays inside the budget: the closest one, pruned-1-int8")
    report["verdict"] |= {"holds": True, "chosen": "fp32"}
    assert "best left as it is" in sentence(report)


@pytest.mark.parametrize(
    ("value", "half", "words"),
    [(0.2, 0.1, "lies inside"), (0.4, 0.2, "may not hold"), (0.6, 0.2, "really missed"), (0.9, 0.1, "lies beyond")],
)
def test_the_caveat_is_about_the_interval(report, value, half, words, make):
    report["stages"][2]["drop"] = make.estimate(value, half)
    assert words in caveat(report)


def test_gates_are_the_limits_of_the_budget(report, make):
    assert [(gate.name, gate.holds) for gate in gates(report)] == [
        ("drop", True),
        ("latency", True),
        ("size", True),
        ("speed against fp32", True),
    ]
    report["budget"] |= {"max_drop_points": 0.25, "max_latency_ms": 0.4, "max_size_bytes": 249_999}
    report["stages"][2]["ratio_to_fp32"] = make.estimate(0.5, 0.1)
    assert [gate.holds for gate in gates(report)] == [False] * 4
    report["stages"][2]["device"] = {"ms": 0.3, "known_median_error": 0.05}
    assert gates(report)[1].holds


def test_a_comment_has_verdict_gates_and_table_and_no_link(report):
    report["behaviour"] = {"gates": [{"gate": "max_churn", "limit": 1.0, "figure": None, "holds": False}]}
    text = comment(report)
    assert text.startswith("### ✅ edgekit: the budget holds\n")
    assert "| churn | not measured | at most 1.00 % | ❌ missed |" in text
    assert len(re.findall(r"^\| (?:fp32|int8|pruned-1-int8 ◀) \|", text, re.MULTILINE)) == 3
    report |= {"name": EVIL, "notes": [EVIL]}
    for part in ("<b>", "](", "://", "www.", "@me", "#1 ", "`c`", "*d*"):
        assert part in EVIL
        assert part not in comment(report)
        assert part not in card(report).partition("\n---\n")[2].replace("```python", "").replace("## ", "")


def test_a_card_begins_with_metadata(report, make):
    facts = facts_of(
        make.workload, CardFacts(license="apache-2.0", base_model="timm/net", dataset="no: {yes} # 'x' \x85")
    )
    _, front, body = card(report, facts).split("---\n", 2)
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: the front matter is not parsed")
    data = yaml.safe_load(front)
    assert data["library_name"] == "onnx"
    assert (data["license"], data["base_model"]) == ("apache-2.0", "timm/net")
    assert data["pipeline_tag"] == "image-classification"
    (model,) = data["model-index"]
    (result,) = model["results"]
    assert result["dataset"]["name"] == "no: {yes} # 'x' \x85"
    assert {each["type"]: each["value"] for each in result["metrics"]} == {"accuracy": 87.75, "latency": 0.5}
    assert "# net" in body


def test_what_a_card_does_not_know_is_left_out(report):
    front = card(report).split("---\n", 2)[1]
    keys = re.findall(r"^([\w-]+):", front, re.MULTILINE)
    assert keys == ["library_name", "tags", "model-index"]
    assert facts_of({"model": "timm:resnet18", "task": "regression", "mean": [0.5]}).pipeline_tag is None


def test_yaml_of_awkward_texts_is_read_back():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: YAML is not parsed")
    data = {
        "a": [{"b": "no", "c": [{"d": "1e3", "e": "\u2028\x7f\ufeff"}]}, "- x", "é\n\t\\"],
        "f": {"g": 1.5, "h": True},
    }
    assert yaml.safe_load("\n".join(yaml_lines(data))) == data


def test_tables_hold_the_figures(run):
    tables = {name: list(csv.DictReader(io.StringIO(to_csv(table)))) for name, table in figures(run).items()}
    assert set(tables) == {"stages", "candidates", "decisions", "latency", "seconds"}
    assert [(row["stage"], row["chosen"]) for row in tables["stages"]] == [
        ("fp32", "0"),
        ("int8", "0"),
        ("pruned-1-int8", "1"),
    ]
    assert [float(row["drop_points_high"]) for row in tables["stages"]] == [0.0, 0.375, 0.625]
    assert tables["stages"][0]["latency_p99_ms"] == ""
    assert [row["decision"] for row in tables["decisions"] if row["taken"] == "1"] == ["remove block a"]
    assert {row["work"]: float(row["seconds"]) for row in tables["seconds"]} == run.report["seconds"]


def test_decisions_of_an_unpruned_file_are_none(report):
    assert chosen_decisions(report) == {"remove block a"}
    report["verdict"]["chosen"] = "int8"
    assert chosen_decisions(report) == frozenset()


def test_the_command_is_one_that_makes_the_same_run(report, make):
    report["settings"] |= {"costs": "my costs.json", "host": "pi@pi", "python": "python3.12", "learning_rate": 0.06}
    report["settings"] |= {"resolutions": [24, 16], "also": ["arm64", "x86-avx2"], "robustness_time_s": 0.0}
    report["budget"] |= {"max_churn": 2.0, "max_ece_rise": 0.5, "confidence": 0.95}
    workload = {**make.workload, "weights": "net.pt", "trust_pickle": "net.pt"}
    words = shlex.split(compress_command(report, workload))
    assert words[:5] == ["cd", "/some where", "&&", "edgekit", "compress"]
    command = typer.main.get_command(app).commands["compress"]
    with command.make_context("compress", words[5:]) as context:
        given = context.params
    assert given["model"] == "net.py:model"
    assert (given["image_size"], given["labels"], given["seed"]) == ("32x48", "cat,dog", 3)
    assert (given["max_drop"], given["max_latency_ms"], given["max_size_mb"], given["time"]) == (
        0.5,
        0.625,
        0.26,
        "60s",
    )
    assert (str(given["costs"]), given["on"], given["python"]) == ("my costs.json", "pi@pi", "python3.12")
    assert (given["rounds"], given["learning_rate"]) == (4, 0.06)
    assert (given["resolution"], given["also"], given["robustness_time"]) == ([24, 16], "arm64,x86-avx2", "0s")
    assert (given["max_churn"], given["max_ece_rise"], given["confidence"]) == (2.0, 0.5, 0.95)
    assert (given["weights"], given["trust_pickle"]) == ("net.pt", "net.pt")
    assert config_entries(make.workload) == {"selection_from": "train"}
    assert compress_command(report, {}) == ""


def test_the_command_knows_every_option():
    """A new option that is forgotten there would be left out of the command that makes a run again."""
    every = typer.main.get_command(app).commands["compress"].params
    known = {option for each in every for option in each.opts if option.startswith("--")}
    source = inspect.getsource(making)
    forgotten = {option for option in known if f'"{option}"' not in source}
    assert forgotten == {"--out", "--json", "--config"}


def test_equal_runs_differ_in_nothing(report, make):
    found = compare(report, make.report())
    assert (found.settings, found.environment, found.data, found.warnings) == ([], [], [], [])
    assert (found.drop.value, found.speed.value, found.size) == (0.0, 1.0, 1.0)
    assert "their drops do not differ measurably" in found.verdict


def test_a_comparison_says_what_differs_and_what_it_is_worth(report, make):
    other = make.report()
    other["stages"][2] |= {
        "drop": make.estimate(1.375, 0.25),
        "ratio_to_fp32": make.estimate(6.0, 0.04),
        "size_bytes": 500_000,
    }
    other["verdict"] |= {"holds": False}
    other["budget"]["max_drop_points"] = 1.0
    other["environment"]["before"]["cpu"] = {"model": "Other CPU", "cores": 2}
    other["splits"]["test"]["sha256"] = "cd" * 32
    found = compare(report, other)
    # Independent errors add in quadrature.
    assert (found.drop.value, found.drop.high) == (1.0, pytest.approx(1 + 0.25 * 2**0.5))
    assert (found.speed.value, found.size) == (pytest.approx(2.0), 2.0)
    assert found.speed.low < 2 < found.speed.high
    assert [(each.name, each.a, each.b) for each in found.settings] == [("budget: max_drop_points", "0.5", "1.0")]
    assert "processor" in [each.name for each in found.environment]
    assert any("different machines" in each for each in found.warnings)
    assert any("test splits differ" in each for each in found.warnings)
    assert found.verdict.startswith("Only A holds its budget. B gains more speed")
    assert found.verdict.endswith("B loses 1.00 points more.")
    assert json.loads(json.dumps(found.to_dict()))["difference"]["size_ratio"] == 2.0


def test_conditions_of_one_machine_may_differ_too(report, make):
    other = make.report()
    other["environment"]["before"]["cpu"]["load_average"] = [4.0, 1.0, 1.0]
    assert any("busier" in each for each in compare(report, other).warnings)
    other = make.report()
    other["stages"][0]["latency"] = make.estimate(1.8, 0.01)
    assert any("1.20 times as long in B" in each for each in compare(report, other).warnings)


@pytest.mark.parametrize(
    ("files", "problem", "way_out"),
    [
        ({}, "no report.json here", "edgekit compress"),
        ({"stages/x": ""}, "the run has not finished", "goes on"),
        ({"front.json": "{}"}, "a search", "edgekit bundle"),
        ({"report.json": "{"}, "no JSON", "start the run again"),
        ({"report.json": "[]"}, "no report of edgekit", "edgekit compress"),
        ({"report.json": '{"format": "edgekit-report", "version": "2.0"}'}, "edgekit-report 2.0", "install"),
        ({"report.json": '{"format": "edgekit-report", "version": "1.0"}'}, "name is missing", "as edgekit wrote it"),
    ],
)
def test_what_is_no_finished_run_is_refused(tmp_path, files, problem, way_out):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(EdgekitError) as caught:
        read_run(tmp_path)
    assert problem in caught.value.problem
    assert caught.value.rule
    assert way_out in caught.value.way_out


def test_a_fault_in_a_report_is_named(report, tmp_path, make):
    del report["stages"][1]["drop"]["low"]
    with pytest.raises(EdgekitError, match=r"stages\[1\].drop is missing"):
        read_run(make.save(tmp_path, report))
    with pytest.raises(EdgekitError, match="nothing here"):
        read_run(tmp_path / "elsewhere")


def test_a_bundle_holds_a_report_too(report, tmp_path):
    (tmp_path / "edgekit").mkdir()
    (tmp_path / "edgekit" / "report.json").write_text(json.dumps(report))
    assert read_run(tmp_path).report == report
