"""ONNX files as commands take them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from edgekit.errors import EdgekitError
from edgekit.spec import IOSpec, TensorSpec


def spec_of(path: Path) -> IOSpec:
    """The inputs and outputs of an ONNX file.

    Raises:
        EdgekitError: there is no such file, or it is no ONNX.
    """
    import onnx_ir as ir

    from edgekit.spec import spec_of as read

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


def shared_spec(files: Sequence[Path], provider: str = "cpu") -> IOSpec:
    """The inputs and outputs that all files have in common; each is opened once in ONNX Runtime.

    Raises:
        EdgekitError: a file is missing, is refused by ONNX Runtime, or takes and gives something else than the first.
    """
    from edgekit.device.session import open_session

    first = shared_contract(files)
    for path in files:
        try:
            open_session(path, provider=provider)
        except EdgekitError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions have no common base but this one
            raise EdgekitError(
                f"ONNX Runtime refuses the file: {(str(error).splitlines() or [type(error).__name__])[0]}",
                where=str(path),
                rule="an ONNX file that this ONNX Runtime runs",
                way_out="export it again, or update onnxruntime",
            ) from error
    return first


def shared_contract(files: Sequence[Path]) -> IOSpec:
    """The inputs and outputs that all files have in common, as the files themselves say; ONNX Runtime opens none.

    Raises:
        EdgekitError: a file is missing, is no ONNX, or takes and gives something else than the first.
    """
    first = spec_of(files[0])
    for path in files:
        same_contract(spec_of(path), first, path, files[0])
    return first


def same_contract(spec: IOSpec, first: IOSpec, path: Path, baseline: Path) -> None:
    """Refuse the file at `path` unless it takes and gives what the one at `baseline` does.

    Raises:
        EdgekitError: it does not.
    """
    if _contract(spec) != _contract(first):
        raise EdgekitError(
            f"takes and gives {_contract(spec)}",
            where=str(path),
            rule=f"the same as {baseline}: {_contract(first)}",
            way_out="compare files that were made from one model",
        )


def running_file(bundle: Path, copy: Path, *, provider: str | None = None) -> Path:
    """Write the file that runs of a bundle here to `copy`, its digests checked.

    Raises:
        EdgekitError: the bundle is not whole, or has no file for the provider.
    """
    from edgekit.device import load

    model = load(bundle, provider=provider)
    copy.write_bytes(model.opened.read(model.variant.file))
    return copy


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


def _contract(spec: IOSpec) -> str:
    """Names, types and fixed sizes; how open dimensions are called does not matter."""

    def shown(tensor: TensorSpec) -> str:
        sizes = ", ".join(str(size) if isinstance(size, int) else "?" for size in tensor.shape)
        return f"{tensor.name} {tensor.dtype} [{sizes}]"

    return f"{', '.join(map(shown, spec.inputs))} -> {', '.join(map(shown, spec.outputs))}"
