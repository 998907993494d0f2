"""What a test needs and not every machine has."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def absent(what: str, reason: str) -> NoReturn:
    """Skip for want of `what`; fail where EDGEKIT_REQUIRE_`what` promises it."""
    if os.environ.get(f"EDGEKIT_REQUIRE_{what}"):
        pytest.fail(reason)
    pytest.skip(reason)
