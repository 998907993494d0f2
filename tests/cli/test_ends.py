"""How a command ends that nobody foresaw: a defect, Ctrl-C, a library that is not there."""

import json
import sys
import types

import pytest
import typer

from edgekit.errors import EdgekitError


def raises(error):
    def call(*_words, **_options):
        raise error

    return call


def test_a_defect_ends_with_1_shows_the_traceback_and_asks_for_a_report(edgekit, monkeypatch):
    monkeypatch.setattr("edgekit.device.doctor", raises(RuntimeError("a spark")))
    answer = edgekit("doctor")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("Traceback (most recent call last):\n")
    assert answer.err.endswith(
        "RuntimeError: a spark\nedgekit failed: this is a defect of edgekit; please report it with the lines above\n"
    )


def test_ctrl_c_ends_with_130_and_says_that_nothing_is_lost(edgekit, monkeypatch):
    monkeypatch.setattr("edgekit.device.doctor", raises(KeyboardInterrupt()))
    answer = edgekit("doctor")
    assert (answer.code, answer.out) == (130, "")
    assert answer.err == "interrupted; nothing is lost: the same command goes on where it stopped\n"


def test_ctrl_c_while_libraries_are_loaded_is_no_traceback(edgekit, monkeypatch):
    loading = types.ModuleType("edgekit.cli.app")
    loading.__getattr__ = raises(KeyboardInterrupt())
    monkeypatch.setitem(sys.modules, "edgekit.cli.app", loading)
    answer = edgekit("doctor")
    assert (answer.code, answer.out) == (130, "")
    assert answer.err == "interrupted; nothing is lost: the same command goes on where it stopped\n"


def test_a_library_that_is_not_installed_is_named_with_the_way_out(edgekit, monkeypatch):
    monkeypatch.setitem(sys.modules, "typer", None)
    answer = edgekit("doctor")
    assert (answer.code, answer.out) == (4, "")
    assert answer.err.startswith("error: this command needs a library that is not installed (")
    assert "pip install 'edgekit[cpu,compress]'" in answer.err


def test_a_library_that_a_command_needs_in_the_end_is_named_alike(edgekit, monkeypatch):
    monkeypatch.setattr("edgekit.device.doctor", raises(ModuleNotFoundError("No module named 'optuna'", name="optuna")))
    answer = edgekit("doctor")
    assert (answer.code, answer.out) == (4, "")
    assert "(No module named 'optuna')" in answer.err
    monkeypatch.setattr("edgekit.device.doctor", raises(ModuleNotFoundError("no such", name="edgekit.doktor")))
    assert edgekit("doctor").code == 1


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (None, 0),
        (RuntimeError("a spark"), 1),
        (typer.BadParameter("no"), 2),
        (typer.Exit(3), 3),
        (EdgekitError("got 0"), 4),
        (KeyboardInterrupt(), 130),
    ],
)
@pytest.mark.parametrize("words", [[], ["--json"]])
def test_each_end_has_its_exit_code(edgekit, monkeypatch, end, code, words):
    monkeypatch.setattr("edgekit.device.doctor", list if end is None else raises(end))
    assert edgekit("doctor", *words).code == code


@pytest.mark.parametrize(
    ("error", "code", "problem"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("a spark"), 1, "RuntimeError: a spark"),
        (ModuleNotFoundError("No module named 'x'", name="x"), 4, "this command needs a library that is not installed"),
        (EdgekitError("got 0", where="--grid", rule="8 or 16", way_out="try 8"), 4, "got 0"),
    ],
)
def test_with_json_the_last_line_of_stderr_is_the_fault(edgekit, monkeypatch, error, code, problem):
    monkeypatch.setattr("edgekit.device.doctor", raises(error))
    answer = edgekit("doctor", "--json")
    assert (answer.code, answer.out) == (code, "")
    told = json.loads(answer.err.splitlines()[-1])["error"]
    assert set(told) == {"problem", "where", "rule", "way_out", "exit_code"}
    assert (told["exit_code"], bool(told["where"]), bool(told["way_out"])) == (code, True, True)
    assert told["problem"].startswith(problem)
    if isinstance(error, EdgekitError):
        assert told == {"problem": "got 0", "where": "--grid", "rule": "8 or 16", "way_out": "try 8", "exit_code": 4}


def test_a_wrong_command_line_is_json_too_if_asked(edgekit):
    answer = edgekit("bench", "x.onnx", "--threads", "0", "--json")
    assert (answer.code, answer.out) == (2, "")
    told = json.loads(answer.err)["error"]
    assert (told["where"], told["exit_code"]) == ("edgekit bench", 2)


def test_what_the_users_code_prints_is_not_in_the_result(edgekit, monkeypatch):
    def chatty():
        sys.stdout.write("loading weights\n")
        return []

    monkeypatch.setattr("edgekit.device.doctor", chatty)
    answer = edgekit("doctor", "--json")
    assert (answer.code, answer.json, answer.err) == (0, [], "loading weights\n")
    assert "loading weights" in edgekit("doctor").out


@pytest.mark.parametrize("name", ["a[bold].onnx", "a[/x].onnx"])
def test_brackets_in_a_name_are_printed_as_they_are(done, make_onnx, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    make_onnx(path, "x")
    assert done("inspect", name).out.startswith(f"{name}\n")
    assert path.stem in done("bench", name, "--time", "0.1s", "--starts", "1").out


def test_a_torchvision_of_another_torch_is_no_defect(edgekit, monkeypatch):
    def failing(_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("edgekit.cli._run", lambda *_, **__: failing(None))
    answer = edgekit("doctor")
    assert answer.code == 4
    assert "cannot import torchvision: operator torchvision::nms does not exist" in answer.err
    assert "pip uninstall torchvision" in answer.err
