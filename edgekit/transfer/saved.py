"""A trained network in a folder: weights, what they belong to, and a function that any command takes for a MODEL."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from edgekit.errors import TrainingError
from edgekit.store import write_atomic, write_json
from edgekit.transfer.head import Head, with_head
from edgekit.workload import load_callable

WEIGHTS, RECORD, FUNCTION = "weights.safetensors", "network.json", "model.py"
SOURCE = '''\
"""Written by edgekit: the network of network.json with the weights beside this file, for commands that take a MODEL."""

from pathlib import Path

from edgekit.transfer import load_network


def model():
    return load_network(Path(__file__).parent)
'''


def save_network(
    folder: Path, model: nn.Module, *, reference: str, head: Head | None = None, outputs: int | None = None
) -> None:
    """Write `weights.safetensors`, `network.json` and `model.py`, whose `model` gives the network back.

    Args:
        folder: where they go.
        model: the network.
        reference: the function that makes it, `file.py:function` with an absolute path or `package.module:function`.
        head: the layer that is another one than in what the function makes, if there is such.
        outputs: of that layer.

    Raises:
        StoreError: the folder cannot be written.
    """
    from safetensors.torch import save as to_bytes

    # A tensor under two names is written once for each: safetensors refuses memory that is shared.
    state = {name: value.clone(memory_format=torch.contiguous_format) for name, value in model.state_dict().items()}
    write_atomic(folder / WEIGHTS, to_bytes(state))
    write_json(
        folder / RECORD,
        {"model": reference, "head": None if head is None else head.to_dict(), "outputs": outputs},
    )
    write_atomic(folder / FUNCTION, SOURCE)


def load_network(folder: Path) -> nn.Module:
    """The network that `save_network` wrote, in eval mode.

    Raises:
        TrainingError: a file is missing or damaged, or the function makes another network than it did.
        WorkloadError: the function is missing or raises.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        record = json.loads((folder / RECORD).read_text())
        state = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise TrainingError(
            f"cannot read: {error}", where=str(folder), rule=f"{RECORD} and {WEIGHTS}", way_out="train it again"
        ) from error
    made: nn.Module = load_callable(record["model"])()
    if record["head"] is not None:
        made = with_head(made, Head.from_dict(record["head"]), int(record["outputs"]))
    try:
        made.load_state_dict(state)
    except RuntimeError as error:
        raise TrainingError(
            "; ".join(line.strip() for line in str(error).splitlines()[1:3]),
            where=record["model"],
            rule=f"the function makes the network that {folder / WEIGHTS} is of",
            way_out="restore the function, or train again",
        ) from error
    return made.eval()
