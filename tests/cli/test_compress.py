"""The main command: one small run, looked at from all sides."""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from types import SimpleNamespace

import onnxruntime
import pytest

from edgekit.device import isa_target, load

# The bundle says so where its int8 file was made for another processor than this one.
pytestmark = pytest.mark.filterwarnings("ignore:.*was made for:UserWarning")


@pytest.fixture(scope="module")
def run(edgekit, project, tmp_path_factory):
    """A run with one round of pruning, and all that it printed."""
    folder = tmp_path_factory.mktemp("runs") / "net"
    words = [*project.words, "--rounds", "1", "--epochs", "1", "--time", "60s", "--max-drop", "30"]
    words += ["--grid", "32", "--out", folder]  # leaves the block as the only decision
    return SimpleNamespace(folder=folder, words=words, answer=edgekit("compress", *words))


def test_a_run_ends_with_a_table_a_verdict_and_the_next_commands(run):
    assert run.answer.code == 0, run.answer.err
    lines = run.answer.out.splitlines()
    assert lines[0].strip() == "net-model: test split, ONNX Runtime"
    report = json.loads((run.folder / "report.json").read_text())
    later = ("front: ", f"{report['verdict']['chosen']} against fp32: what changed besides the mean")
    until = next((at for at, line in enumerate(lines) if line.strip().startswith(later)), len(lines))
    table = [line for line in lines[:until] if line.startswith("│")]
    assert len(table) == len(report["stages"])
    for row, line in zip(report["stages"], table, strict=True):
        assert line.split()[1] == row["stage"]
        assert ("◀" in line) == (row["stage"] == report["verdict"]["chosen"])
        assert f"{row['metric']['value']:.2f} [" in line
    assert report["verdict"]["holds"]
    assert report["verdict"]["text"].startswith("budget holds with ")
    end = lines[lines.index(report["verdict"]["text"]) :]
    assert end[1:3] == [f"  bundle  {run.folder / 'net-model.edgekit'}", f"  report  {run.folder / 'report.json'}"]
    assert end[3] == f"  page    {run.folder / 'report.html'}"
    assert end[5:] == ["next", *(f"  {command}" for command in report["next_commands"])]


def test_the_report_says_what_changed_besides_the_mean(run):
    report = json.loads((run.folder / "report.json").read_text())
    chosen, about = report["verdict"]["chosen"], report["behaviour"]
    row = next(row for row in report["stages"] if row["stage"] == chosen)
    assert (about == {}) == (chosen == "fp32")
    if about:
        assert (about["reference"], about["candidate"], about["n"]) == ("fp32", chosen, row["metric"]["n"])
        counts = about["churn"]["counts"]
        assert (counts["fixed"], counts["broken"]) == (row["fixed"], row["broken"])
        assert about["churn"]["changed"]["value"] == pytest.approx(100 - row["agreement"]["value"])
        assert about["gates"] == []
        assert f"{chosen} against fp32: what changed besides the mean" in run.answer.out


def test_the_report_has_what_was_left_open(run):
    """SGD for BatchNorm alone; pictures that come out alike are moved."""
    report = json.loads((run.folder / "report.json").read_text())
    chosen = {name: report["settings"][name] for name in ("optimizer", "learning_rate", "augment", "target")}
    assert chosen == {"optimizer": "sgd", "learning_rate": 0.06, "augment": "shift", "target": isa_target()}
    for each in report["rounds"]:
        assert set(each["fit"]["choice"]) == {"precision", "channels_last", "workers", "step_s", "threads"}


def test_the_report_says_what_operators_take(run):
    report = json.loads((run.folder / "report.json").read_text())
    assert list(report["operators"]) == [row["stage"] for row in report["stages"]]
    kinds = {name: {row["operator"] for row in found["rows"]} for name, found in report["operators"].items()}
    assert "QLinearConv" in kinds["int8"]
    assert "QLinearConv" not in kinds["fp32"]
    assert all(sum(row["us"] for row in found["rows"]) > 0 for found in report["operators"].values())
    if report["verdict"]["chosen"] != "fp32":
        assert "Time of each kind of operator, before and after" in (run.folder / "report.html").read_text()


def test_the_figures_are_those_of_the_files(run):
    report = json.loads((run.folder / "report.json").read_text())
    stages = {row["stage"]: row for row in report["stages"]}
    assert {"fp32", "int8"} < set(stages)
    for row in stages.values():
        size = (run.folder / "stages").joinpath(row["file"]).stat().st_size
        assert row["size_bytes"] == size
        session = onnxruntime.InferenceSession(row["file"], providers=["CPUExecutionProvider"])
        assert session.get_inputs()[0].shape[1:] == [3, 16, 16]
    assert stages["fp32"]["metric"]["value"] == 100.0
    assert stages["pruned-1"]["parameters"] < stages["fp32"]["parameters"]


