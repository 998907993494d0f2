"""Weights from a file, which is data and not a program."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import WorkloadError

SAFE = ".safetensors"
TRUST = "--trust-pickle"
NESTED = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "net", "weights")
"""Under which training scripts keep the state dict in a checkpoint."""
SAVED = (b"PK", b"\x80")
"""What files of torch.save begin with: a zip archive, or a pickle from before there were archives."""
SHOWN_BYTES = 24
PREFIXES = ("module.", "_orig_mod.", "model.")
"""What wrappers (DistributedDataParallel, torch.compile, Lightning) put before each name."""


def with_weights(factory: Callable[[], nn.Module], path: Path, trusted: Path | None = None) -> Callable[[], nn.Module]:
    """A factory whose modules get the weights of a file; it is read once, when the first module is made.

    Args:
        factory: makes the module, with any weights.
        path: see `read_weights`.
        trusted: see `read_weights`.

    Raises:
        WorkloadError: from the returned factory: the file cannot be read, or its tensors are not the module's.
    """
    weights = cache(lambda: read_weights(path, trusted))

    def make() -> nn.Module:
        module = factory()
        if not isinstance(module, nn.Module):
            return module
        return fill(module, weights(), str(path))

    return make


def read_weights(path: Path, trusted: Path | None = None) -> dict[str, Tensor]:
    """The tensors by name in a `.safetensors` file, or in one that `torch.save` wrote.

    A file of `torch.save` is read with `weights_only=True`: it may hold tensors and plain values, and nothing in it
    runs. There is no second try without that, unless `trusted` names this very file.

    Args:
        path: the file; its tensors, or an entry such as `state_dict` with them. What wrappers put before names is
            taken off.
        trusted: a file that may run any code while it is read, since you made it yourself. A whole module in it gives
            its `state_dict`.

    Raises:
        WorkloadError: the file cannot be read without running what is in it, or holds something else.
    """
    if not path.is_file():
        raise WorkloadError("no such file", where=str(path), rule="a file of weights", way_out="check --weights")
    found = _safetensors(path) if path.suffix == SAFE else _saved(path, trusted)
    if isinstance(found, nn.Module):
        return found.state_dict()
    for key in NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
    ):
        raise WorkloadError(
            f"holds a {type(found).__name__} that is no set of tensors by name",
            where=str(path),
            rule="a state dict, or an entry state_dict with one",
            way_out="torch.save(model.state_dict(), path), or better safetensors.torch.save_file(...)",
        )
    return _plain(dict(found))


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


def _safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WorkloadError(
            f"cannot read: {error}", where=str(path), rule="a whole .safetensors file", way_out="save it again"
        ) from error


def _saved(path: Path, trusted: Path | None) -> Any:
    # The same file, not the same name: a link that leads here is another name for what was trusted.
    safe = trusted is None or not (trusted.is_file() and trusted.samefile(path))
    try:
        with warnings.catch_warnings():
            # Of a pickle's protocol; what matters is whether it can be read.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=safe)
    except pickle.UnpicklingError as error:
        with path.open("rb") as file:
            begin = file.read(SHOWN_BYTES)
        if not begin.startswith(SAVED):
            raise WorkloadError(
                f"begins with {begin!r}, which no file of weights does",
                where=str(path),
                rule="a file that torch.save wrote, or .safetensors",
                way_out="fetch it anew if Git LFS or a website left a text in its place",
            ) from error
        named = "" if trusted is None else f"; {TRUST} names {trusted}"
        raise WorkloadError(
            f"holds more than weights, and reading it would run what it says{named}",
            where=str(path),
            rule="tensors and plain values, in .safetensors or as torch.save(model.state_dict(), path) writes them",
            way_out=f"save the weights alone; only if you made the file yourself: {TRUST} {path}",
        ) from error
    except Exception as error:  # a damaged pickle may raise anything
        raise WorkloadError(
            f"cannot read: {(str(error).splitlines() or [type(error).__name__])[0]}",
            where=str(path),
            rule="a whole file that torch.save wrote, or .safetensors",
            way_out="save it again",
        ) from error


def _plain(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights
