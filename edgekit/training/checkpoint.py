"""A training on disk: whole or absent, and only taken by the training that wrote it."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any, cast

import torch

from edgekit.errors import TrainingError
from edgekit.store import write_atomic

VERSION = 1


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, text, and containers of them) so that a reader sees all of it or none.

    Raises:
        StoreError: the folder cannot be written, or the disk is full; an older checkpoint stays as it was.
    """
    buffer = io.BytesIO()
    torch.save({"version": VERSION, **state}, buffer)
    write_atomic(path, buffer.getvalue())


def read_checkpoint(path: Path | None, identity: str) -> dict[str, Any] | None:
    """The state at `path`, or None where there is no file.

    Raises:
        TrainingError: the file is damaged, or belongs to another training (other settings, data or initial weights).
    """
    if path is None or not path.exists():
        return None
    way_out = "remove the file to train from the start, or name another one"
    try:
        # weights_only: a checkpoint is data; what it unpickles must not be able to run.
        state = cast("dict[str, Any]", torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged pickle may raise anything
        raise TrainingError(
            f"cannot read the checkpoint: {(str(error).splitlines() or [type(error).__name__])[0]}",
            where=str(path),
            rule="a checkpoint written by edgekit",
            way_out=way_out,
        ) from error
    if not isinstance(state, dict) or state.get("version") != VERSION or state.get("identity") != identity:
        raise TrainingError(
            "the checkpoint belongs to another training",
            where=str(path),
            rule="the same settings, number of samples and initial weights as when it was written",
            way_out=way_out,
        )
    return state


def identity_of(parts: dict[str, Any]) -> str:
    """A digest of what makes a training the same one."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
