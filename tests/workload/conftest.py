"""Libraries of models that not everybody has."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch


def _without_its_kernels(name: str):
    """`torch.library.register_fake` for operators that there are: torchvision's wheel may be built for CUDA alone."""
    real = torch.library.register_fake

    def register_fake(operator, *arguments, **values):
        if isinstance(operator, str) and operator.startswith(f"{name}::"):
            return lambda function: function
        return real(operator, *arguments, **values)

    return register_fake


def _torchvision():
    """torchvision, or None where it is not installed: its Python works without its own operators."""
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return None
    except RuntimeError:
        pass
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    real = torch.library.register_fake
    torch.library.register_fake = _without_its_kernels("torchvision")
    try:
        return importlib.import_module("torchvision")
    finally:
        torch.library.register_fake = real


@pytest.fixture(scope="session")
def torchvision():
    """torchvision without its operators where they are not built for this torch; the product asks for one that fits."""
    return _torchvision() or pytest.skip("torchvision is not installed")


@pytest.fixture(scope="session")
def timm(torchvision):
    """timm, which imports torchvision."""
    assert torchvision
    return pytest.importorskip("timm", reason="timm is not installed")


@pytest.fixture(scope="session")
def transformers():
    """Hugging Face's transformers, which imports torchvision where it is installed."""
    _torchvision()
    return pytest.importorskip("transformers", reason="transformers is not installed")
