"""What the command line says about itself."""

import itertools
import re
import shlex
from pathlib import Path

import pytest
import typer

import edgekit as package
from edgekit.cli.app import app

ROOT = typer.main.get_command(app)
COMMANDS = ROOT.commands
WITHOUT_JSON = {
    "init": "writes a file for people; there is no result",
    "report": "--format json gives it",
}
CODES = {0: "done", 1: "failed", 2: "command line", 3: "budget", 4: "fault", 130: "interrupted"}


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def test_the_readme_names_the_commands_that_there_are():
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert re.findall(r"^\| `edgekit (\w+)` \|", readme, re.MULTILINE) == [
        *("demo", "compress", "search", "worker", "prune", "distill", "finetune", "export", "quantize"),
        *("validate", "bench", "explain", "report", "compare", "bundle", "inspect", "verify", "run", "profile"),
        "doctor",
    ]
    assert set(COMMANDS) == {*re.findall(r"^\| `edgekit (\w+)` \|", readme, re.MULTILINE), "init"}


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_every_command_and_the_exit_codes(edgekit, flag):
    answer = edgekit(flag)
    assert (answer.code, answer.err) == (0, "")
    assert all(re.search(rf"\b{name}\b", answer.out) for name in COMMANDS)
    text = " ".join(answer.out.split())
    assert "4 the input or the machine is at fault; 130 interrupted." in text
    assert [code for code in CODES if f" {code} " not in text] == []


def test_the_readme_has_a_table_of_the_exit_codes():
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", readme, re.MULTILINE)
    assert [int(code) for code, _ in rows] == list(CODES)
    assert [text for code, text in rows if CODES[int(code)] not in text] == []


def test_the_version_is_that_of_the_package(edgekit):
    assert edgekit("--version").out == f"edgekit {package.__version__}\n"


def test_every_command_gives_its_result_as_json_or_has_none():
    without = {name for name in COMMANDS if not any("--json" in each.opts for each in COMMANDS[name].params)}
    assert without == set(WITHOUT_JSON)


def test_without_words_the_help_is_shown(edgekit):
    answer = edgekit()
    assert answer.code == 2
    assert "Usage: " in answer.out
    assert "edgekit demo" in answer.out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_names_each_option(edgekit, name):
    answer = edgekit(name, "--help")
    assert (answer.code, answer.err) == (0, "")
    options = [word for parameter in COMMANDS[name].params for word in parameter.opts if word.startswith("--")]
    assert [word for word in options if word not in answer.out] == []
    assert f"Example: edgekit {name}" in " ".join(answer.out.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_and_argument_is_explained(name):
    silent = [parameter.name for parameter in COMMANDS[name].params if not parameter.help]
    assert silent == []


@pytest.mark.parametrize("name", ["compress", "validate"])
def test_the_gates_say_what_they_count_and_in_which_unit(edgekit, name):
    text = " ".join(edgekit(name, "--help").out.replace("│", " ").split())
    for words in (
        *("--max-churn PERCENT", "--max-worst-class-drop POINTS", "--max-ece-rise POINTS"),
        *("--max-robustness-drop POINTS", "Evaluated once, on the test split at the end"),
    ):
        assert words in text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_a_command_is_one_that_parses(name):
    text = " ".join(COMMANDS[name].help.split())
    _, _, example = text.partition("Example: ")
    for line in example.split("&&"):
        program, command, *words = shlex.split(line)
        assert program == "edgekit"
        with COMMANDS[command].make_context(command, words) as context:
            assert context.params


@pytest.mark.parametrize("name", COMMANDS)
def test_paragraphs_are_wrapped_where_the_terminal_ends(edgekit, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "100")
    said, _, _ = edgekit(name, "--help").out.partition("╭")
    _, _, text = said.partition("Usage: ")
    lines = [line.strip() for line in text.splitlines()]
    for line, after in itertools.pairwise(lines):
        if line and after:
            assert len(line) + 1 + len(after.split()[0]) > 98, f"{line!r} had room for {after!r}"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_no_help_text_loses_what_it_has_in_brackets(edgekit, name):
    """Square brackets are markup where they look like it: what is left open by default would not be shown."""
    shown = re.sub(r"[\s│]+", "", edgekit(name, "--help").out)
    said = [COMMANDS[name].help or "", *(each.help or "" for each in COMMANDS[name].params)]
    notes = [note for text in said for note in re.findall(r"\[[^]]+\]", text)]
    assert [note for note in notes if re.sub(r"\s+", "", note) not in shown] == []
