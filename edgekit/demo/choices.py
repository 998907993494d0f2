"""A builder with choices for scikit-learn's digits; the example of `edgekit search --help` takes it."""

from __future__ import annotations

from torch import Tensor, nn

import edgekit
from edgekit.demo.digits import Block


class Net(nn.Module):
    """A convolution, stages of residual blocks that halve the image and double the channels, and a classifier."""

    def __init__(self, width: int, stages: int, blocks: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), activation())
        widths = [width * 2**stage for stage in range(stages)]
        self.stages = nn.Sequential(
            *(
                Block(widths[max(stage - 1, 0)] if block == 0 else widths[stage], widths[stage], 2 if block == 0 else 1)
                for stage in range(stages)
                for block in range(blocks)
            )
        )
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, 10] of images [n, 1, 32, 32]."""
        logits: Tensor = self.head(self.stages(self.stem(x)).mean((2, 3)))
        return logits


def network() -> Net:
    """The network of these choices; outside a search that of their defaults."""
    width = edgekit.choice("width", [4, 8, 16, 24], default=16)
    stages = edgekit.choice("stages", [1, 2, 3], default=2)
    # One block has nothing to repeat: the choice belongs to the deeper networks alone.
    blocks = edgekit.choice("blocks", [1, 2]) if stages > 1 else 1
    activation = edgekit.choice("activation", ["relu", "hardswish"])
    return Net(width, stages, blocks, {"relu": nn.ReLU, "hardswish": nn.Hardswish}[activation])
