"""What the tests of quantization share: networks, their fp32 files, and ONNX Runtime itself as the oracle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekit.export import Exported, export
from edgekit.quantize import Quantized, quantize
from edgekit.workload import Batch

SAMPLES, SIZE = 32, 16


class Block(nn.Module):
    """A residual block; where it changes the width, its shortcut pads channels with zeros."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.more = stride, channels - channels_in

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride != 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more // 2, self.more // 2))
        return F.relu(out + x)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        self.blocks = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2))
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], hidden: int) -> None:
        super().__init__()
        self.recurrent = kind(12, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 5)

    def forward(self, x):
        return self.head(self.recurrent(x)[0][:, -1])


class Encoder(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


def settled(model: nn.Module) -> nn.Module:
    """Statistics and biases unlike those that layers start with."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if "running_var" in name or ("bn" in name and name.endswith("weight")):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
            elif "running_mean" in name or name.endswith("bias"):
                value.copy_(0.2 * torch.randn(value.shape, generator=generator))
    return model.eval()


@pytest.fixture(scope="session")
def fp32(tmp_path_factory) -> Callable[..., Exported]:
    """Export a network that takes samples of a shape."""

    def make(model: nn.Module, *shape: int) -> Exported:
        example = Batch((torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)),), {}, None)
        return export(settled(model), example, tmp_path_factory.mktemp("fp32") / "model.onnx")

    return make


@pytest.fixture(scope="session")
def resnet(fp32) -> Exported:
    torch.manual_seed(0)
    return fp32(ResNet(), 3, SIZE, SIZE)


@pytest.fixture(scope="session")
def draw() -> Callable[..., list[dict[str, np.ndarray]]]:
    """Four batches of standard normal inputs for a file."""

    def make(exported: Exported, seed: int = 0, batches: int = 4) -> list[dict[str, np.ndarray]]:
        rng = np.random.default_rng(seed)
        return [
            {
                tensor.name: rng.standard_normal((SAMPLES, *tensor.shape[1:])).astype(tensor.dtype)
                for tensor in exported.spec.inputs
            }
            for _ in range(batches)
        ]

    return make


@pytest.fixture
def int8(tmp_path, draw) -> Callable[..., Quantized]:
    """Quantize a file on normal inputs."""

    def make(exported: Exported, **options) -> Quantized:
        path = tmp_path / f"int8-{len(list(tmp_path.iterdir()))}.onnx"
        return quantize(exported.path, draw(exported), path, spec=exported.spec, **options)

    return make


@pytest.fixture(scope="session")
def run() -> Callable[..., np.ndarray]:
    """The first output of a file, by onnxruntime itself; `exact` where 8-bit weights would overflow sums."""

    def call(path: Path, feeds: dict[str, np.ndarray], *, exact: bool = False) -> np.ndarray:
        options = onnxruntime.SessionOptions()
        if exact:
            options.add_session_config_entry("session.x64quantprecision", "1")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return session.run(None, feeds)[0]

    return call


@pytest.fixture
def optimized(tmp_path) -> Callable[[Path], onnx.ModelProto]:
    """The graph that ONNX Runtime makes of a file, asked of onnxruntime itself."""

    def make(path: Path) -> onnx.ModelProto:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)

    return make


@pytest.fixture
def kernels(optimized) -> Callable[[Path], Counter[str]]:
    """How often each operator occurs in the graph that ONNX Runtime makes of a file."""
    return lambda path: Counter(node.op_type for node in optimized(path).graph.node)
