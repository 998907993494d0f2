"""Libraries of models that not everybody has."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def torchvision():
    """torchvision; its Python is enough (see the conftest above)."""
    return pytest.importorskip("torchvision", reason="torchvision is not installed")


@pytest.fixture(scope="session")
def timm(torchvision):
    """timm, which imports torchvision."""
    assert torchvision
    return pytest.importorskip("timm", reason="timm is not installed")


@pytest.fixture(scope="session")
def transformers():
    """Hugging Face's transformers."""
    return pytest.importorskip("transformers", reason="transformers is not installed")
