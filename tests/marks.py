"""Cases of a test that the default suite leaves to `-m slow`: those like others that it runs."""

from __future__ import annotations

from typing import Any

import pytest


def seldom(*values: Any) -> Any:
    """Values of a parametrization that are run with `-m slow` alone."""
    return pytest.param(*values, marks=pytest.mark.slow)
