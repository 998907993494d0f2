"""`edgekit finetune`, and `edgekit distill` with any student and any teacher."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgekit.distill import DistillConfig, distillation_objective
from edgekit.export import spec_of
from edgekit.tasks import classification
from edgekit.training import FitConfig
from edgekit.transfer import onnx_teacher
from edgekit.workload import Batch

EXTRA = """

def three():
    torch.manual_seed(1)
    return Narrow(3)


class Narrow(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        return self.head(torch.relu(self.stem(x)).mean((2, 3)))


def narrow():
    torch.manual_seed(2)
    return Narrow()


def bare_images():
    return list(images(32, 5))


def one_class_short():
    x, y = train_data().tensors
    return TensorDataset(x[y != 2], y[y != 2])
"""


@pytest.fixture(scope="module")
def net(project, tmp_path_factory):
    """The project with further networks and data in a folder of its own."""
    path = tmp_path_factory.mktemp("transfer") / "net.py"
    path.write_text(project.path.read_text() + EXTRA)
    return path


def data(net):
    return ["--train", f"{net}:train_data", "--test", f"{net}:test_data"]


@pytest.fixture
def fails(edgekit):
    def run(*words):
        answer = edgekit(*words)
        assert (answer.code, answer.out) == (4, "")
        return answer.err

    return run


def test_finetune_teaches_three_classes_four_and_the_result_is_a_model(done, net, tmp_path):
    out = tmp_path / "four"
    words = ["--shots", "8", "--epochs", "1", "--out", out]
    answer = done("finetune", f"{net}:three", *data(net), *words, "--json")
    about = answer.json
    assert about == json.loads((out / "report.json").read_text())
    assert about["head"] == {"name": "head", "width": 8, "outputs": 3, "last": True}
    assert (about["outputs"], set(about["counts"].values())) == (4, {8})
    assert [phase["name"] for phase in about["phases"]] == ["probe", "all"]
    assert load_file(out / "weights.safetensors")["head.weight"].shape == (4, 8)
    again = done("finetune", f"{net}:three", *data(net), *words)
    assert "probe" in again.out
    assert f"wrote {out}" in again.out
    assert f"edgekit compress {out}/model.py:model" in again.out
    done("export", f"{out}/model.py:model", *data(net), "--out", tmp_path / "four.onnx")
    assert spec_of_file(tmp_path / "four.onnx").outputs[0].shape[1] == 4


def test_finetune_names_weights_that_do_not_fit(done, net, project, tmp_path):
    state = dict(project.source.model().state_dict())
    state["head.weight"], state["old.scale"] = torch.ones(7, 32), torch.ones(1)
    save_file(state, tmp_path / "old.safetensors")
    words = ["--weights", tmp_path / "old.safetensors", "--method", "probe", "--augment", "none"]
    text = done("finetune", f"{net}:model", *data(net), *words, "--out", tmp_path / "out").out
    assert "1 not in the network: old.scale; 1 of another shape: head.weight ([7, 32], here [4, 32])" in text


def test_finetune_says_what_is_missing(fails, error_text, net, tmp_path):
    out = ["--out", tmp_path / "out"]
    short = ["--train", f"{net}:one_class_short", "--test", f"{net}:test_data"]
    assert "error: no sample of 2\n" in fails("finetune", f"{net}:model", *short, *out)
    assert "error: too few samples of " in fails("finetune", f"{net}:model", *data(net), *out, "--shots", "500")
    assert "did you mean head?" in fails("finetune", f"{net}:model", *data(net), *out, "--head", "haed")
    text = fails("finetune", f"{net}:model", *data(net), *out, "--weights", tmp_path / "absent.pt")
    assert text.endswith(
        error_text(
            "no such file",
            tmp_path / "absent.pt",
            "a file of weights",
            "check --weights",
        )
    )


def test_a_wrong_method_is_a_wrong_command_line(edgekit, net):
    answer = edgekit("finetune", f"{net}:model", *data(net), "--method", "lp_ft")
    assert answer.code == 2
    assert "did you mean lp-ft?" in answer.said


def spec_of_file(path):
    import onnx_ir as ir

    return spec_of(ir.load(path))


def test_an_onnx_teacher_gives_the_loss_of_the_torch_teacher(original, project):
    source = project.source
    x, y = (value[:24] for value in source.train_data().tensors)
    student, teacher = source.Net(16).eval(), source.model()
    config = DistillConfig(fit=FitConfig(epochs=1))
    onnx = onnx_teacher(original.path, spec_of_file(original.path))
    with torch.no_grad():
        by_torch, by_onnx = (
            distillation_objective(each, classification(), config)(student, Batch((x,), {}, y)).item()
            for each in (teacher, onnx)
        )
    assert by_onnx == pytest.approx(by_torch, rel=1e-5)


def test_any_student_learns_from_an_onnx_file_and_another_network(done, net, original, answers, tmp_path):
    out = tmp_path / "student"
    words = ["--student", f"{net}:narrow", "--teacher", original.path, "--teacher", f"{net}:model", "--epochs", "2"]
    words += ["--teacher-weights", "accuracy", "--unlabelled", f"{net}:bare_images", "--batch-size", "32"]
    answer = done("distill", f"{net}:model", *data(net), *words, "--loss", "dkd", "--out", out, "--json")
    about = answer.json
    assert [each["name"] for each in about["teachers"]] == [str(original.path), f"{net}:model"]
    assert [each["share"] for each in about["teachers"]] == pytest.approx([0.5, 0.5], abs=0.02)
    assert about["fit"]["steps"] == 2 * ((192 - 48 + 32) // 32)
    assert sorted(path.name for path in out.iterdir()) == [
        *("fit.json", "model.py", "network.json", "report.json", "weights.safetensors"),
    ]
    assert not list(tmp_path.glob(".student*"))
    done("export", f"{out}/model.py:model", *data(net), "--out", tmp_path / "student.onnx")
    state = load_file(out / "weights.safetensors")
    images = np.zeros((1, 3, 16, 16), np.float32)
    expected = np.maximum(state["stem.bias"].numpy(), 0) @ state["head.weight"].numpy().T + state["head.bias"].numpy()
    np.testing.assert_allclose(answers(tmp_path / "student.onnx", images)[0], expected, atol=1e-5)


def test_model_is_the_student_where_a_teacher_is_named(done, net, original, tmp_path):
    words = ["--teacher", original.path, "--epochs", "1", "--standardize", "--temperature", "2", "--soft", "4"]
    text = done("distill", f"{net}:narrow", *data(net), *words, "--out", tmp_path / "out").out
    assert f"teacher {original.path}" in text
    assert "student before" in text


def test_layers_are_compared_through_projections(done, net, tmp_path):
    words = ["--student", f"{net}:narrow", "--feature", "1", "--attention", "1", "--layers", "stem=stem"]
    done("distill", f"{net}:model", *data(net), *words, "--epochs", "1", "--out", tmp_path / "out")
    assert set(load_file(tmp_path / "out" / "weights.safetensors")) == {
        *("stem.weight", "stem.bias", "head.weight", "head.bias"),
    }


def test_distill_says_who_is_missing(fails, error_text, net, original, tmp_path):
    out = ["--out", tmp_path / "out"]
    text = fails("distill", f"{net}:model", *data(net), *out)
    assert text == error_text(
        "no student",
        "--student, --pruned, --teacher",
        "MODEL teaches a student, or is the student of a teacher",
        "name --student net.py:small, --pruned FOLDER, or --teacher big.onnx",
    )
    both = ["--student", f"{net}:narrow", "--pruned", "pruned"]
    assert "rule: one student" in fails("distill", f"{net}:model", *data(net), *both, *out)
    heard = ["--teacher", original.path, "--feature", "1"]
    assert "a function has no layers" in fails("distill", f"{net}:narrow", *data(net), *heard, *out)
    assert "error: no file absent.onnx" in fails(
        "distill", f"{net}:narrow", *data(net), "--teacher", "absent.onnx", *out
    )
    other = ["--student", f"{net}:three"]
    assert "is out of range" in fails("distill", f"{net}:model", *data(net), *other, *out)
