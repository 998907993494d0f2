r"""Image classifiers as a user's project: networks whose parts break quantizers, trained on CIFAR-10.

    python tools/reference/images.py train mobilenet_v2
    edgekit compress tools/reference/images.py:mobilenet_v2 --train tools/reference/images.py:train_data \
        --test tools/reference/images.py:test_data

The pictures are JPEGs in a zip, one folder per class, as cifar10-train.zip and cifar10-test.zip in the folder
EDGEKIT_CIFAR10, or beside the checkout in shared/data. They are decoded once into an .npz beside the weights.
"""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from catalogue import weights_folder
from networks.convnext import ConvNeXt
from networks.csp import CSPClassifier
from networks.mobilenet import MobileNetV2, MobileNetV3
from networks.resnet import ResNet
from networks.shufflenet import ShuffleNetV2
from networks.vit import ViT
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from training import Recipe, command_line, data_folder, trained

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def archive(split: str) -> Path:
    """The zip with the pictures of a split; asked for at each use, since the environment may change."""
    return Path(os.environ.get("EDGEKIT_CIFAR10", data_folder())) / f"cifar10-{split}.zip"


def pictures(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 [n, 32, 32, 3] and their classes int64 [n], in the order of the zip's sorted names."""
    cache = weights_folder() / f"cifar10-{split}.npz"
    if not cache.is_file():
        with zipfile.ZipFile(archive(split)) as entries:
            names = sorted(name for name in entries.namelist() if not name.endswith("/"))
            images = np.stack([np.asarray(Image.open(io.BytesIO(entries.read(name)))) for name in names])
        folders = [name.split("/")[0] for name in names]
        labels = np.unique(folders, return_inverse=True)[1].astype(np.int64)
        cache.parent.mkdir(parents=True, exist_ok=True)
        unfinished = cache.with_name(f"{cache.stem}.{os.getpid()}.npz")
        np.savez(unfinished, images=images, labels=labels)
        unfinished.replace(cache)
    with np.load(cache) as arrays:
        return arrays["images"], arrays["labels"]


def normalized(picture: Tensor) -> Tensor:
    """Float32 [3, h, w] out of values [3, h, w] in 0..255."""
    return (picture / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


class Cifar10(Dataset[tuple[Tensor, int]]):
    """Items are (float32 [3, 32, 32], int). `augment` mirrors, and cuts out of the picture padded by 4 pixels."""

    def __init__(self, split: str, *, augment: bool = False) -> None:
        images, labels = pictures(split)
        self.images, self.labels = torch.from_numpy(images), labels.tolist()
        self.augment = augment

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        x = normalized(self.images[index].permute(2, 0, 1))
        if self.augment:
            mirror, top, left = torch.randint(0, 18, (3,)).tolist()
            x = F.pad(x.flip(2) if mirror < 9 else x, (4, 4, 4, 4))[
                :, top // 2 : top // 2 + 32, left // 2 : left // 2 + 32
            ]
        return x, self.labels[index]


_SGD: dict[str, Any] = {"learning_rate": 0.1, "batch_size": 128}
_ADAMW: dict[str, Any] = {
    "optimizer": "adamw",
    "learning_rate": 2e-3,
    "weight_decay": 0.05,
    "batch_size": 128,
    "clip_norm": 1.0,
}
RECIPES = {
    "mobilenet_v2": Recipe(network=MobileNetV2, epochs=4, settings=_SGD),
    "mobilenet_v3": Recipe(network=MobileNetV3, epochs=4, settings=_SGD),
    "shufflenet": Recipe(network=ShuffleNetV2, epochs=4, settings=_SGD),
    "convnext": Recipe(network=ConvNeXt, epochs=4, settings=_ADAMW),
    "csp_silu": Recipe(network=CSPClassifier, epochs=4, settings=_SGD),
    "vit_tiny": Recipe(network=ViT, epochs=4, settings=_ADAMW),
    "resnet56": Recipe(network=lambda: ResNet((9, 9, 9)), epochs=12, settings=_SGD),
    "plain56": Recipe(network=lambda: ResNet((9, 9, 9), plain=True), epochs=12, settings=_SGD),
    "shortcut20": Recipe(network=lambda: ResNet((3, 3, 3)), epochs=6, settings=_SGD),
    "plain20": Recipe(network=lambda: ResNet((3, 3, 3), plain=True), epochs=6, settings=_SGD),
    "resnet18": Recipe(network=lambda: ResNet((2, 2, 2, 2)), epochs=6, settings=_SGD),
    "plain18": Recipe(network=lambda: ResNet((2, 2, 2, 2), plain=True), epochs=6, settings=_SGD),
}


def _trained(name: str) -> nn.Module:
    return trained(name, "images.py", RECIPES)


def mobilenet_v2() -> nn.Module:
    """The trained MobileNetV2."""
    return _trained("mobilenet_v2")


def mobilenet_v3() -> nn.Module:
    """The trained MobileNetV3."""
    return _trained("mobilenet_v3")


def shufflenet() -> nn.Module:
    """The trained ShuffleNetV2."""
    return _trained("shufflenet")


def convnext() -> nn.Module:
    """The trained ConvNeXt."""
    return _trained("convnext")


def csp_silu() -> nn.Module:
    """The trained backbone and neck of a detector, as a classifier."""
    return _trained("csp_silu")


def vit_tiny() -> nn.Module:
    """The trained Vision Transformer."""
    return _trained("vit_tiny")


def resnet56() -> nn.Module:
    """The trained ResNet-56."""
    return _trained("resnet56")


def plain56() -> nn.Module:
    """The trained twin of ResNet-56 without shortcuts."""
    return _trained("plain56")


def shortcut20() -> nn.Module:
    """The trained ResNet-20 that `plain20` is held against; the user project's has a training of its own."""
    return _trained("shortcut20")


def plain20() -> nn.Module:
    """The trained twin of ResNet-20 without shortcuts."""
    return _trained("plain20")


def resnet18() -> nn.Module:
    """The trained ResNet-18 at a quarter of its width."""
    return _trained("resnet18")


def plain18() -> nn.Module:
    """The trained twin of ResNet-18 without shortcuts."""
    return _trained("plain18")


def train_data() -> Cifar10:
    """Pictures to learn from, augmented."""
    return Cifar10("train", augment=True)


def test_data() -> Cifar10:
    """Pictures that training never sees."""
    return Cifar10("test")


if __name__ == "__main__":
    command_line(__doc__, RECIPES, train_data, test_data)
