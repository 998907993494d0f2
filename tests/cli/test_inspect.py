"""`edgekit inspect` on files as users have them: what it says, and how it fails."""

import json
import subprocess
import sys
import types

import pytest


def test_it_needs_no_torch(tiny):
    code = (
        "import sys\n"
        "from edgekit.cli import main\n"
        f"code = main(['inspect', {str(tiny)!r}, '--json'])\n"
        "print(code, 'torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split() == ["0", "False"]
    assert json.loads(done.stdout)["macs"] == 4 * 2


def test_the_batch_multiplies_the_counts(done, tiny):
    assert done("inspect", tiny, "--batch", "3", "--json").json["macs"] == 3 * 4 * 2
    assert done("inspect", tiny, "--shape", "x=5x4", "--json").json["macs"] == 5 * 4 * 2


def test_the_text_names_what_it_counted(done, tiny):
    text = done("inspect", tiny).out
    for part in ("x float32 [batch, 4]", "batch (x:0, y:0)", "counted at  x [1, 4]", "MatMul", "parameters  8"):
        assert part in text
    assert "layers by size" not in done("inspect", tiny, "--layers", "0").out


def test_a_plan_says_why(done, tiny, tmp_path):
    nodes = [{"name": "y", "reason": "few channels"}, {"name": "z", "reason": ""}]
    (tmp_path / "plan.json").write_text(json.dumps({"files": [{"path": "other.onnx", "nodes": nodes}]}))
    about = done("inspect", tiny, "--plan", tmp_path / "plan.json", "--json").json
    # The node has no name of its own, so its output's stands for it.
    assert about["int8"]["not_int8"] == {"y": "few channels"}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": []}'])
def test_a_plan_that_is_none(edgekit, tiny, tmp_path, content):
    (tmp_path / "plan.json").write_text(content)
    answer = edgekit("inspect", tiny, "--plan", tmp_path / "plan.json")
    assert answer.code == 4
    assert "edgekit quantize … --json > plan.json" in answer.err


def test_netron_is_opened_where_it_is_installed(edgekit, done, tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "netron", None)
    answer = edgekit("inspect", tiny, "--netron")
    assert (answer.code, answer.out) == (4, "")
    assert "way out: pip install netron" in answer.err
    opened = []
    netron = types.SimpleNamespace(start=opened.append, wait=lambda: opened.append("waits"))
    monkeypatch.setitem(sys.modules, "netron", netron)
    done("inspect", tiny, "--netron")
    assert opened == [str(tiny), "waits"]
    assert edgekit("inspect", tiny.parent, "--netron").code == 4


def test_a_model_without_inputs_says_how_to_give_some(edgekit, project):
    answer = edgekit("inspect", f"{project.path}:model")
    assert answer.code == 4
    assert "--shape x=1x3x224x224" in answer.err
    answer = edgekit("inspect", f"{project.path}:model", "--shape", "x=1x5x16x16")
    assert answer.code == 4
    assert "the model cannot be called" in answer.err
    answer = edgekit("inspect", f"{project.path}:train_data", "--shape", "x=1x3x16x16")
    assert answer.code == 4
    assert "the function returned a TensorDataset" in answer.err
