from __future__ import annotations

import json
from collections import Counter
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgekit.errors import ExportError, StoreError
from edgekit.export import EXPORTERS, Exported, convert, export, onnx_file
from edgekit.export.exporters import torch_export, torchscript
from edgekit.workload import Batch, load_callable


def batch(*args, **kwargs) -> Batch:
    return Batch(args, kwargs, None)


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, 2)
        nn.init.uniform_(self.norm.running_mean, -1, 1)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def forward(self, image):
        return self.head(self.dropout(torch.relu(self.norm(self.conv(image)))).mean((2, 3)))


class Answer(NamedTuple):
    logits: torch.Tensor
    total: torch.Tensor


class Several(nn.Module):
    """Two inputs in a dict, one in a tuple, a flag, a keyword; two outputs."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, features, pair, flag=False, *, scale):  # noqa: FBT002 - a user's model
        mixed = self.left(features["a"]) + self.right(features["b"]) * (2 if flag else 1)
        return Answer(mixed * scale, pair[0].sum(1) - pair[1].sum(1))


def test_resnet_of_the_user_as_it_is(shared, tmp_path, operators, run, digest):
    model = load_callable(f"{shared / 'user-project' / 'project.py'}:model")()
    before = digest(model)
    data = load_callable(f"{shared / 'user-project' / 'project.py'}:test_data")()
    images = torch.stack([data[index][0] for index in range(7)])

    exported = export(model, batch(images[:2]), tmp_path / "net.onnx", metadata={"model": "resnet20"})

    assert operators(exported.path) == Counter(
        Conv=19, Relu=19, Add=9, Slice=4, Pad=2, AveragePool=1, Reshape=1, Gemm=1
    )
    with torch.no_grad():
        np.testing.assert_allclose(run(exported, images)[0], model(images).numpy(), rtol=1e-3, atol=1e-4)
    assert (exported.exporter, exported.opset, exported.refused) == ("torch.export", 20, ())
    assert exported.spec.to_dict() == {
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 3, 32, 32]}],
        "outputs": [{"name": "output", "dtype": "float32", "shape": ["batch", 10]}],
    }
    assert exported.parameters == sum(value.numel() for value in model.parameters())
    assert exported.parity.batches == (1, 2, 5)
    assert digest(model) == before

    file = onnx.load(exported.path)
    outputs = [node.output[0] for node in file.graph.node]
    assert {"bn1", "layer1.0.bn2", "layer2.0.shortcut.Pad", "layer3.2.Relu_1"} <= set(outputs)
    assert {"conv1.weight", "layer2.0.conv1.weight", "linear.bias"} <= {value.name for value in file.graph.initializer}
    said = {entry.key: entry.value for entry in file.metadata_props}
    assert (said["producer"], said["model"], said["torch_version"]) == ("edgekit", "resnet20", torch.__version__)
    assert [entry.version for entry in file.opset_import] == [20]
    # Neither paths of the user's machine nor their code go into the file.
    assert b"project.py" not in exported.path.read_bytes()


def test_batchnorm_folds_and_the_mean_becomes_a_pool(tmp_path, operators, run):
    model, image = ConvNet().eval(), torch.randn(3, 3, 8, 8)
    exported = export(model, batch(image), tmp_path / "net.onnx")
    assert operators(exported.path) == Counter(Conv=1, Relu=1, GlobalAveragePool=1, Reshape=1, Gemm=1)
    with torch.no_grad():
        np.testing.assert_allclose(run(exported, image)[0], model(image).numpy(), rtol=1e-3, atol=1e-6)


def test_a_model_in_training_mode_is_exported_in_evaluation_and_left_in_training(tmp_path, run, digest):
    model, image = ConvNet().train(), torch.randn(2, 3, 8, 8)
    before = digest(model)
    exported = export(model, batch(image), tmp_path / "net.onnx")
    assert digest(model) == before
    assert model.training
    with torch.no_grad():
        np.testing.assert_allclose(run(exported, image)[0], model.eval()(image).numpy(), rtol=1e-3, atol=1e-6)


def test_inputs_are_in_the_order_of_the_leaves_and_named_after_the_signature(tmp_path, run):
    model = Several().eval()
    example = batch(
        {"a": torch.randn(2, 4), "b": torch.randn(2, 5)},
        (torch.randn(2, 3), torch.randn(2, 3)),
        True,
        scale=torch.rand(2, 1),
    )
    exported = export(model, example, tmp_path / "net.onnx")
    assert [spec.name for spec in exported.spec.inputs] == ["a", "b", "pair_0", "pair_1", "scale"]
    assert [spec.name for spec in exported.spec.outputs] == ["logits", "total"]
    with torch.no_grad():
        want = model(*example.args, **example.kwargs)
    for have, wanted in zip(run(exported, *example.leaves()), want, strict=True):
        np.testing.assert_allclose(have, wanted.numpy(), rtol=1e-4, atol=1e-6)


def test_names_can_be_given(tmp_path):
    exported = export(
        nn.Linear(3, 2), batch(torch.randn(2, 3)), tmp_path / "n.onnx", input_names=["pixels"], output_names=["scores"]
    )
    assert (exported.spec.inputs[0].name, exported.spec.outputs[0].name) == ("pixels", "scores")


@pytest.mark.parametrize("names", [["a", "b"], [""], []])
def test_names_that_do_not_fit_are_refused(tmp_path, names):
    if not names:
        names = ["a", "a"]
    with pytest.raises(ExportError, match="1 different names, one for each input tensor"):
        export(nn.Linear(3, 2), batch(torch.randn(2, 3)), tmp_path / "n.onnx", input_names=names)


class Recurrent(nn.Module):
    def __init__(self, kind, *, bidirectional=False):
        super().__init__()
        self.rnn = kind(6, 10, num_layers=2, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(20 if bidirectional else 10, 3)

    def forward(self, features):
        return self.head(self.rnn(features)[0][:, -1])


@pytest.mark.parametrize(
    ("kind", "bidirectional"), [(nn.LSTM, False), (nn.LSTM, True), (nn.GRU, False), (nn.RNN, True)]
)
def test_recurrent_operators_stay_whole_and_nothing_computes_shapes(tmp_path, operators, run, kind, bidirectional):
    model, features = Recurrent(kind, bidirectional=bidirectional).eval(), torch.randn(4, 7, 6)
    exported = export(model, batch(features), tmp_path / "net.onnx")
    found = operators(exported.path)
    assert found[kind.__name__] == 2
    assert set(found) <= {kind.__name__, "Transpose", "Squeeze", "Reshape", "Gather", "Gemm"}
    for size in (1, 9):
        given = torch.randn(size, 7, 6)
        with torch.no_grad():
            np.testing.assert_allclose(run(exported, given)[0], model(given).numpy(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{}, {"bidirectional": True}, {"nonlinearity": "relu", "bias": False, "num_layers": 1}],
    ids=["two layers", "both ways", "relu without biases"],
)
def test_vanilla_recurrent_layers_of_any_length_are_one_operator_each(tmp_path, operators, run, options):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.RNN(6, 10, **{"num_layers": 2, **options})

        def forward(self, features):
            sequence, states = self.rnn(features)
            return sequence, states

    model = Net().eval()
    open_ended = {"features": {0: "time", 1: "samples"}}
    exported = export(model, batch(torch.randn(7, 4, 6)), tmp_path / "net.onnx", dynamic=open_ended)
    assert exported.exporter == "torch.export"
    assert operators(exported.path)["RNN"] == model.rnn.num_layers
    for size in ((1, 3), (12, 1)):
        given = torch.randn(*size, 6)
        with torch.no_grad():
            for have, wanted in zip(run(exported, given), model(given), strict=True):
                np.testing.assert_allclose(have, wanted.numpy(), rtol=1e-3, atol=1e-6)


class Stateful(nn.Module):
    """States go in and come out under one name."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 5, batch_first=True)

    def forward(self, x, h, c):
        y, (h, c) = self.rnn(x, (h.transpose(0, 1), c.transpose(0, 1)))
        return {"y": y, "h": h.transpose(0, 1), "c": c.transpose(0, 1)}


