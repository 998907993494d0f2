"""Weights out of a file, and how far a network can take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from torch import Tensor, nn

from edgekit.errors import TrainingError

SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    """Which weights of a file a network took.

    Args:
        taken: names that agree in name and shape.
        absent: names that the network has and the file has not; they keep the network's own values.
        unknown: names that the file has and the network has not.
        other_shape: names whose shapes differ, with both; they keep the network's own values.
    """

    taken: tuple[str, ...]
    absent: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    other_shape: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` takes it back."""
        return {name: list(values) for name, values in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        return cls(**{name: tuple(values) for name, values in data.items()})

    def __str__(self) -> str:
        parts = [f"{len(self.taken)} weights taken"]
        for text, names in (
            ("not in the file", self.absent),
            ("not in the network", self.unknown),
            ("of another shape", self.other_shape),
        ):
            if names:
                more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                parts.append(f"{len(names)} {text}: {', '.join(names[:SHOWN])}{more}")
        return "; ".join(parts)


def fit_weights(model: nn.Module, weights: Mapping[str, Tensor], *, where: str = "weights") -> Fitting:
    """Copy into `model` itself what agrees in name and shape, and say what does not.

    Raises:
        TrainingError: less than half of the model's parameters (counted in values) are in the file.

    >>> import torch
    >>> model = nn.Linear(2, 3)
    >>> print(fit_weights(model, {"weight": torch.ones(3, 2), "scale": torch.ones(1)}))
    1 weights taken; 1 not in the file: bias; 1 not in the network: scale
    """
    own = model.state_dict()
    agreed = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    fitting = Fitting(
        taken=tuple(agreed),
        absent=tuple(name for name in own if name not in weights),
        unknown=tuple(name for name in weights if name not in own),
        other_shape=tuple(
            f"{name} ({list(weights[name].shape)}, here {list(own[name].shape)})"
            for name in weights
            if name in own and name not in agreed
        ),
    )
    parameters = dict(model.named_parameters())
    total = sum(value.numel() for value in parameters.values())
    if 2 * sum(parameters[name].numel() for name in agreed if name in parameters) < total:
        raise TrainingError(
            str(fitting),
            where=where,
            rule="at least half of the network's weights are in the file, by name and shape",
            way_out="name the function that makes the network these weights are of",
        )
    model.load_state_dict(agreed, strict=False)
    return fitting
