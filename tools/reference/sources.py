r"""Text as a user's project: which package of Python's standard library do these 64 words of source code come from?

    python tools/reference/sources.py train text_encoder
    edgekit compress tools/reference/sources.py:text_encoder --train tools/reference/sources.py:train_data \
        --test tools/reference/sources.py:test_data

The text is the running Python's own, so figures differ a little between its versions. Every fourth file of a package
is kept for testing. Words and signs are numbered by their CRC-32; number 0 stands before each window, as [CLS] does.
"""

from __future__ import annotations

import re
import sysconfig
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from networks.text import TextEncoder
from torch import nn
from torch.utils.data import TensorDataset
from training import Recipe, command_line, trained

PACKAGES = ("asyncio", "ctypes", "email", "http", "importlib", "json", "multiprocessing", "unittest", "urllib", "xml")
TOKENS, VOCABULARY = 64, 4096
TRAIN_STEP = 16
"""Windows to learn from overlap: one starts every so many words."""


def numbers(text: str) -> np.ndarray:
    """Numbers int64 [words] from 1 to VOCABULARY - 1 of a text's words and signs."""
    words = re.findall(r"\w+|[^\w\s]", text)
    return np.array([zlib.crc32(word.encode()) % (VOCABULARY - 1) + 1 for word in words], np.int64)


@cache
def windows(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Token numbers int64 [n, TOKENS] and packages int64 [n]; a file's words are in one split only."""
    library = Path(sysconfig.get_path("stdlib"))
    length, step = TOKENS - 1, TRAIN_STEP if split == "train" else TOKENS - 1
    found, labels = [], []
    for label, package in enumerate(PACKAGES):
        for place, file in enumerate(sorted((library / package).rglob("*.py"))):
            words = numbers(file.read_text(encoding="utf-8", errors="replace"))
            if (place % 4 == 2) == (split == "test") and len(words) >= length:
                views = np.lib.stride_tricks.sliding_window_view(words, length)[::step]
                found.append(np.pad(views, ((0, 0), (1, 0))))
                labels.append(np.full(len(views), label))
    return np.concatenate(found), np.concatenate(labels)


RECIPES = {
    "text_encoder": Recipe(
        network=lambda: TextEncoder(VOCABULARY, len(PACKAGES), tokens=TOKENS),
        epochs=3,
        settings={
            "optimizer": "adamw",
            "learning_rate": 7e-4,
            "weight_decay": 0.05,
            "batch_size": 64,
            "clip_norm": 1.0,
        },
    )
}


def text_encoder() -> nn.Module:
    """The trained encoder."""
    return trained("text_encoder", "sources.py", RECIPES)


def _dataset(split: str) -> TensorDataset:
    tokens, labels = windows(split)
    return TensorDataset(torch.from_numpy(tokens), torch.from_numpy(labels))


def train_data() -> TensorDataset:
    """Windows to learn from."""
    return _dataset("train")


def test_data() -> TensorDataset:
    """Windows out of files that training never sees."""
    return _dataset("test")


if __name__ == "__main__":
    command_line(__doc__, RECIPES, train_data, test_data)
