"""`nn.MultiheadAttention` whose heads do not fill its width, or whose width has shrunk: PyTorch's own code refuses."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from torch import Tensor, nn


class NarrowAttention(nn.MultiheadAttention):
    """An `nn.MultiheadAttention` that has lost heads or width: the same tensors and calls.

    `num_heads` times `head_dim` is the number of rows of each of its three projections, `embed_dim` the width of what
    comes in.
    """

    def forward(  # noqa: PLR0917 - what it stands for takes them so
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,  # noqa: FBT001, FBT002
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,  # noqa: FBT001, FBT002
        is_causal: bool = False,  # noqa: FBT001, FBT002
    ) -> tuple[Tensor, Tensor | None]:
        """As in `nn.MultiheadAttention`: [n, tokens, embed_dim] (`batch_first`) or [tokens, n, embed_dim] or no n.

        `attn_mask` is of two dimensions, since one for each head would count those that went.

        Raises:
            ValueError: it has more.
        """
        del is_causal  # A hint: the mask that comes with it says the same.
        is_single, inputs = query.ndim == 2, (query, key, value)
        if is_single:
            inputs = (query[None], key[None], value[None])
        elif not self.batch_first:
            inputs = (query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1))
        q, k, v = (
            F.linear(x, weight, bias).view(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)
            for x, weight, bias in zip(inputs, self._weights(), self._biases(), strict=True)
        )
        if is_single and key_padding_mask is not None:
            key_padding_mask = key_padding_mask[None]
        mask = _joined(_added(attn_mask, q.dtype), _added(key_padding_mask, q.dtype))
        weights = None
        if need_weights:
            scores = q * self.head_dim**-0.5 @ k.transpose(2, 3)
            shares = torch.softmax(scores if mask is None else scores + mask, -1)
            shares = F.dropout(shares, self.dropout, self.training)
            out, weights = shares @ v, shares.mean(1) if average_attn_weights else shares
        else:
            out = F.scaled_dot_product_attention(q, k, v, mask, self.dropout if self.training else 0.0)
        out = self.out_proj(out.transpose(1, 2).flatten(2))
        if is_single:
            return out[0], None if weights is None else weights[0]
        return out if self.batch_first else out.transpose(0, 1), weights

    def _weights(self) -> tuple[Any, ...]:
        if self.in_proj_weight is not None:
            return self.in_proj_weight.chunk(3)
        return self.q_proj_weight, self.k_proj_weight, self.v_proj_weight

    def _biases(self) -> tuple[Any, ...]:
        return (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)


def narrow(module: nn.MultiheadAttention) -> None:
    """Let an attention whose tensors have shrunk compute with what is left of heads and width, in place.

    One that adds a key and a value of its own never gets here: those meet its heads, and freeze them.
    """
    packed = module.in_proj_weight
    rows = module.q_proj_weight.shape[0] if packed is None else packed.shape[0] // 3
    module.num_heads = rows // module.head_dim
    module.embed_dim = (module.q_proj_weight if packed is None else packed).shape[1]
    module.__class__ = NarrowAttention


def _added(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A mask as what is added to scores: minus infinity where a boolean one is true."""
    if mask is not None and mask.ndim != 2:
        message = f"a mask of {mask.ndim} dimensions, one for each head: heads have gone"
        raise ValueError(message)
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, float("-inf"))


def _joined(positions: Tensor | None, keys: Tensor | None) -> Tensor | None:
    """One mask that broadcasts to [n, heads, queries, keys], of [queries, keys] and [n, keys]."""
    parts = [] if positions is None else [positions[None, None]]
    parts += [] if keys is None else [keys[:, None, None]]
    return sum(parts[1:], parts[0]) if parts else None
