"""Functions named as text: `path/to/file.py:function` and `package.module:function`."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from edgekit.errors import WorkloadError, did_you_mean

RULE = "path/to/file.py:function or package.module:function"


def load_callable(reference: str) -> Callable[..., Any]:
    """The function that `reference` names.

    A file's own folder is importable while the file is imported and while the function runs, so that its sibling
    imports work. The module gets a name made of the file's path and content: the same in every process, and another
    once the file is edited.

    Raises:
        WorkloadError: the file, module or function is missing, or its import raises; so does the returned function,
            with the user's own exception and line, when it raises.

    >>> load_callable("math:sqrt")(9.0)
    3.0
    """
    target, separator, name = reference.rpartition(":")
    if not separator or not target or not name.isidentifier():
        raise WorkloadError(
            f"got {reference!r}", where="reference", rule=RULE, way_out="write for instance net.py:model"
        )
    if target.endswith(".py"):
        path = Path(target).expanduser().resolve()
        folder: Path | None = path.parent
        module = _load_file(path, reference)
    else:
        folder = None
        module = _load_module(target, reference)
    function = getattr(module, name, None)
    if not callable(function):
        names = sorted(
            key
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", "") == module.__name__
        )
        raise WorkloadError(
            f"{name!r} is {'missing' if function is None else 'no function'}",
            where=target,
            rule=RULE,
            way_out=did_you_mean(name, names, f"it has: {', '.join(names[:12]) or 'no functions of its own'}"),
        )
    return _explained(function, reference, folder)


def _explained(function: Callable[..., Any], reference: str, folder: Path | None) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _importable(folder):
            try:
                return function(*args, **kwargs)
            except (Exception, SystemExit) as error:
                raise _as_workload_error(error, reference, f"{reference} raised") from error

    return call


def _load_file(path: Path, reference: str) -> ModuleType:
    if not path.is_file():
        raise WorkloadError(
            f"no file {path}", where=reference, rule=RULE, way_out="paths start from the folder you are in, or absolute"
        )
    digest = hashlib.sha256(f"{path}\n".encode() + path.read_bytes()).hexdigest()[:12]
    name = f"edgekit_user_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _importable(path.parent):
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:  # a script may exit where it stands, as argparse does
            del sys.modules[name]
            raise _as_workload_error(error, str(path), "the file cannot be imported") from error
    return module


def _load_module(target: str, reference: str) -> ModuleType:
    with _importable(Path.cwd()):
        try:
            return importlib.import_module(target)
        except ModuleNotFoundError as error:
            if error.name is None or not (target == error.name or target.startswith(f"{error.name}.")):
                raise _as_workload_error(error, target, "the module cannot be imported") from error
            raise WorkloadError(
                f"no module {target!r}",
                where=reference,
                rule=RULE,
                way_out="install the package, or name the file: path/to/file.py:function",
            ) from error
        except (Exception, SystemExit) as error:
            raise _as_workload_error(error, target, "the module cannot be imported") from error


@contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    if folder is None:
        yield
        return
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)


def _as_workload_error(error: Exception | SystemExit, where: str, what: str) -> Exception:
    if isinstance(error, WorkloadError):
        return error
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith("<") and "site-packages" not in frame.filename]
    frame = own[-1] if own and own[-1].filename != __file__ else None
    place = f"{frame.filename}:{frame.lineno} in {frame.name}" if frame else where
    text = str(error) if not isinstance(error, KeyError) else f"key {error}"
    if isinstance(error, SyntaxError):
        place = f"{error.filename}:{error.lineno}"
    return WorkloadError(
        f"{what}: {type(error).__name__}: {text}".rstrip(": "),
        where=place,
        rule="the function runs without arguments and returns the model or the data",
        way_out="run it by itself in Python and mend what it reports",
    )
