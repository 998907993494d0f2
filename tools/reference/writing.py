r"""A language model as a user's project: which character comes next in the standard library's source code?

    python tools/reference/writing.py train decoder
    edgekit compress tools/reference/writing.py:decoder --train tools/reference/writing.py:train_data \
        --test tools/reference/writing.py:test_data --task tools/reference/writing.py:task

`step` is the same network with its cache of keys and values, one character at a time: what an app runs to write on.
"""

from __future__ import annotations

import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from networks.decoder import Decoder, Step
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from training import Recipe, Run, command_line, trained

from edgekit.tasks import Task, custom, outputs_of

VOCABULARY, CONTEXT = 128, 128
TRAIN_FILES, TEST_FILES = 60, 12
STRIDE = 96


@cache
def characters(split: str) -> TensorDataset:
    """Items are (int64 [CONTEXT], int64 [CONTEXT]): ASCII characters, and for each the one that comes next."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    parts = [file for place, file in enumerate(files) if (place % 6 == 2) == (split == "test")]
    windows = []
    for file in parts[: TRAIN_FILES if split == "train" else TEST_FILES]:
        text = np.frombuffer(file.read_text(encoding="utf-8").encode("ascii", "replace"), np.uint8)
        if len(text) > CONTEXT:
            step = STRIDE if split == "train" else CONTEXT
            windows.append(np.lib.stride_tricks.sliding_window_view(text, CONTEXT + 1)[::step])
    ids = torch.from_numpy(np.concatenate(windows).astype(np.int64))
    return TensorDataset(ids[:, :-1], ids[:, 1:])


def task() -> Task:
    """Bits that a character costs; 2 to that power is the perplexity."""

    def bits(outputs: tuple[np.ndarray, ...], target: np.ndarray) -> np.ndarray:
        logits = outputs[0].astype(np.float64)
        logits = logits - logits.max(axis=1, keepdims=True)
        shares = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        picked = np.take_along_axis(shares, target[:, None], axis=1)[:, 0]
        return -picked.reshape(len(picked), -1).mean(axis=1) / np.log(2)

    def softened(student: Any, teacher: Any, temperature: float) -> Tensor:
        ours = F.log_softmax(outputs_of(student)[0].float() / temperature, dim=1)
        theirs = F.log_softmax(outputs_of(teacher)[0].float() / temperature, dim=1)
        each = F.kl_div(ours, theirs, log_target=True, reduction="none").sum(1)
        return temperature**2 * each.mean()

    return custom(
        name="language modelling",
        metric="bits per character",
        unit="bits",
        higher_is_better=False,
        loss=lambda output, target: F.cross_entropy(outputs_of(output)[0].float(), target),
        per_sample=bits,
        distillation=softened,
        agreement=lambda a, b: (a[0].argmax(1) == b[0].argmax(1)).reshape(len(a[0]), -1).mean(axis=1),
    )


@torch.no_grad()
def score(network: nn.Module, data: Dataset[Any]) -> str:
    """Bits per character, and the perplexity."""
    network.eval()
    losses = [float(F.cross_entropy(network(x), y)) for x, y in DataLoader(data, batch_size=64)]
    bits = float(np.mean(losses)) / np.log(2)
    return f"{bits:.3f} bits per character, perplexity {2**bits:.3f}"


def figures(run: Run) -> dict[str, float]:
    """Perplexity of 500 windows, evenly spaced over the test files."""
    data = test_data()
    ids, following = data[torch.linspace(0, len(data) - 1, 500).long()]
    bits = task().value(run({"ids": ids.numpy()}), following.numpy())
    return {"perplexity": 2**bits}


RECIPES = {
    "decoder": Recipe(
        network=lambda: Decoder(VOCABULARY, context=CONTEXT),
        epochs=2,
        settings={
            "optimizer": "adamw",
            "learning_rate": 3e-3,
            "weight_decay": 0.05,
            "batch_size": 64,
            "clip_norm": 1.0,
        },
        score=score,
    )
}


def decoder() -> nn.Module:
    """The trained decoder over whole windows."""
    return trained("decoder", "writing.py", RECIPES)


def step() -> nn.Module:
    """The trained decoder with its cache, one character at a time."""
    whole = decoder()
    assert isinstance(whole, Decoder)
    return Step(whole).eval()


def train_data() -> TensorDataset:
    """Windows to learn from; they overlap by a quarter."""
    return characters("train")


def test_data() -> TensorDataset:
    """Windows of other files."""
    return characters("test")


class Steps(Dataset[tuple[Tensor, ...]]):
    """Items of `step`: the last character of a window, where it stands, keys and values of those before; what follows.

    The cache is what the trained network itself fills.
    """

    def __init__(self, split: str, count: int) -> None:
        self.windows = characters(split)
        self.model = step()
        self.count = min(count, len(self.windows))

    def __len__(self) -> int:
        return self.count

    @torch.no_grad()
    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        ids, following = self.windows[index]
        length = 8 + index % (CONTEXT - 8)
        decoder = self.model.decoder
        x = decoder.characters(ids[None, : length - 1]) + decoder.positions(torch.arange(length - 1))
        keys, values = [], []
        for layer in decoder.layers:
            x, k, v = layer(x, decoder.mask[: length - 1, : length - 1])
            keys.append(F.pad(k[0], (0, 0, 0, CONTEXT - length + 1)))
            values.append(F.pad(v[0], (0, 0, 0, CONTEXT - length + 1)))
        return (
            ids[length - 1 : length],
            torch.tensor(length - 1),
            torch.stack(keys),
            torch.stack(values),
            following[length - 1],
        )


def step_train_data() -> Steps:
    """Single characters with their caches, to calibrate and recover with."""
    return Steps("train", 4_000)


def step_test_data() -> Steps:
    """Single characters of other files with their caches."""
    return Steps("test", 2_000)


if __name__ == "__main__":
    command_line(__doc__, RECIPES, train_data, test_data)
