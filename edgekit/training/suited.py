"""Which optimizer suits a network, where nobody says."""

from __future__ import annotations

from typing import Literal

from torch import nn

Optimizer = Literal["sgd", "adamw"]
OptimizerName = Literal["auto", "sgd", "adamw"]
_PEAK_RATES: dict[Optimizer, float] = {"sgd": 0.06, "adamw": 1e-3}

_OWN_STEPS = (nn.LayerNorm, nn.RMSNorm, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase, nn.Embedding)


def suited_optimizer(model: nn.Module) -> Optimizer:
    """SGD with momentum for convolutions with BatchNorm, AdamW for all others.

    Gradients of attentions, embeddings and recurrent layers differ by orders of magnitude from one tensor to the next,
    so that one rate for all of them is too low or too high (J. Zhang et al., *Why are Adaptive Methods Good for
    Attention Models?*, 2020). What BatchNorm follows has no scale of its own, and SGD generalizes better there
    (A. Wilson et al., *The Marginal Value of Adaptive Gradient Methods*, 2017).

    >>> suited_optimizer(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))
    'sgd'
    >>> suited_optimizer(nn.TransformerEncoderLayer(8, 2))
    'adamw'
    """
    modules = list(model.modules())
    normalized = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules)  # noqa: SLF001
    # Other libraries have norms of their own, under names that end like torch's.
    adaptive = any(
        isinstance(module, _OWN_STEPS) or type(module).__name__.lower().endswith(("layernorm", "rmsnorm"))
        for module in modules
    )
    return "sgd" if normalized and not adaptive else "adamw"


def suited(model: nn.Module, optimizer: OptimizerName, learning_rate: float | None) -> tuple[Optimizer, float]:
    """An optimizer and its peak learning rate, where either may be left open.

    >>> suited(nn.LSTM(2, 2), "auto", None)
    ('adamw', 0.001)
    """
    chosen = suited_optimizer(model) if optimizer == "auto" else optimizer
    return chosen, _PEAK_RATES[chosen] if learning_rate is None else learning_rate