def test_a_run_leaves_a_page_and_its_bundle_a_model_card(run, edgekit):
    report = json.loads((run.folder / "report.json").read_text())
    page = (run.folder / "report.html").read_text()
    assert "<svg" in page
    assert f"{report['stages'][0]['sha256'][:12]}" in page
    assert str(run.words[0]) in page, "the command that makes it again"
    card = (run.folder / "net-model.edgekit" / "README.md").read_text()
    assert card.startswith('---\nlibrary_name: "onnx"\n')
    assert edgekit("report", run.folder, "--format", "md").code == 0


def test_any_point_of_the_front_can_be_bundled_later(run, edgekit, tmp_path):
    report = json.loads((run.folder / "report.json").read_text())
    points = json.loads((run.folder / "front.json").read_text())["points"]
    assert [each["name"] for each in points] == [each["name"] for each in report["front"]]
    figures = {
        each["file"]: (each["selection_latency_ms"], each["selection_drop"]["value"], each["size_bytes"])
        for each in report["candidates"]
    }
    beaten = {
        name
        for name, mine in figures.items()
        if any(all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine for other in figures.values())
    }
    assert {each["name"] for each in points} == set(figures) - beaten
    number, last = points[-1]["number"], points[-1]
    answer = edgekit("bundle", "--run", run.folder, "--point", number, "--out", tmp_path / "point.edgekit")
    assert answer.code == 0, answer.err
    bundled = load(tmp_path / "point.edgekit")
    assert bundled.check().samples == 4
    files = list((tmp_path / "point.edgekit").rglob("*.onnx"))
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in files] == [last["sha256"]]
    travelling = json.loads((tmp_path / "point.edgekit" / "edgekit" / "report.json").read_text())
    assert travelling["stages"] == report["stages"]
    # Without VNNI int8 may not pay for so small a network: then the original is chosen, and has broken nothing.
    broken = travelling["behaviour"].get("broken_samples", {"shown": []})
    assert ("broken_samples" in travelling["behaviour"]) == (report["verdict"]["chosen"] != "fp32")
    assert not [each for each in broken["shown"] if each["picture"]]
    assert "panels" not in travelling["explanations"]


def test_progress_goes_to_stderr_alone(run):
    for work in ("exporting: ", "pricing decisions: ", "recovering", "measuring latency: ", "validating on cpu: 4/4"):
        assert work in run.answer.err
        assert work not in run.answer.out


def test_the_bundle_opens_on_a_device_and_predicts(run, project):
    model = load(run.folder / "net-model.edgekit")
    assert model.check().samples == 4
    x, labels = project.source.test_data().tensors
    right = [model.predict(image.numpy()).index == int(label) for image, label in zip(x, labels, strict=True)]
    assert sum(right) / len(right) >= 0.7


def test_the_first_command_that_it_names_works(run, done):
    report = json.loads((run.folder / "report.json").read_text())
    program, *words = shlex.split(report["next_commands"][0])
    assert (program, words[0]) == ("edgekit", "inspect")
    assert done(*words, "--json").json["whole"]


def test_json_in_a_process_of_its_own_is_the_report_and_nothing_else(run):
    before = json.loads((run.folder / "report.json").read_text())
    command = [sys.executable, "-m", "edgekit", "compress", *map(str, run.words), "--json"]
    # As many threads as here: the weights are computed, and have to come out the same to the last bit.
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report == json.loads((run.folder / "report.json").read_text())
    # The same command takes everything from the first run.
    assert (report["seconds"], report["stages"]) == (before["seconds"], before["stages"])


@pytest.mark.slow
def test_a_budget_that_cannot_be_met_keeps_the_closest_and_says_so(run, edgekit, project, tmp_path):
    folder = tmp_path / "missed"
    shutil.copytree(run.folder / "stages", folder / "stages")  # what it has in common with the run above
    words = ["--max-latency-ms", "0.000001", "--rounds", "0", "--out", folder]
    answer = edgekit("compress", *project.words, *words)
    assert answer.code == 3, answer.err
    report = json.loads((folder / "report.json").read_text())
    verdict = report["verdict"]
    assert not verdict["holds"]
    assert len(verdict["broken"]) == 1
    assert verdict["text"].startswith(f"budget missed ({verdict['broken'][0]}); closest is {verdict['chosen']}: ")
    assert "latency " in verdict["broken"][0]
    assert verdict["text"] in answer.out
    assert "the same command with a longer --time or a larger --max-drop" in answer.out
    assert load(folder / "net-model.edgekit").check().samples == 4
    again = edgekit("compress", *project.words, *words, "--json")
    assert (again.code, again.err) == (3, "")
    assert again.json == json.loads((folder / "report.json").read_text())
