"""edgekit.toml in the current folder stands for the options that name the workload."""

import pytest

from edgekit.cli.options import workload_config
from edgekit.workload import WorkloadConfig

TEXT = """
model = "net.py:model"
train = "net.py:train_data"
test = "net.py:test_data"
limit_test = 4
"""
TOO_FEW = ("4 samples of 96, since the limit is 4", "test data", "at least 8 samples", "raise the limit")


@pytest.fixture
def folder(project, tmp_path, monkeypatch):
    """The current folder, with the project and an edgekit.toml that names it."""
    (tmp_path / "net.py").write_text(project.path.read_text())
    (tmp_path / "edgekit.toml").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_a_model_the_file_is_read(edgekit, error_text, folder):
    answer = edgekit("prune", "--dry-run")
    assert (answer.code, answer.out, answer.err) == (4, "", error_text(*TOO_FEW))
    assert not (folder / "pruned").exists()


def test_options_override_the_file(edgekit, folder):
    answer = edgekit("prune", "--limit-test", "96", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["parameters"]["after"] < answer.json["parameters"]["before"]
    assert (folder / "pruned" / "plan.json").is_file()


def test_zero_overrides_the_files_seed_too(folder):
    (folder / "edgekit.toml").write_text(TEXT + "seed = 5\n")
    assert workload_config().seed == 5
    assert workload_config(seed=0).seed == 0


def test_a_file_of_another_place_starts_from_its_own_folder(edgekit, folder, monkeypatch):
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    answer = edgekit("prune", "--config", "../edgekit.toml", "--limit-test", "96", "--dry-run")
    assert answer.code == 0, answer.err


def test_a_named_model_leaves_the_file_aside(edgekit, error_text, folder):
    answer = edgekit("prune", folder / "net.py:model", "--dry-run")
    assert (answer.code, answer.out) == (4, "")
    assert answer.err == error_text(
        "not given: --train, --test",
        "command line",
        "a trained model, the data it was trained on, and data it has never seen",
        "name them, or put them into edgekit.toml (`edgekit init` writes one)",
    )


KEYS = ", ".join(sorted(set(WorkloadConfig.__slots__) - {"folder"}))
WRITES = "`edgekit init` writes a file that shows each entry"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (
            'lables = ["a"]',
            ("unknown key 'lables'", "edgekit.toml: lables", f"one of {KEYS}", "did you mean labels?"),
        ),
        (
            'name = "a/b"',
            ("name is 'a/b'", "edgekit.toml: name", "letters, digits, '.', '_' and '-', 64 at most", WRITES),
        ),
        (
            "limit_train = 0",
            ("limit_train is 0", "edgekit.toml: limit_train", "a positive number of samples", WRITES),
        ),
    ],
)
def test_a_wrong_line_is_named_with_the_way_out(edgekit, error_text, folder, line, error):
    (folder / "edgekit.toml").write_text(f"{TEXT}{line}\n")
    answer = edgekit("export")
    assert (answer.code, answer.out, answer.err) == (4, "", error_text(*error))
    assert not (folder / "model.onnx").exists()


def test_a_file_that_is_no_toml_is_named(edgekit, folder):
    (folder / "edgekit.toml").write_text("model: net.py\n")
    answer = edgekit("export")
    assert (answer.code, answer.out) == (4, "")
    assert answer.err.startswith("error: no valid TOML: ")
    assert "  where: edgekit.toml\n" in answer.err
    assert answer.err.endswith("  way out: `edgekit init` shows the form\n")


def test_a_missing_file_is_named(edgekit, error_text, folder):
    answer = edgekit("export", "--config", "absent.toml")
    problem = "cannot read: No such file or directory"
    assert answer.err == error_text(problem, "absent.toml", "a TOML file", "`edgekit init` writes one")
    assert (answer.code, answer.out) == (4, "")
    assert not (folder / "model.onnx").exists()