def test_given_states_are_kept(tmp_path, run):
    model, given = Stateful().eval(), (torch.randn(2, 3, 4), torch.randn(2, 1, 5), torch.randn(2, 1, 5))
    exported = export(model, batch(*given), tmp_path / "net.onnx")
    assert [spec.name for spec in exported.spec.outputs] == ["y", "h_out", "c_out"]
    with torch.no_grad():
        want = model(*given)
    for have, wanted in zip(run(exported, *given), want.values(), strict=True):
        np.testing.assert_allclose(have, wanted.numpy(), rtol=1e-3, atol=1e-6)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(30, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(16, 3)
        for parameter in self.parameters():  # The two layers start as copies of each other.
            nn.init.normal_(parameter, std=0.2)

    def forward(self, tokens):
        return self.head(self.encoder(self.embedding(tokens)).mean(1))


def test_transformer_with_open_batch_and_length(tmp_path, operators, run):
    model, tokens = Encoder().eval(), torch.randint(0, 30, (3, 8))
    exported = export(model, batch(tokens), tmp_path / "net.onnx", dynamic={"tokens": {0: "batch", 1: "time"}})
    assert exported.exporter == "torch.export"
    assert str(exported.spec.inputs[0]) == "int64 [batch, time]"
    assert exported.parity.sizes == {"time": (8, 16)}
    given = torch.randint(0, 30, (5, 11))
    with torch.no_grad():
        np.testing.assert_allclose(run(exported, given)[0], model(given).numpy(), rtol=1e-3, atol=1e-5)
    exported = export(model, batch(tokens), tmp_path / "fixed.onnx")
    # The exporter's own transposition of the keys takes ten nodes of shape arithmetic for each layer.
    assert not {"Shape", "Slice", "Concat"} & set(operators(exported.path))


def test_open_height_and_width(tmp_path, run):
    model = ConvNet().eval()
    dynamic = {"image": {0: "batch", 2: "height", 3: "width"}}
    exported = export(model, batch(torch.randn(2, 3, 8, 12)), tmp_path / "net.onnx", dynamic=dynamic)
    assert exported.spec.inputs[0].shape == ("batch", 3, "height", "width")
    image = torch.randn(1, 3, 14, 9)
    with torch.no_grad():
        np.testing.assert_allclose(run(exported, image)[0], model(image).numpy(), rtol=1e-3, atol=1e-6)


class FixedBatch(nn.Module):
    def forward(self, x):
        return x.view(4, 3) * 2


def test_a_model_that_fixes_the_batch_is_told_so_by_both_exporters(tmp_path):
    with pytest.raises(ExportError) as caught:
        export(FixedBatch(), batch(torch.randn(4, 3)), tmp_path / "net.onnx")
    text = str(caught.value)
    assert "torch.export: the model fixes what was to stay open: 'batch' (axis 0 of input 0) is always 4" in text
    assert "torchscript: the PyTorch model takes batch 4 and fails at 1" in text
    assert "dynamic='none'" in text
    assert list(tmp_path.iterdir()) == []


def test_fixed_sizes_when_asked(tmp_path):
    exported = export(FixedBatch(), batch(torch.randn(4, 3)), tmp_path / "net.onnx", dynamic="none")
    assert exported.spec.inputs[0].shape == (4, 3)


class Branches(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x * 3


def test_control_flow_on_values_is_refused_with_both_reasons_and_the_line(tmp_path):
    with pytest.raises(ExportError) as caught:
        export(Branches(), batch(torch.tensor([[-1.0, 2.0, 3.0], [-5.0, 1.0, 0.5]])), tmp_path / "net.onnx")
    text = str(caught.value)
    assert "data-dependent" in text
    assert "test_convert.py" in text
    assert "return x * 2 if x.sum() > 0 else x * 3" in text
    assert "torchscript: output 0 differs by" in text


def test_the_second_exporter_stands_in_and_says_why(tmp_path, run):
    def broken(model, tensors, dimensions, opset):
        raise NotImplementedError("no such operator")

    model, features = Recurrent(nn.LSTM).eval(), torch.randn(2, 5, 6)
    exported = export(model, batch(features), tmp_path / "net.onnx", exporters={"first": broken, "second": torchscript})
    assert exported.exporter == "second"
    assert exported.refused[0].startswith("first: NotImplementedError: no such operator")
    with torch.no_grad():
        np.testing.assert_allclose(run(exported, features)[0], model(features).numpy(), rtol=1e-3, atol=1e-6)
    names = {value.name for value in onnx.load(exported.path).graph.initializer}
    assert {"head.weight", "head.bias", "rnn.W", "rnn.R"} <= names


def test_torchscript_gives_the_same_names_and_folds_too(tmp_path, operators):
    model, image = ConvNet().eval(), torch.randn(2, 3, 8, 8)
    exported = export(model, batch(image), tmp_path / "net.onnx", exporters={"torchscript": torchscript})
    assert operators(exported.path) == Counter(Conv=1, Relu=1, GlobalAveragePool=1, Reshape=1, Gemm=1)
    file = onnx.load(exported.path)
    assert exported.spec.outputs[0].shape == ("batch", 2)
    assert {"head.weight", "head.bias"} <= {value.name for value in file.graph.initializer}


def test_a_wrong_exporter_does_not_pass_the_gate(tmp_path):
    def wrong(model, tensors, dimensions, opset):
        with torch.no_grad():
            model.model.weight[0, 0] += 0.1
        return torch_export(model, tensors, dimensions, opset)

    target = tmp_path / "net.onnx"
    target.write_bytes(b"what was here before")
    with pytest.raises(ExportError, match=r"wrong: output 0 differs by"):
        export(nn.Linear(3, 2), batch(torch.randn(2, 3)), target, exporters={"wrong": wrong})
    assert target.read_bytes() == b"what was here before"


def test_an_exporter_that_is_right_at_the_example_alone_does_not_pass(tmp_path):
    def one_size(model, tensors, _dimensions, opset):
        return torchscript(model, tensors, tuple({} for _ in tensors), opset)

    with pytest.raises(ExportError, match="one_size: "):
        export(nn.Linear(3, 2), batch(torch.randn(2, 3)), tmp_path / "n.onnx", exporters={"one_size": one_size})


def test_nan_outputs_are_refused(tmp_path):
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.bias[1] = float("nan")
    with pytest.raises(ExportError, match="2 of 4 values of output 0 of the PyTorch model are NaN or infinite"):
        export(model, batch(torch.randn(2, 3)), tmp_path / "n.onnx")


def test_an_example_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ExportError, match="the model does not take the example"):
        export(nn.Linear(3, 2), batch(torch.randn(2, 4)), tmp_path / "n.onnx")
    with pytest.raises(ExportError, match="holds no samples"):
        export(nn.Linear(3, 2), batch(torch.randn(0, 3)), tmp_path / "n.onnx")


@pytest.mark.parametrize(
    ("dynamic", "rule"),
    [
        ("all", "'batch', 'none'"),
        ({"y": {0: "batch"}}, "the inputs are input"),
        ({"input": {2: "time"}}, "axes 0 to 1"),
        ({"input": {0: "n", 1: "n"}}, "one name stands for one size"),
    ],
)
def test_open_dimensions_that_are_not_there_are_refused(tmp_path, dynamic, rule):
    with pytest.raises(ExportError) as caught:
        export(nn.Linear(3, 2), batch(torch.randn(2, 3)), tmp_path / "n.onnx", dynamic=dynamic)
    assert rule in caught.value.rule


def test_opsets_beyond_the_exporters_are_refused(tmp_path):
    with pytest.raises(ExportError, match="got 25"):
        export(nn.Linear(3, 2), batch(torch.randn(2, 3)), tmp_path / "n.onnx", opset=25)


def test_an_example_of_one_sample_and_weights_of_other_types_and_layouts(tmp_path, run):
    model = ConvNet().eval().to(memory_format=torch.channels_last)
    image = torch.randn(1, 3, 8, 8)
    exported = export(model, batch(image.to(torch.bfloat16)), tmp_path / "net.onnx")
    assert exported.spec.inputs[0].dtype == "float32"
    given = torch.randn(6, 3, 8, 8)
    with torch.no_grad():
        np.testing.assert_allclose(run(exported, given)[0], model(given).numpy(), rtol=1e-3, atol=1e-6)


def test_large_weights_go_to_a_file_of_their_own(tmp_path, monkeypatch, run):
    monkeypatch.setattr(onnx_file, "SINGLE_FILE_BYTES", 1000)
    model, x = nn.Linear(40, 30).eval(), torch.randn(2, 40)
    exported = export(model, batch(x), tmp_path / "net.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "net.onnx.data"]
    with torch.no_grad():
        np.testing.assert_allclose(run(exported, x)[0], model(x).numpy(), rtol=1e-3, atol=1e-6)


def test_a_record_finds_its_file_wherever_the_folder_went(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    exported = export(nn.Linear(3, 2), batch(torch.randn(2, 3)), first / "net.onnx")
    record = json.loads(json.dumps(exported.to_dict()))
    first.rename(second)
    found = Exported.from_dict(record, second)
    assert found.path == second / "net.onnx"
    assert found.to_dict() == exported.to_dict()
    with pytest.raises(StoreError, match=r"no file net\.onnx"):
        Exported.from_dict(record, first)
    del record["parity"]
    with pytest.raises(StoreError, match="has no 'parity'"):
        Exported.from_dict(record, second)


def test_an_unwritable_folder_is_an_error_of_the_store(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        export(nn.Linear(3, 2), batch(torch.randn(2, 3)), tmp_path / "file" / "net.onnx")


def test_progress_ends_at_the_end(tmp_path):
    steps = []
    export(nn.Linear(3, 2), batch(torch.randn(2, 3)), tmp_path / "n.onnx", progress=steps.append)
    assert (steps[0].done, steps[-1].done) == (0, steps[-1].total)


def test_both_exporters_are_tried_by_default():
    assert list(EXPORTERS) == ["torch.export", "torchscript"]
    assert convert.OPSETS[0] <= convert.OPSET <= convert.OPSETS[1]
