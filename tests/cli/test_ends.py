"""How a command ends that nobody foresaw: a defect, Ctrl-C, a library that is not there."""

import sys
import types

import pytest


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
    monkeypatch.setitem(sys.modules, "edgekit.cli.app", None)
    answer = edgekit("doctor")
    assert (answer.code, answer.out) == (4, "")
    assert answer.err.startswith("edgekit: this command needs a library that is not installed (")
    assert "pip install 'edgekit[cpu,compress]'" in answer.err


@pytest.mark.parametrize("name", ["a[bold].onnx", "a[/x].onnx"])
def test_brackets_in_a_name_are_printed_as_they_are(done, make_onnx, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    make_onnx(path, "x")
    assert done("inspect", name).out.startswith(f"{name}\n")
    assert path.stem in done("bench", name, "--time", "0.1s", "--starts", "1").out
