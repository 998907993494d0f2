"""A detector of ultralytics (YOLO) as a model for edgekit.

    edgekit export tools/examples/yolo.py:model --train tools/examples/yolo.py:images \
        --test tools/examples/yolo.py:images --task imitation --out yolo.onnx
    edgekit quantize yolo.onnx --data pictures.zip --out yolo.int8.onnx \
        --preprocessing '{"kind": "image", "size": [640, 640], "fit": "letterbox", "pad": 114}'

Licence: ultralytics and its weights are under the AGPL-3.0; whoever ships them, also as ONNX, has to follow it or buy
another licence. edgekit does not depend on it, and no test of edgekit runs this file: install it yourself
(pip install ultralytics) and name your weights in EDGEKIT_YOLO (yolo11n.pt unless set, which ultralytics downloads).
Without labels the uncompressed network is the reference (imitation): what counts is that the outputs stay the same.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.data.images import decoded, is_image
from edgekit.device.processing import ImagePreprocessing
from edgekit.errors import WorkloadError

WEIGHTS = os.environ.get("EDGEKIT_YOLO", "yolo11n.pt")
PICTURES = Path(os.environ.get("EDGEKIT_PICTURES", "pictures"))
BEFORE = ImagePreprocessing(size=(640, 640), fit="letterbox", pad=114, antialias=False)


class Boxes(nn.Module):
    """The network with its decoded boxes and scores as one tensor [n, 4 + classes, cells], as its own export gives."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Boxes and scores of images [n, 3, height, width] in [0, 1]."""
        answer = self.network(images)
        boxes: Tensor = answer[0] if isinstance(answer, list | tuple) else answer
        return boxes


def model() -> nn.Module:
    """The trained network.

    Raises:
        WorkloadError: ultralytics is not installed.
    """
    try:
        from ultralytics import YOLO
    except ImportError as error:
        raise WorkloadError(
            f"cannot import ultralytics: {error}",
            where="tools/examples/yolo.py",
            rule="the library ultralytics (AGPL-3.0)",
            way_out="pip install ultralytics",
        ) from error
    network: Any = YOLO(WEIGHTS).model.fuse().eval().float()
    head = network.model[-1]
    head.export, head.format = True, "onnx"  # Then the head computes its grid from the input alone.
    return Boxes(network)


def images() -> list[Tensor]:
    """All pictures in the folder EDGEKIT_PICTURES, as the network takes them."""
    paths = sorted(path for path in PICTURES.rglob("*") if is_image(path.name))
    return [
        torch.from_numpy(np.array(BEFORE.apply(decoded(path.read_bytes(), path.name, str(PICTURES)))[0]))
        for path in paths
    ]
