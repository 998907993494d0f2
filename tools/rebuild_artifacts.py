"""Make what lies in artifacts/ again: one command a model, each the recipe that its folder names.

    python tools/rebuild_artifacts.py                      # all, about 30 minutes on 2 cores
    python tools/rebuild_artifacts.py resnet20-cifar10     # one
    python tools/rebuild_artifacts.py --python nncf=~/nncf/bin/python --python aimet=~/aimet/bin/python

Needs the data beside the checkout (../shared); the keyword models are trained first if their weights are missing.
`--python` is that of tools/benchmark_quantizers.py, which says how to make these environments.
Leave the machine alone while it runs: latencies are measured.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reference.catalogue import REFERENCES, Reference

ROOT = Path(__file__).resolve().parents[1]
RUNS = Path("edgekit-runs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A workload and how it is compressed, as words of the command line.

    Args:
        reference: the trained model and its data.
        compress: everything else that `edgekit compress` is told.
    """

    reference: Reference
    compress: tuple[str, ...]


ELSEWHERE = ("--also", "x86-avx2")
"""Their bundles open on processors without VNNI, too, with a file whose sums do not saturate there."""

RECIPES = {
    "resnet20-cifar10": Recipe(
        reference=REFERENCES["resnet20"],
        compress=(
            # A quarter of the fp32 file: scales and biases make int8 files of small networks larger than that.
            *("--name", "resnet20", "--max-drop", "0.5", "--max-size-mb", "0.2726", "--time", "20m"),
            *("--threads", "1", "--provider", "cpu,cuda", *ELSEWHERE),
        ),
    ),
    "keywords-lstm": Recipe(
        reference=REFERENCES["lstm"],
        compress=("--name", "keywords-lstm", "--max-drop", "1", "--time", "2m", *ELSEWHERE),
    ),
    "keywords-transformer": Recipe(
        reference=REFERENCES["transformer"],
        compress=(
            *("--name", "keywords-transformer", "--max-drop", "1", "--time", "4m", *ELSEWHERE),
            *("--optimizer", "adamw", "--learning-rate", "0.001"),
        ),
    ),
}


def rebuild(name: str, pythons: Sequence[str]) -> int:
    """Run one recipe, and put its report, its bundle and the recipe into artifacts/."""
    recipe = RECIPES[name]
    reference = recipe.reference
    if not reference.is_trained:
        subprocess.run([sys.executable, *reference.training], cwd=ROOT, check=True)
    out = RUNS / name
    command = ["compress", reference.model, *reference.workload, *recipe.compress, "--out", str(out)]
    print("edgekit", shlex.join(command), flush=True)
    code = subprocess.run([sys.executable, "-m", "edgekit", *command], cwd=ROOT, check=False).returncode
    if code not in (0, 3):
        return code
    report = json.loads((ROOT / out / "report.json").read_text())
    target = ROOT / "artifacts" / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copy(ROOT / out / "report.json", target / "report.json")
    shutil.copytree(ROOT / report["bundle"], target / Path(report["bundle"]).name)
    (target / "recipe.sh").write_text(f"# From the root of a checkout.\nedgekit {shlex.join(command)}\n")
    _quantizers(reference, report, target, pythons)
    return code


def _quantizers(reference: Reference, report: dict[str, object], target: Path, pythons: Sequence[str]) -> None:
    """Our files beside those of other quantizers: the same calibration data, one interleaved run, one selection split.

    The test split stays out of it: it is scored once, by the report.
    """
    rows = report["stages"]
    assert isinstance(rows, list)
    also = [text for row in rows[1:] for text in ("--also", f"{row['stage']}={row['file']}")]
    tool = [sys.executable, "tools/benchmark_quantizers.py", rows[0]["file"], *also]
    workload = ["--workload-model", reference.model, *reference.workload]
    named = [word for python in pythons for word in ("--python", python)]
    subprocess.run([*tool, *workload, *named, "--json", str(target / "quantizers.json")], cwd=ROOT, check=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)}; all without any")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help="the interpreter in whose environment a quantizer is installed, for tools/benchmark_quantizers.py",
    )
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(RECIPES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(RECIPES)}")
    return max(rebuild(name, arguments.python) for name in arguments.names or RECIPES)


if __name__ == "__main__":
    sys.exit(main())
