"""Files as users have them, tiny."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def png():
    """The bytes of an image of one colour."""

    def make(value, size=(4, 6)):
        buffer = io.BytesIO()
        Image.fromarray(np.full((*size, 3), value, np.uint8)).save(buffer, "PNG")
        return buffer.getvalue()

    return make


@pytest.fixture
def prepare():
    """What makes an input of an image."""
    return lambda image: image.astype(np.float32).transpose(2, 0, 1)[None] / 255


@pytest.fixture
def tokenize():
    """What makes inputs of a text: its letters' numbers."""
    return lambda text: {"input_ids": np.frombuffer(text[:4].ljust(4).encode(), np.uint8).astype(np.int64)}
