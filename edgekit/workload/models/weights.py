"""Weights out of a local file."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import WorkloadError

NESTED = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema")
"""Under which training scripts keep the state dict in a checkpoint."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""What wrappers (DistributedDataParallel, torch.compile, Lightning) put before each name."""


def read_weights(path: Path, *, trust_pickle: bool) -> dict[str, Tensor]:
    """The state dict in a `.safetensors` file, or in what `torch.save` wrote.

    The latter is read with torch's restricted unpickler unless `trust_pickle`. What wrappers put before names is taken
    off.

    Raises:
        WorkloadError: the file is missing or damaged, holds no state dict, or needs the full unpickler.
    """
    if not path.is_file():
        raise WorkloadError(
            f"no file {path}",
            where="weights",
            rule="a .safetensors, or a .pth with a state dict",
            way_out="check the path",
        )
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return _plain(load_file(path))
        except (SafetensorError, OSError) as error:
            raise WorkloadError(f"cannot read: {error}", where=str(path), rule="a safetensors file") from error
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except pickle.UnpicklingError as error:
        raise WorkloadError(
            "holds more than tensors, and what a pickle builds can run any code",
            where=str(path),
            rule="tensors alone: save model.state_dict()",
            way_out="if you trust the file: --trust-pickle (trust_pickle = true)",
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise WorkloadError(
            f"cannot read: {(str(error).splitlines() or [type(error).__name__])[0]}",
            where=str(path),
            rule="what torch.save(model.state_dict(), path) writes",
        ) from error
    found = loaded.state_dict() if isinstance(loaded, nn.Module) else loaded
    for key in NESTED:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise WorkloadError(
            f"holds a {type(loaded).__name__} without a state dict", where=str(path), rule="a dict of tensors by name"
        )
    return _plain(found)


def fill(model: nn.Module, weights: dict[str, Tensor], path: str) -> nn.Module:
    """`model` with these weights, all of them.

    Raises:
        WorkloadError: names or shapes differ; the message names the first.
    """
    own = model.state_dict()
    missing, odd = [name for name in own if name not in weights], [name for name in weights if name not in own]
    shaped = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if missing or odd or shaped:
        first = (
            f"{shaped[0]} is {list(weights[shaped[0]].shape)}, the model's is {list(own[shaped[0]].shape)}"
            if shaped
            else f"{missing[0]} is missing"
            if missing
            else f"{odd[0]} is not in the model"
        )
        more = len(missing) + len(odd) + len(shaped) - 1
        raise WorkloadError(
            first + (f", and {more} more" if more else ""),
            where=path,
            rule=f"the weights of this {type(model).__name__}",
            way_out="name the network that the weights were trained in",
        )
    model.load_state_dict(weights)
    return model


def classes_in(weights: dict[str, Tensor], classifier: str) -> int | None:
    """How many classes the weights have, by the rows of the layer `classifier`; None where there is no such layer."""
    found = weights.get(f"{classifier}.weight")
    return None if found is None else len(found)


def _plain(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights
