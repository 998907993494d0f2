"""The published table: what is asked of reports made by hand, the page and its picture, the run over all networks."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("quantizer_table", TOOLS / "quantizer_table.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        spec.loader.exec_module(module)
        from quantizer_benchmark import bar

        module.bar = bar
        yield module
    for name in [name for name in sys.modules if name.startswith(("quantizer_benchmark", "reference"))]:
        del sys.modules[name]


def estimate(value: float) -> dict:
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 100}


def row(name: str, made_by: str, *, drop: float, ratio: float, seconds: float, steps: int | None) -> dict:
    return {
        "name": name,
        "made_by": made_by,
        "status": "measured",
        "note": "",
        "steps_unknown": "",
        "size_bytes": 1000,
        "metric": estimate(90 - drop),
        "drop": estimate(drop),
        "latency": {"p50_ms": estimate(1 / ratio)},
        "ratio_to_fp32": estimate(ratio),
        "verdict": "faster" if ratio > 1.02 else "no measurable difference" if ratio > 0.98 else "slower",
        "steps_apart": steps,
        "making": {"seconds": seconds, "peak_bytes": 10**8, "versions": {made_by: "1.0", "numpy": "2.0"}},
    }


@pytest.fixture
def report() -> dict:
    """A network on which everything holds."""
    fp32 = row("fp32", "given", drop=0.0, ratio=1.0, seconds=0.0, steps=None) | {"making": None}
    fast = row("aimet", "aimet-onnx", drop=0.3, ratio=2.0, seconds=5.0, steps=1)
    sharp = row("ort-u8s8", "onnxruntime", drop=0.1, ratio=1.5, seconds=4.0, steps=None) | {
        "steps_unknown": "it runs other kernels"
    }
    absent = {"name": "nncf", "made_by": "nncf", "status": "not installed", "reason": "pip install nncf"}
    own = row("edgekit", "edgekit", drop=0.2, ratio=2.0, seconds=8.0, steps=2)
    own |= {
        "ratio_to_best_other": estimate(0.98),
        "verdict_to_best_other": "slower",
        "drop_to_most_accurate_other": estimate(0.1 + 1e-12),
    }
    return {
        "conditions": {"threads": 1, "batch": 1},
        "environment": {"cpu": {"model": "a CPU"}},
        "model": {"operators": ["Conv"], "depthwise": False, "residual": True},
        "best_other": "aimet",
        "most_accurate_other": "ort-u8s8",
        "rows": [fp32, sharp, absent, fast, own],
    }


def holding(tool, report, family="convolutional") -> dict:
    return {each.name: each.holds for each in tool.bar.requirements(report, family)}


def test_all_that_is_asked_holds_at_its_limit(tool, report):
    assert holding(tool, report) == dict.fromkeys(("drop", "accuracy", "latency", "faster", "time", "steps"), True)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("drop", {"drop": estimate(0.21)}),
        ("accuracy", {"drop_to_most_accurate_other": estimate(0.11)}),
        ("latency", {"ratio_to_best_other": estimate(0.97)}),
        ("faster", {"ratio_to_fp32": estimate(1.005), "verdict": "no measurable difference"}),
        ("time", {"making": {"seconds": 8.1, "peak_bytes": 1, "versions": {}}}),
        ("steps", {"steps_apart": 3}),
    ],
)
def test_each_can_break_alone(tool, report, name, change):
    report["rows"][-1] |= change
    assert holding(tool, report) == {each: each != name for each in tool.bar.RULES}


def test_an_int8_file_that_is_slower_is_no_fault_since_fp32_ships(tool, report):
    report["rows"][-1] |= {"ratio_to_fp32": estimate(0.8), "verdict": "slower"}
    found = {each.name: each for each in tool.bar.requirements(report, "convolutional")}
    assert (found["faster"].holds, found["faster"].cell) == (True, "✓ 0.80×: fp32 ships")


@pytest.mark.parametrize(
    ("family", "depthwise", "residual", "limit"),
    [
        ("convolutional", True, False, 0.2),
        ("convolutional", False, True, 0.2),
        ("convolutional", False, False, 0.5),
        ("attention", True, True, 0.5),
    ],
)
def test_the_drop_that_is_allowed_depends_on_the_network(tool, family, depthwise, residual, limit):
    assert tool.bar.drop_limit({"depthwise": depthwise, "residual": residual}, family) == limit


def test_without_a_file_of_ours_nothing_holds_and_without_others_some_cannot_be_told(tool, report):
    alone, none = copy.deepcopy(report), copy.deepcopy(report)
    alone["rows"] = [report["rows"][0], report["rows"][-1] | {"steps_apart": None}]
    alone |= {"best_other": None, "most_accurate_other": None}
    told = holding(tool, alone)
    assert [name for name, holds in told.items() if holds is None] == ["accuracy", "latency", "time", "steps"]
    none["rows"][-1] = {"name": "edgekit", "made_by": "edgekit", "status": "failed", "reason": "no such luck"}
    assert set(holding(tool, none).values()) == {False}


def test_the_page_says_all_and_losses_plainly(tool, report):
    lossy = copy.deepcopy(report)
    lossy["rows"][-1] |= {"drop": estimate(0.9)}
    page = tool.readme({"one": report, "other": lossy}, {"one": "convolutional", "other": "recurrent", "third": "x"})
    lines = page.splitlines()
    assert (
        "| one | **edgekit** | 89.80 [89.79, 89.81] | 0.20 [0.19, 0.21] | 500.0 µs | 2.00× [1.99, 2.01] | 0.980× "
        in page
    )
    assert any(line.startswith("| one | aimet |") and "| best other |" in line for line in lines)
    assert any(line.startswith("| other | nncf | not installed |") for line in lines)
    assert any("**drop**" in line and "Holds on 1 of 2 networks." in line for line in lines)
    assert any("**steps**" in line and "Holds on 2 of 2 networks." in line for line in lines)
    assert any(line.startswith("| other | ✗ 0.90 of 0.5 | ✓ +0.10 to ort-u8s8 |") for line in lines)
    assert "- one, nncf: pip install nncf" in lines
    assert "- one, ort-u8s8: it runs other kernels" in lines
    assert lines[-1] == "- not measured: third"
    assert "1 thread, batch 1, a CPU; onnxruntime 1.0, aimet-onnx 1.0" in page
    # Every row of a table has as many cells as its headers.
    for table in (text.splitlines() for text in page.split("\n\n") if text.startswith("| ")):
        assert len({line.count("|") for line in table}) == 1


def test_the_picture_is_small_and_always_the_same(tool, report):
    reports = {f"network {number}": report for number in range(13)}
    drawn = tool.picture(reports)
    assert drawn == tool.picture(reports)
    assert len(drawn) < 200_000
    root = ET.fromstring(drawn)  # noqa: S314 - drawn a moment ago
    said = {"".join(element.itertext()).strip() for element in root.iter() if element.tag.endswith("text")}
    assert {"network 0", "network 12", "edgekit", "aimet", "ort-u8s8"} <= said
    assert "ort-dynamic" not in said  # Nobody measured it.


@pytest.fixture
def calls(tool, report, monkeypatch):
    """Commands that were run; a comparison leaves the report, and those of `lstm` fail."""
    seen = []

    def run(command):
        seen.append(command)
        if any("lstm" in word for word in command):
            return 4
        if "--json" in command:
            Path(command[command.index("--json") + 1]).write_text(json.dumps(report))
        return 0

    monkeypatch.setattr(tool, "_run", run)
    return seen


def test_a_network_that_cannot_be_measured_is_told_of_and_the_others_go_on(tool, calls, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, "RUNS", tmp_path / "runs")
    out = tmp_path / "out"
    out.mkdir()
    assert tool.main(["lstm", "resnet20", "--python", "nncf=python", "--out", str(out), "--again"]) == 4
    captured = capsys.readouterr()
    assert captured.err == "not measured: lstm\n"
    assert "== lstm: not measured, exit code 4 after" in captured.out
    assert "== resnet20: done after" in captured.out
    assert [command[2] for command in calls] == [
        "edgekit",
        "edgekit",
        str(tmp_path / "runs" / "resnet20" / "fp32.onnx"),
    ]
    assert ("--python" in calls[-1], "--resume" in calls[-1]) == (True, False)
    page = (out / "README.md").read_text()
    assert "| resnet20 | **edgekit** |" in page
    assert "- not measured: resnet56, " in page
    assert tool.main(["--check", "--out", str(out)]) == 0
    assert tool.main(["--table", "--out", str(out)]) == 0
    assert (out / "README.md").read_text() == page
    (out / "README.md").write_text(page.replace("✓", "✗"))
    assert tool.main(["--check", "--out", str(out)]) == 1
    assert len(calls) == 3


def test_the_comparison_takes_the_words_of_every_network(tool, calls, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(tool, "publish", lambda _: None)
    tool.main(["--out", str(tmp_path)])
    compared = [command for command in calls if "tools/benchmark_quantizers.py" in command]
    assert len(compared) == len(tool.COMPARED) - 1
    spec = importlib.util.spec_from_file_location("benchmark_quantizers", TOOLS / "benchmark_quantizers.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    parser = benchmark._parser()
    for command in compared:
        options = parser.parse_args(command[2:])
        benchmark._check(parser, options)
        reference = tool.COMPARED[options.json.stem]
        assert (options.workload_model, options.resume) == (reference.model, True)


def test_a_name_that_is_no_network_is_a_wrong_command_line(tool, capsys):
    with pytest.raises(SystemExit) as stop:
        tool.main(["resnet21"])
    assert stop.value.code == 2
    assert "unknown: resnet21; there are resnet20," in capsys.readouterr().err
