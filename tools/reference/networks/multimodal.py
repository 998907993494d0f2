"""A network with two inputs: convolutions see a picture, a Transformer encoder reads the question over it.

In the manner of ViLT (W. Kim, B. Son and I. Kim, 2021), small.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Questioner(nn.Module):
    """Answers a question about a picture."""

    def __init__(
        self, vocabulary: int, answers: int, *, words: int = 4, width: int = 64, layers: int = 2, heads: int = 4
    ) -> None:
        super().__init__()
        stages = [nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU()]
        for inputs, outputs in ((24, 48), (48, width), (width, width)):
            stages += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.eyes = nn.Sequential(*stages)
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(torch.randn(1, words + 16, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, answers)

    def forward(self, image: Tensor, question: Tensor) -> Tensor:
        """Logits [n, answers] of pictures [n, 1, 32, 32] and questions int64 [n, words]."""
        seen = self.eyes(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.words(question), seen], dim=1) + self.places
        return self.head(self.norm(self.encoder(x)[:, 0]))
