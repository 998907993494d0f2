"""Fixtures that every room shares."""

from __future__ import annotations

import os
from pathlib import Path

if os.environ.get("PYTEST_XDIST_WORKER"):
    # Read when PyTorch is loaded: workers that take all cores each would wait for one another.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))))

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.required import absent

_register_fake = torch.library.register_fake


def _without_torchvisions(operator, *arguments, **values):
    """`register_fake` for operators that there are.

    torchvision's wheel may be built for CUDA alone; its Python, which torchmetrics, timm and transformers import, works
    without its operators. The product leaves that to the user, and says so.
    """
    if isinstance(operator, str) and operator.startswith("torchvision::"):
        return lambda function: function
    return _register_fake(operator, *arguments, **values)


torch.library.register_fake = _without_torchvisions

# Test machines are shared: how long an example takes says nothing about the code.
settings.register_profile("shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared-machine")


@pytest.fixture(autouse=True)
def _same_weights_in_every_run() -> None:
    """A network that a test makes has the same weights in every run, so that a failure comes again."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and of a user's project beside the checkout (or at EDGEKIT_SHARED)."""
    folder = Path(os.environ.get("EDGEKIT_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "user-project" / "project.py").is_file():
        absent(
            "SHARED", f"no user project at {folder}: set EDGEKIT_SHARED to a folder that has user-project/ and data/"
        )
    return folder
