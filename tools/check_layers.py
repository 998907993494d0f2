"""Check that every import in edgekit points down the layers, and that only the CLI prints and exits.

    python tools/check_layers.py [ROOT]

ROOT holds the package `edgekit` (default: the checkout). Each violation is printed as `file:line: what, why`; the exit
code is 1 if there is any. Imports are read from the source, function bodies included, so nothing is executed.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "edgekit"

LAYERS = (
    ("choices", "errors", "macs", "progress", "spec", "stats", "store", "units"),
    ("device",),
    ("data", "workload", "tasks", "training"),
    ("prune", "distill", "export", "quantize", "profiling"),
    ("validate", "bench", "explain", "search", "bundle", "report", "inspection", "transfer"),
    ("compress", "demo"),
    ("cli", "__main__"),
)
"""From the ground up; a room imports from its own layer and those below."""

STRANGERS = 4
"""The layer whose rooms never import each other; what one needs of another is handed in as a callable."""

LIGHT = 2
"""Layers up to this one run on devices: numpy and the standard library, wherever the import stands."""

LIGHT_PACKAGES = {"numpy"}

LAZY = {
    "device/session.py": "onnxruntime",
    "device/processing/image.py": "PIL",
    "device/signature.py": "cryptography",
}
"""The one file of the light layers that may import the package, and only at the point of use."""

SPEAKERS = ("cli/", "__main__.py", "device/__main__.py")
"""Where printing and exiting is the job."""

EXITS = {("sys", "exit"), ("os", "_exit"), ("os", "abort")}


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """One line that breaks the rule."""

    path: Path
    line: int
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}, {self.why}"


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, by its full name, and whether the import runs when the file is imported."""

    line: int
    module: str
    at_top: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every violation below the given root and return 1 if there is any."""
    given = sys.argv[1:] if arguments is None else arguments
    root = Path(given[0]) if given else Path(__file__).resolve().parents[1]
    found = check(root)
    for violation in found:
        print(violation)
    print(f"{len(found)} violation{'' if len(found) == 1 else 's'} of the layers" if found else "layers hold")
    return 1 if found else 0


def check(root: Path) -> list[Violation]:
    """All violations in the package below `root`, in order of file and line."""
    folder = root / PACKAGE
    files = sorted(folder.rglob("*.py"))
    if not files:
        return [Violation(folder, 1, "no Python files", "there must be a package to check")]
    found: list[Violation] = []
    for path in files:
        name = path.relative_to(folder).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        shown = path.relative_to(root)
        imports = list(imported(tree, [PACKAGE, *path.relative_to(folder).parts[:-1]]))
        found += [Violation(shown, line, what, why) for line, what, why in _wrong_imports(name, imports)]
        if not name.startswith(SPEAKERS):
            found += [Violation(shown, line, what, why) for line, what, why in _speech(tree)]
    return sorted(found)


def imported(tree: ast.Module, package: Sequence[str]) -> Iterator[Import]:
    """Every module that a file imports, relative names resolved against `package`.

    What stands under `if TYPE_CHECKING:` counts too: a type from above is a dependency on what is above. For names
    taken from the package itself (`from edgekit import stats`), the module is what is taken.
    """
    lazy = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        or (isinstance(outer, ast.If) and "TYPE_CHECKING" in ast.dump(outer.test))
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        at_top = id(node) not in lazy
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, at_top)
        elif isinstance(node, ast.ImportFrom):
            parts = [*package[: len(package) - node.level + 1]] if node.level else []
            module = ".".join([*parts, *([node.module] if node.module else [])])
            for alias in node.names if module == PACKAGE else ():
                yield Import(node.lineno, f"{PACKAGE}.{alias.name}", at_top)
            if module != PACKAGE:
                yield Import(node.lineno, module, at_top)


def layer_of(room: str) -> int | None:
    """The number of the layer in which a room lies, from 1; None if it is in none."""
    return next((number for number, rooms in enumerate(LAYERS, 1) if room in rooms), None)


def _wrong_imports(name: str, imports: Sequence[Import]) -> Iterator[tuple[int, str, str]]:
    """(line, what, why) for each import of the file `name` (relative to the package) that may not be there."""
    room = name.partition("/")[0].removesuffix(".py")
    here = 1 if room == "__init__" else layer_of(room)
    if here is None:
        yield 1, f"{room} is in no layer", "every room has its place in LAYERS"
        return
    for entry in imports:
        top, _, rest = entry.module.partition(".")
        if top == PACKAGE:
            what, why = f"imports {entry.module}", _wrong_room(room, here, rest.partition(".")[0])
        else:
            what, why = f"imports {top}", _too_heavy(name, here, top, at_top=entry.at_top)
        if why:
            yield entry.line, what, why


def _wrong_room(room: str, here: int, other: str) -> str:
    """Why `room`, which lies in layer `here`, may not import the room `other`; empty if it may."""
    if other in ("", room):
        return ""
    there = layer_of(other)
    if there is None:
        return f"{other!r} is in no layer"
    if there > here:
        return f"layer {here} ({room}) imports nothing of layer {there}"
    return f"{room} and {other} never import each other" if there == here == STRANGERS else ""


def _too_heavy(name: str, here: int, package: str, *, at_top: bool) -> str:
    """Why the file `name` in layer `here` may not import a package that is not ours; empty if it may."""
    if here > LIGHT or package in sys.stdlib_module_names or package in LIGHT_PACKAGES:
        return ""
    if LAZY.get(name) != package:
        return "layers 1 and 2 need numpy and the standard library alone"
    return "it is imported where it is needed, not at the top" if at_top else ""


def _speech(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """(line, what, why) for each call that prints or exits, and each SystemExit that is raised."""
    why = "only the CLI prints and exits; raise an EdgekitError or tell `progress`"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "exit", "quit"):
            yield node.lineno, f"calls {node.func.id}()", why
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            if (node.func.value.id, node.func.attr) in EXITS:
                yield node.lineno, f"calls {node.func.value.id}.{node.func.attr}()", why
        elif isinstance(node, ast.Raise) and node.exc is not None:
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(raised, ast.Name) and raised.id == "SystemExit":
                yield node.lineno, "raises SystemExit", why


if __name__ == "__main__":
    sys.exit(main())
