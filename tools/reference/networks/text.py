"""A text encoder in the manner of DistilBERT (V. Sanh et al., 2019): post-norm Transformer layers over embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Layer(nn.Module):
    """Attention and MLP, each with LayerNorm after its addition, written out as Hugging Face writes it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.q_lin, self.k_lin, self.v_lin = (nn.Linear(width, width) for _ in range(3))
        self.out_lin = nn.Linear(width, width)
        self.sa_layer_norm = nn.LayerNorm(width, eps=1e-12)
        self.ffn = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(0.1))
        self.output_layer_norm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        """A tensor like `x` [n, tokens, width]."""
        n, tokens, _ = x.shape
        q, k, v = (
            linear(x).view(n, tokens, self.heads, self.head_width).transpose(1, 2)
            for linear in (self.q_lin, self.k_lin, self.v_lin)
        )
        scores = q / self.head_width**0.5 @ k.transpose(2, 3)
        context = (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(n, tokens, self.heads * self.head_width)
        x = self.sa_layer_norm(self.out_lin(context) + x)
        return self.output_layer_norm(self.ffn(x) + x)


class TextEncoder(nn.Module):
    """Token and position embeddings, layers; the first token decides."""

    def __init__(
        self, vocabulary: int, classes: int, *, tokens: int = 64, width: int = 96, layers: int = 3, heads: int = 4
    ) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, width)
        self.position_embeddings = nn.Embedding(tokens, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(0.1)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.pre_classifier = nn.Linear(width, width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits [n, classes] of int64 token numbers [n, tokens]."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.dropout(self.norm(self.word_embeddings(input_ids) + self.position_embeddings(positions)))
        for layer in self.layers:
            x = layer(x)
        return self.classifier(torch.relu(self.pre_classifier(x[:, 0])))
