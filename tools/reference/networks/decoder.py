"""A causal Transformer decoder in the manner of GPT-2 (A. Radford et al., 2019), with and without its cache."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Pre-norm attention over the past, and an MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.out_proj = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def split(self, x: Tensor) -> Tensor:
        """[n, time, width] as [n, heads, time, head width]."""
        return x.view(x.shape[0], x.shape[1], self.heads, self.head_width).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor, past: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, ...]:
        """(a tensor like `x` [n, time, width], keys, values [n, heads, past + time, head width]).

        `mask` [time, past + time] is added to the scores; `past` holds keys and values of the time before.
        """
        n, time, _ = x.shape
        y = self.norm_1(x)
        q, k, v = self.split(self.q_proj(y)), self.split(self.k_proj(y)), self.split(self.v_proj(y))
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        scores = q @ k.transpose(2, 3) / self.head_width**0.5 + mask
        context = (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(n, time, self.heads * self.head_width)
        x = x + self.out_proj(context)
        return x + self.mlp(self.norm_2(x)), k, v


class Decoder(nn.Module):
    """Logits of the next character at every position."""

    def __init__(
        self, vocabulary: int = 128, *, context: int = 128, width: int = 96, layers: int = 3, heads: int = 4
    ) -> None:
        super().__init__()
        self.characters, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.layers = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)
        self.register_buffer("mask", torch.full((context, context), -1e4).triu(1), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [n, vocabulary, time] of int64 characters [n, time]; classes come before positions, as in losses."""
        time = ids.shape[1]
        x = self.characters(ids) + self.positions(torch.arange(time, device=ids.device))
        for layer in self.layers:
            x = layer(x, self.mask[:time, :time])[0]
        return self.head(self.norm(x)).transpose(1, 2)


class Step(nn.Module):
    """The same network, one character at a time: keys and values of what came before go in and come out.

    The cache has a fixed size, as devices like it: position `position` [n] is written, what lies behind it is masked.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, ids: Tensor, position: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(logits [n, vocabulary], keys, values [n, layers, heads, context, head width]) of characters int64 [n, 1]."""
        decoder = self.decoder
        places = torch.arange(keys.shape[3], device=ids.device)
        here = (places[None] == position[:, None])[:, None, :, None]
        mask = torch.where(places[None] <= position[:, None], 0.0, -1e4)[:, None, None]
        x = decoder.characters(ids) + decoder.positions(position)[:, None]
        new_keys, new_values = [], []
        for index, layer in enumerate(decoder.layers):
            y = layer.norm_1(x)
            k = torch.where(here, layer.split(layer.k_proj(y)), keys[:, index])
            v = torch.where(here, layer.split(layer.v_proj(y)), values[:, index])
            scores = layer.split(layer.q_proj(y)) @ k.transpose(2, 3) / layer.head_width**0.5 + mask
            x = x + layer.out_proj((torch.softmax(scores, -1) @ v).transpose(1, 2).flatten(2))
            x = x + layer.mlp(layer.norm_2(x))
            new_keys.append(k)
            new_values.append(v)
        logits = decoder.head(decoder.norm(x))[:, 0]
        return logits, torch.stack(new_keys, dim=1), torch.stack(new_values, dim=1)
