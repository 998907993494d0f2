"""The same network through Torch-Pruning, in an environment that has it: does what it makes run, and is it right?

Run as `python torch_pruning_runner.py SOURCE NAME OPTIONS PATH`; the answer goes to PATH. Which channels it took is
read from its result, by the values of the weights, and not asked of it; the same are then zeroed in the original.
"""

from __future__ import annotations

import copy
import json
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coverage_study.building import Dense, build, load_packages
from coverage_study.catalogue import Subject
from coverage_study.masking import masked
from torch import Tensor, nn
from torch.utils import _pytree as pytree

RATIO = 0.3
TOLERANCE = 1e-7
"""Relative to the largest output, in float64."""
LAST_SIZES = (5, 10)
"""The numbers of classes that the networks are built with; layers of so many outputs are left alone."""


def main() -> None:
    """Read the job from the command line, and write the answer."""
    source, name, options, path = sys.argv[1:]
    load_packages()
    torch.set_num_threads(1)
    subject = Subject(source=source, name=name, options=json.loads(options))  # type: ignore[arg-type]
    model, example, _ = build(subject)
    Path(path).write_text(json.dumps({**outcome(model, example.args[0]), "version": version("torch-pruning")}))


def outcome(model: nn.Module, images: Tensor) -> dict[str, Any]:
    """What comes of it."""
    smaller = copy.deepcopy(model)
    before = sum(value.numel() for value in model.parameters())
    try:
        narrow(smaller, images)
    except Exception as error:  # noqa: BLE001 - whatever it raises, it does not take this network
        what = "out of memory" if isinstance(error, MemoryError) else "fails while pruning"
        return {"outcome": what, "reason": f"{type(error).__name__}: {error}"[:300]}
    after = sum(value.numel() for value in smaller.parameters())
    if after == before:
        return {"outcome": "prunes nothing", "share": 1.0}
    about = {"share": round(after / before, 4)}
    try:
        with torch.no_grad():
            smaller(images)
    except Exception as error:  # noqa: BLE001 - likewise
        return {"outcome": "its result does not run", "reason": f"{type(error).__name__}: {error}"[:300], **about}
    try:
        gone = dict(removed(model, smaller))
    except LookupError as error:
        return {"outcome": "runs; which channels it took cannot be told", "reason": str(error), **about}
    apart = difference(masked(model, gone), smaller, images)
    if apart <= TOLERANCE:
        return {"outcome": "equivalent", "difference": apart, **about}
    return {"outcome": "runs, but is not equivalent", "difference": min(apart, 1e9), **about}


def narrow(model: nn.Module, images: Tensor) -> None:
    """Take 30 % of every width, in place, as its manual has it."""
    import torch_pruning as tp

    last = [
        each
        for each in model.modules()
        if isinstance(each, nn.Linear | nn.Conv2d) and each.weight.shape[0] in LAST_SIZES
    ]
    last += [model.head] if isinstance(model, Dense) else []
    heads = {
        each.qkv: each.num_heads
        for each in model.modules()
        if isinstance(getattr(each, "qkv", None), nn.Linear) and isinstance(getattr(each, "num_heads", None), int)
    }
    pruner = tp.pruner.BasePruner(
        model,
        images,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=RATIO,
        ignored_layers=last,
        num_heads=heads,
    )
    pruner.step()


def removed(model: nn.Module, smaller: nn.Module) -> Iterator[tuple[str, dict[int, np.ndarray]]]:
    """For each parameter and buffer that has shrunk the indexes that went along each dimension.

    Raises:
        LookupError: the values do not say, because one is there twice.
    """
    after = smaller.state_dict()
    for name, old in model.state_dict().items():
        new = after.get(name)
        if new is None or new.shape == old.shape:
            continue
        if new.ndim != old.ndim:
            raise LookupError(f"{name} has other dimensions")
        flat = old.reshape(-1).numpy()
        order = np.argsort(flat, kind="stable")
        place = np.searchsorted(flat[order], new.reshape(-1).numpy()).clip(max=len(flat) - 1)
        found = np.unravel_index(order[place], tuple(old.shape))
        axes, grid = {}, []
        for axis, size in enumerate(old.shape):
            rows = np.moveaxis(found[axis].reshape(tuple(new.shape)), axis, 0).reshape(new.shape[axis], -1)
            # A value that is there twice is found at its first place: what most of a row say is right.
            grid.append(np.array([np.bincount(row).argmax() for row in rows]))
            axes[axis] = np.setdiff1d(np.arange(size), grid[-1])
        if not np.array_equal(old.numpy()[np.ix_(*grid)], new.numpy()):
            raise LookupError(f"{name} has equal values")
        yield name, axes


@torch.no_grad()
def difference(reference: nn.Module, smaller: nn.Module, images: Tensor) -> float:
    """The largest difference, relative to the largest output, in float64; infinite for another shape."""
    wanted, found = (pytree.tree_leaves(each.double().eval()(images.double())) for each in (reference, smaller))
    worst = 0.0
    for want, have in zip(wanted, found, strict=True):
        if want.shape != have.shape:
            return float("inf")
        worst = max(worst, float((want - have).abs().max()) / (float(want.abs().max()) or 1.0))
    return worst


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
