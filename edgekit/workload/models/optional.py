"""Libraries that not everybody has."""

from __future__ import annotations

import importlib
from typing import Any

from edgekit.errors import WorkloadError


def optional(module: str, *, where: str, extra: str) -> Any:
    """An optional library, imported now.

    Args:
        module: its name.
        where: what needs it, for the message.
        extra: the group of optional dependencies that brings it.

    Raises:
        WorkloadError: it is not installed, or its import fails.

    >>> optional("math", where="here", extra="none").floor(1.5)
    1
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise WorkloadError(
            f"{error.name or module} is not installed",
            where=where,
            rule=f"the library {module}",
            way_out=f"pip install 'edgekit[{extra}]'",
        ) from error
    except Exception as error:  # a library that does not fit the rest raises anything
        raise broken(error, module, where=where, extra=extra) from error


def broken(error: BaseException, module: str, *, where: str, extra: str) -> WorkloadError:
    """For a library that is installed and whose import fails: its own words, which are those of the first cause."""
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    return WorkloadError(
        f"cannot import {module}: {type(first).__name__}: {(str(first).splitlines() or [''])[0]}",
        where=where,
        rule=f"a {module} that can be imported",
        way_out="install the torchvision that was built for this torch: both from one index, CPU or CUDA"
        if "torchvision" in str(first)
        else f"pip install --upgrade 'edgekit[{extra}]'",
    )
