"""Try the oldest versions that pyproject.toml declares: a bound that nobody has run is a guess.

    python tools/lowest_versions.py                          # a new environment in a temporary folder, tests/cli
    python tools/lowest_versions.py --keep lowest tests/export tests/quantize
    python tools/lowest_versions.py --torch                  # PyTorch, too: on Linux that is a build with CUDA

Makes an environment with each library of `edgekit[cpu,compress]` in the oldest version that is declared, and runs tests
in it. What other libraries read (the extras `hf`, `timm`, `lightning`, …) is left out, since those ask for newer ones
themselves; its tests skip. Warnings are none of the matter: old libraries give them beside new ones that they use.

Exit codes: that of pytest; 2 wrong command line; 4 the environment could not be made.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("cpu", "compress")
RUNNERS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "jsonschema")
BOUND = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(\[[^]]*\])?>=(?P<version>[0-9][0-9a-z.]*)")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="*", default=["tests/cli"], help="for pytest (default tests/cli)")
    parser.add_argument("--keep", type=Path, help="make the environment in this folder, and leave it there")
    parser.add_argument("--torch", action="store_true", help="the oldest PyTorch as well")
    options = parser.parse_args(arguments)
    pins = lowest(tomllib.loads((ROOT / "pyproject.toml").read_text()))
    if not options.torch:
        pins.pop("torch", None)
    with tempfile.TemporaryDirectory(prefix="edgekit-lowest-") as folder:
        place = options.keep or Path(folder)
        venv.create(place, with_pip=True)
        python = place / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        words = [f"{name}=={version}" for name, version in pins.items()]
        asked = [*words, *RUNNERS, "--editable", f"{ROOT}[{','.join(EXTRAS)}]"]
        print(f"installing {', '.join(words)}", flush=True)
        if subprocess.run([python, "-m", "pip", "install", "--quiet", *asked], check=False).returncode:
            print("these versions do not go together: see above", file=sys.stderr)
            return 4
        run = [python, "-m", "pytest", "-o", "filterwarnings=default", "-p", "no:cacheprovider", *options.tests]
        return subprocess.run(run, cwd=ROOT, check=False).returncode


def lowest(project: dict[str, Any]) -> dict[str, str]:
    """The oldest version of each library that an installation with `EXTRAS` asks for, by its name.

    >>> lowest({"project": {"dependencies": ["numpy>=1.26"], "optional-dependencies": {
    ...     "cpu": [], "compress": ["torch>=2.10,<2.14"], "hf": ["transformers>=5"]}}})
    {'numpy': '1.26', 'torch': '2.10'}
    """
    extras = project["project"]["optional-dependencies"]
    asked = [*project["project"]["dependencies"], *(each for extra in EXTRAS for each in extras[extra])]
    found = {each: BOUND.match(each) for each in asked}
    return {match["name"]: match["version"] for each, match in found.items() if match is not None}


if __name__ == "__main__":
    sys.exit(main())
