r"""Spoken digits as a user's project: log-mel features; an LSTM, a GRU and a Transformer encoder know ten words.

    python tools/reference/keywords.py train lstm
    edgekit compress tools/reference/keywords.py:lstm --train tools/reference/keywords.py:train_data \
        --test tools/reference/keywords.py:test_data

The recordings are the Free Spoken Digit Dataset (8 kHz mono wav in a zip, `{digit}_{speaker}_{index}.wav`), whose own
test split is index 0 to 4. The zip is found at EDGEKIT_SPOKEN_DIGITS, or beside the checkout in shared/data. The
weights are written beside this file and stay out of git.
"""

from __future__ import annotations

import io
import os
import wave
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from training import Recipe, command_line, data_folder, trained

RATE_HZ, WINDOW, HOP, MELS, FRAMES = 8000, 256, 80, 40, 80
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def archive() -> Path:
    """The zip with the recordings; asked for at each use, since the environment may change within a process."""
    return Path(os.environ.get("EDGEKIT_SPOKEN_DIGITS", data_folder() / "spoken-digits.zip"))


@cache
def mel_filters() -> np.ndarray:
    """Triangular filters [MELS, WINDOW // 2 + 1], equally spaced in mel (2595 log10(1 + f / 700))."""
    edges_mel = np.linspace(0, 2595 * np.log10(1 + RATE_HZ / 2 / 700), MELS + 2)
    edges_hz = 700 * (10 ** (edges_mel / 2595) - 1)
    bins_hz = np.fft.rfftfreq(WINDOW, 1 / RATE_HZ)
    rising = (bins_hz - edges_hz[:-2, None]) / np.diff(edges_hz)[:-1, None]
    falling = (edges_hz[2:, None] - bins_hz) / np.diff(edges_hz)[1:, None]
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Log-mel energies [FRAMES, MELS] of a recording in [-1, 1], cut or padded with silence to FRAMES frames."""
    wanted = WINDOW + HOP * (FRAMES - 1)
    padded = np.zeros(wanted, np.float32)
    padded[: min(wanted, len(samples))] = samples[:wanted]
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP] * np.hanning(WINDOW).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, axis=1)).astype(np.float32) ** 2
    return (np.log(power @ mel_filters().T + 1e-5) / 4 + 1).astype(np.float32)


class SpokenDigits(Dataset[tuple[Tensor, int]]):
    """Items are (float32 [FRAMES, MELS], int). `augment` shifts in time and changes the loudness."""

    def __init__(self, split: str, *, augment: bool = False) -> None:
        features, self.labels = [], []
        with zipfile.ZipFile(archive()) as recordings:
            for name in sorted(entry for entry in recordings.namelist() if entry.endswith(".wav")):
                digit, _, index = Path(name).stem.split("_")
                if (int(index) < 5) == (split == "test"):
                    with wave.open(io.BytesIO(recordings.read(name))) as recording:
                        pcm = np.frombuffer(recording.readframes(recording.getnframes()), np.int16)
                    features.append(log_mel(pcm / np.float32(32768)))
                    self.labels.append(int(digit))
        self.features = torch.from_numpy(np.stack(features))
        self.augment = augment

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        x = self.features[index]
        if self.augment:
            shift = int(torch.randint(-8, 9, ()))
            x = x.roll(shift, 0) + 0.3 * torch.randn(()) + 0.05 * torch.randn_like(x)
        return x, self.labels[index]


class KeywordLSTM(nn.Module):
    """Two LSTM layers over the frames; the last state decides."""

    def __init__(self, hidden: int = 96) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, hidden, num_layers=2, batch_first=True)
        self.classify = nn.Linear(hidden, len(CLASSES))

    def forward(self, features: Tensor) -> Tensor:
        """Logits [n, 10] of features [n, FRAMES, MELS]."""
        states, _ = self.lstm(features)
        return self.classify(states[:, -1])


class KeywordGRU(nn.Module):
    """A GRU that reads the frames both ways; the mean over time decides."""

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.gru = nn.GRU(MELS, hidden, batch_first=True, bidirectional=True)
        self.classify = nn.Linear(2 * hidden, len(CLASSES))

    def forward(self, features: Tensor) -> Tensor:
        """Logits [n, 10] of features [n, FRAMES, MELS]."""
        states, _ = self.gru(features)
        return self.classify(states.mean(1))


class KeywordTransformer(nn.Module):
    """A small pre-norm Transformer encoder over the frames; the mean over time decides."""

    def __init__(self, width: int = 96, layers: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(2 * MELS, width)
        self.position = nn.Parameter(torch.zeros(FRAMES // 2, width))
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.classify = nn.Linear(width, len(CLASSES))

    def forward(self, features: Tensor) -> Tensor:
        """Logits [n, 10] of features [n, FRAMES, MELS]; two frames make one token."""
        tokens = self.embed(features.reshape(-1, FRAMES // 2, 2 * MELS)) + self.position
        return self.classify(self.norm(self.encoder(tokens)).mean(1))


_SETTINGS: dict[str, Any] = {
    "optimizer": "adamw",
    "learning_rate": 2e-3,
    "batch_size": 64,
    "clip_norm": 1.0,
    "precision": "fp32",
}
RECIPES = {
    "lstm": Recipe(network=KeywordLSTM, epochs=30, settings=_SETTINGS),
    "gru": Recipe(network=KeywordGRU, epochs=30, settings=_SETTINGS),
    "transformer": Recipe(network=KeywordTransformer, epochs=30, settings=_SETTINGS),
}


def _trained(name: str) -> nn.Module:
    return trained(name, "keywords.py", RECIPES)


def lstm() -> nn.Module:
    """The trained LSTM."""
    return _trained("lstm")


def gru() -> nn.Module:
    """The trained GRU."""
    return _trained("gru")


def transformer() -> nn.Module:
    """The trained Transformer encoder."""
    return _trained("transformer")


def train_data() -> SpokenDigits:
    """Recordings to learn from, augmented."""
    return SpokenDigits("train", augment=True)


def test_data() -> SpokenDigits:
    """Recordings that training never sees."""
    return SpokenDigits("test")


if __name__ == "__main__":
    command_line(__doc__, RECIPES, train_data, test_data)
