"""MobileNets for small pictures: depthwise convolutions, bounded activations, squeeze-excite."""

from __future__ import annotations

from torch import Tensor, nn


def _conv(
    cin: int, cout: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, act: type[nn.Module] | None = None
) -> nn.Sequential:
    layers = [
        nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(cout),
    ]
    return nn.Sequential(*layers, *([act(inplace=True)] if act is not None else []))


class InvertedResidual(nn.Module):
    """Expand, filter each channel alone, project without an activation (M. Sandler et al., *MobileNetV2*, 2018)."""

    def __init__(
        self,
        cin: int,
        cout: int,
        *,
        hidden: int,
        stride: int,
        kernel: int = 3,
        act: type[nn.Module] = nn.ReLU6,
        squeeze: bool = False,
    ) -> None:
        super().__init__()
        self.residual = stride == 1 and cin == cout
        layers: list[nn.Module] = [] if hidden == cin else [_conv(cin, hidden, act=act)]
        layers.append(_conv(hidden, hidden, kernel, stride, groups=hidden, act=act))
        if squeeze:
            layers.append(SqueezeExcite(hidden))
        layers.append(_conv(hidden, cout))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """[n, cout, h / stride, w / stride] of [n, cin, h, w]."""
        return x + self.layers(x) if self.residual else self.layers(x)


class SqueezeExcite(nn.Module):
    """Scale channels by what their means say (A. Howard et al., *Searching for MobileNetV3*, 2019)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.expand = nn.Conv2d(channels // 4, channels, 1)
        self.relu, self.gate = nn.ReLU(inplace=True), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """`x` with each channel scaled by a factor from 0 to 1."""
        return x * self.gate(self.expand(self.relu(self.reduce(self.pool(x)))))


class MobileNetV2(nn.Module):
    """Inverted residuals with ReLU6 and linear bottlenecks."""

    # expansion, channels, blocks, stride of the first
    STAGES = ((1, 16, 1, 1), (4, 24, 2, 2), (4, 40, 3, 1), (4, 64, 2, 1), (4, 96, 2, 2))

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_conv(3, 16, 3, 2, act=nn.ReLU6)]
        width = 16
        for expansion, channels, count, stride in self.STAGES:
            for index in range(count):
                hidden = expansion * width
                blocks.append(InvertedResidual(width, channels, hidden=hidden, stride=1 if index else stride))
                width = channels
        self.features = nn.Sequential(*blocks, _conv(width, 256, act=nn.ReLU6))
        self.classifier = nn.Sequential(nn.Dropout(0.1), nn.Linear(256, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, classes] of pictures [n, 3, h, w]."""
        return self.classifier(self.features(x).mean((2, 3)))


class MobileNetV3(nn.Module):
    """Inverted residuals with hard swish, 5x5 kernels and squeeze-excite."""

    # kernel, expanded channels, channels, squeeze-excite, activation, stride
    BLOCKS = (
        (3, 16, 16, True, nn.ReLU, 1),
        (3, 64, 24, False, nn.ReLU, 2),
        (3, 96, 24, False, nn.ReLU, 1),
        (5, 96, 40, True, nn.Hardswish, 1),
        (5, 160, 40, True, nn.Hardswish, 1),
        (5, 128, 48, True, nn.Hardswish, 1),
        (5, 192, 64, True, nn.Hardswish, 2),
        (5, 256, 64, True, nn.Hardswish, 1),
    )

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = _conv(3, 16, 3, 2, act=nn.Hardswish)
        width, blocks = 16, []
        for kernel, hidden, channels, squeeze, act, stride in self.BLOCKS:
            blocks.append(
                InvertedResidual(width, channels, hidden=hidden, stride=stride, kernel=kernel, act=act, squeeze=squeeze)
            )
            width = channels
        self.blocks = nn.Sequential(*blocks)
        self.last = _conv(width, 256, act=nn.Hardswish)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(256, 320), nn.Hardswish(inplace=True), nn.Dropout(0.1), nn.Linear(320, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, classes] of pictures [n, 3, h, w]."""
        return self.classifier(self.pool(self.last(self.blocks(self.stem(x)))).flatten(1))
