"""ONNX files as commands take them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from edgekit.errors import EdgekitError
from edgekit.spec import IOSpec


def spec_of(path: Path) -> IOSpec:
    """The inputs and outputs of an ONNX file.

    Raises:
        EdgekitError: there is no such file, or it is no ONNX.
    """
    import onnx_ir as ir

    from edgekit.export import spec_of as read

    if not path.is_file():
        raise EdgekitError(
            f"no file {path}", where="command line", rule="an ONNX file", way_out="`edgekit export` writes one"
        )
    try:
        return read(ir.load(path))
    except EdgekitError:
        raise
    except Exception as error:
        raise EdgekitError(
            f"not an ONNX file: {type(error).__name__}", where=str(path), rule="what `edgekit export` writes"
        ) from error


def named(files: Sequence[Path]) -> dict[str, Path]:
    """Files under names that tell them apart: their own, or as much of their path as that takes.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
    ...     list(named([Path(file.name)])) == [Path(file.name).stem]
    True
    """
    for path in files:
        if not path.is_file():
            raise EdgekitError(f"no file {path}", where="command line", rule="an ONNX file", way_out="check the path")
    taken = Counter(path.stem for path in files)
    return {path.stem if taken[path.stem] == 1 else str(path.with_suffix("")): path for path in files}
