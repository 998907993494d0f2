"""Which of a module's layers an explanation looks at."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import EdgekitError
from edgekit.workload import Batch


def last_spatial(model: nn.Module, batch: Batch) -> str | None:
    """The last module whose output is [n, channels, h, w] with more than one place; None without any."""
    spatial = [name for name, shape in _finished(model, batch) if len(shape) == 4 and min(shape[2:]) > 1]
    return spatial[-1] if spatial else None


def last_hidden(model: nn.Module, batch: Batch) -> str | None:
    """The last module that ends before the one that gives the model's output: what the classifier reads, mostly."""
    finished = _finished(model, batch)
    if not finished:
        return None
    _, shape = finished[-1]
    hidden = [name for name, other in finished[:-1] if other != shape]
    return hidden[-1] if hidden else None


def layer_of(model: nn.Module, name: str) -> nn.Module:
    """The module of this name.

    Raises:
        EdgekitError: there is none.
    """
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if not name or name not in modules:
        near = [each for each in modules if each and each.partition(".")[0] == name.partition(".")[0]]
        raise EdgekitError(
            f"no module {name!r}",
            where="--layer",
            rule="a module's name, as in model.named_modules()",
            way_out=f"it has: {', '.join((near or [each for each in modules if each])[:12])}",
        )
    return modules[name]


def _finished(model: nn.Module, batch: Batch) -> list[tuple[str, tuple[int, ...]]]:
    """Names of modules with the shapes of their outputs, in the order in which they end; the model itself is left out.

    Modules whose output is no tensor are not listed.
    """
    ended: list[tuple[str, tuple[int, ...]]] = []

    def heard(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                ended.append((name, tuple(output.shape)))

        return hook

    with ExitStack() as stack, torch.no_grad():
        for name, module in model.named_modules():
            if name:
                stack.callback(module.register_forward_hook(heard(name)).remove)
        batch.call(model)
    return ended
