"""What a shell gets when it asks for completions, as the shells' own scripts ask."""

import shutil
import subprocess

import pytest

from edgekit.cli import completing

PROJECT = """
raise RuntimeError("completion runs nothing")


def model(pretrained=True):
    ...


def model_of(width):
    ...


def _hidden():
    ...


class Net:
    ...
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where the shell is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(PROJECT)
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "lib").mkdir()


@pytest.fixture
def offers(edgekit, monkeypatch):
    """The completions of the last word; the others stand before it."""

    def fish(*words):
        monkeypatch.setenv("_EDGEKIT_COMPLETE", "complete_fish")
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", " ".join(["edgekit", *words]))
        answer = edgekit()
        assert (answer.code, answer.err) == (0, "")
        return [line.split("\t")[0] for line in answer.out.splitlines() if line]

    return fish


@pytest.fixture
def bash(edgekit, monkeypatch):
    """What bash would put in the place of the last word; it splits words at colons."""

    def ask(*words):
        monkeypatch.setenv("_EDGEKIT_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", "\n".join(["edgekit", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        answer = edgekit()
        assert (answer.code, answer.err) == (0, "")
        return answer.out.split()

    return ask


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["compr"], ["compress"]),
        (["pr"], ["prune", "profile"]),
        (["compress", "--device", "x86"], ["x86-vnni", "x86-avx2"]),
        (["prune", "--importance", "l"], ["l1", "l2"]),
        (["search", "--sampler", "g"], ["gp"]),
        (["quantize", "--target", "x86"], ["x86-vnni", "x86-avx2"]),
        (["quantize", "--target", "x86-vnni,"], [f"x86-vnni,{each}" for each in completing.TARGETS[1:]]),
        (["validate", "--provider", "cpu,c"], ["cpu,cuda"]),
        (["export", "--task", "re"], ["regression", "reconstruction"]),
        (["export", "n"], ["net.py:"]),
        (["export", "net.py:"], ["net.py:model"]),
        (["export", "m.py:mo"], []),
        (["compress", "--train", "net.py:mo"], ["net.py:model"]),
    ],
)
def test_names_are_offered_where_they_are_known(offers, words, found):
    assert offers(*words) == found


@pytest.mark.parametrize("command", ["bench", "compress", "quantize"])
def test_explanations_of_options_are_no_offers(offers, command):
    found = offers(command, "--")
    assert len(found) > 5
    assert [each for each in found if not each.startswith("--")] == []


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["compr"], ["compress"]),
        (["compress", "--max-dr"], ["--max-drop"]),
        (["export", "net.py", ":", "mo"], ["model"]),
        (["export", "net.py", ":"], ["model"]),
        (["export", "ne"], ["net.py:"]),
        (["compress", "net.py", ":", "model", "--train", "net.py", ":", "m"], ["model"]),
        (["compress", "net.py", ":", "model", "--device", "arm"], ["arm64"]),
    ],
)
def test_bash_takes_a_colon_for_the_end_of_a_word(bash, words, found):
    assert bash(*words) == found


def test_without_a_word_all_commands_are_offered(bash):
    assert {"demo", "compress", "inspect", "doctor"} <= set(bash(""))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_asks_by_the_variable_that_is_answered(edgekit, monkeypatch, shell):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    script = edgekit("--show-completion", shell).out
    assert f"{completing.INSTRUCTION}=complete_{shell}" in script
    if shell == "bash" and shutil.which("bash"):
        assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False).stderr == ""


def test_what_is_offered_is_what_there_is():
    from edgekit.quantize.targets import TARGETS
    from edgekit.workload.config import TASKS

    assert completing.TARGETS == TARGETS
    assert tuple(TASKS) == completing.TASKS
