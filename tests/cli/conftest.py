"""The command line as a user meets it: words in, an exit code and two streams out."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import textwrap
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgekit.cli import main

CLASSES = ("ant", "bee", "cat", "dog")

PROJECT = '''
"""A user's project: a network that answers every sample of its own data right, and with a margin."""

import torch
from torch import nn
from torch.utils.data import TensorDataset


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(x + self.norm2(self.second(torch.relu(self.norm1(self.first(x))))))


class Net(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.block = Block(width)
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        return self.head(self.block(torch.relu(self.norm(self.stem(x)))).mean((2, 3)))


def images(n, seed):
    generator = torch.Generator().manual_seed(seed)
    colours = 2 * torch.randn(n, 3, 1, 1, generator=generator)
    return colours + torch.randn(n, 3, 16, 16, generator=generator)


@torch.no_grad()
def model():
    torch.manual_seed(0)
    net = Net()
    x = images(64, 9)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    net(x)  # in training mode, so that BatchNorm has seen data
    for norm in norms:
        norm.momentum = 0.1
    net.eval()
    net.head.bias -= net(x).mean(0)  # every class is answered now and then
    return net


@torch.no_grad()
def data(n, seed):
    x = images(2 * n, seed)
    best = model()(x).topk(2)
    clear = (best.values[:, 0] - best.values[:, 1]).argsort(descending=True)[:n]
    return TensorDataset(x[clear], best.indices[clear, 0])


def train_data():
    return data(192, 1)


def test_data():
    return data(96, 2)
'''


@dataclass(frozen=True)
class Answer:
    """What a command left: its exit code, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """The one JSON value that stdout holds."""
        return json.loads(self.out)

    @property
    def said(self):
        """All words of stderr in one line, without the frame that typer draws around its own errors."""
        return " ".join(self.err.translate(dict.fromkeys(map(ord, "│╭╮╰╯─"), " ")).split())


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """For networks this small a second thread costs more than it gives, and most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def edgekit():
    """Run the command line in this process."""

    def run(*words):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(word) for word in words])
        return Answer(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def error_text():
    """What stderr holds after a fault: the problem, its place, the rule and the way out."""

    def text(problem, where, rule="", way_out=""):
        rows = (("where", where), ("rule", rule), ("way out", way_out))
        return "\n  ".join([f"error: {problem}", *(f"{name}: {value}" for name, value in rows if value)]) + "\n"

    return text


@pytest.fixture(scope="session")
def done(edgekit):
    """Run a command that has to succeed."""

    def run(*words):
        answer = edgekit(*words)
        assert answer.code == 0, answer.err
        return answer

    return run


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """The user's project; `words` name it on the command line, `source` holds its functions."""
    path = tmp_path_factory.mktemp("project") / "net.py"
    path.write_text(textwrap.dedent(PROJECT))
    data = ["--train", f"{path}:train_data", "--test", f"{path}:test_data"]
    return SimpleNamespace(
        path=path,
        data=data,
        classes=CLASSES,
        words=[f"{path}:model", *data, "--labels", ",".join(CLASSES)],
        source=SimpleNamespace(**runpy.run_path(str(path))),
    )


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Where the stages write, each what the next ones take."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture(scope="session")
def pruned(done, project, made):
    return SimpleNamespace(folder=made / "pruned", answer=done("prune", *project.words, "--out", made / "pruned"))


@pytest.fixture(scope="session")
def distilled(done, project, made, pruned):
    words = ["--pruned", pruned.folder, "--epochs", "1", "--batch-size", "32", "--out", made / "distilled"]
    return SimpleNamespace(folder=made / "distilled", answer=done("distill", *project.words, *words, "--json"))


@pytest.fixture(scope="session")
def original(done, project, made):
    """The network as it is, in fp32."""
    path = made / "original.onnx"
    return SimpleNamespace(path=path, answer=done("export", *project.words, "--out", path))


@pytest.fixture(scope="session")
def int8(done, project, made, original):
    path = made / "original.int8.onnx"
    words = ["--file", original.path, "--explain", "--out", path]
    return SimpleNamespace(path=path, answer=done("quantize", *project.words, *words))


@pytest.fixture(scope="session")
def bundle(done, project, made, original, int8):
    folder = made / "net.edgekit"
    words = ["--file", f"int8@x86-vnni={int8.path}", "--file", f"fp32={original.path}", "--out", folder]
    return SimpleNamespace(folder=folder, answer=done("bundle", *project.words, *words))


@pytest.fixture(scope="session")
def answers():
    """What an ONNX file says about a batch of images, by ONNX Runtime alone."""

    def run(path, images):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (value,) = session.run(None, {session.get_inputs()[0].name: np.asarray(images, np.float32)})
        return value

    return run


@pytest.fixture
def tiny(tmp_path):
    """An ONNX file that takes x [batch, 4]."""
    return affine(tmp_path / "tiny.onnx", "x")


def affine(path: Path, name: str, *, op: str = "MatMul") -> Path:
    graph = helper.make_graph(
        [helper.make_node(op, [name, "w"], ["y"])],
        "affine",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.ones((4, 2), np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture
def make_onnx():
    return affine
