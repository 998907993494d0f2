"""Make what lies in artifacts/ again: one command a model, each the recipe that its folder names.

    python tools/rebuild_artifacts.py                      # all, about 30 minutes on 2 cores
    python tools/rebuild_artifacts.py resnet20-cifar10     # one

Needs the data beside the checkout (../shared); the keyword models are trained first if their weights are missing.
Leave the machine alone while it runs: latencies are measured.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT, KEYWORDS = "../shared/user-project/project.py", "tools/reference/keywords.py"
RUNS = Path("edgekit-runs")


def _data(project: str) -> list[str]:
    return ["--train", f"{project}:train_data", "--test", f"{project}:test_data"]


RECIPES = {
    "resnet20-cifar10": [
        *("compress", f"{PROJECT}:model", *_data(PROJECT), "--name", "resnet20"),
        *("--max-drop", "0.5", "--time", "20m", "--threads", "1", "--provider", "cpu,cuda"),
        *("--image-size", "32", "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"),
    ],
    "keywords-lstm": [
        *("compress", f"{KEYWORDS}:lstm", *_data(KEYWORDS), "--name", "keywords-lstm"),
        *("--labels", "zero,one,two,three,four,five,six,seven,eight,nine", "--max-drop", "1", "--time", "2m"),
    ],
    "keywords-transformer": [
        *("compress", f"{KEYWORDS}:transformer", *_data(KEYWORDS), "--name", "keywords-transformer"),
        *("--labels", "zero,one,two,three,four,five,six,seven,eight,nine", "--max-drop", "1", "--time", "4m"),
        *("--optimizer", "adamw", "--learning-rate", "0.001"),
    ],
}


def rebuild(name: str) -> int:
    """Run one recipe, and put its report, its bundle and the recipe into artifacts/."""
    recipe = RECIPES[name]
    network = recipe[1].rpartition(":")[2]
    if KEYWORDS in recipe[1] and not (ROOT / "tools/reference/weights" / f"{network}.pt").is_file():
        subprocess.run([sys.executable, KEYWORDS, "train", network], cwd=ROOT, check=True)
    out = RUNS / name
    command = [*recipe, "--out", str(out)]
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
    _quantizers(report, target)
    return code


def _quantizers(report: dict[str, object], target: Path) -> None:
    """Our files beside those of ONNX Runtime's own quantizer, in one interleaved run."""
    rows = report["stages"]
    assert isinstance(rows, list)
    also = [text for row in rows[1:] for text in ("--also", f"{row['stage']}={row['file']}")]
    tool = [sys.executable, "tools/benchmark_quantizers.py", rows[0]["file"], *also]
    subprocess.run([*tool, "--json", str(target / "quantizers.json")], cwd=ROOT, check=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)}; all without any")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(RECIPES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(RECIPES)}")
    return max(rebuild(name) for name in arguments.names or RECIPES)


if __name__ == "__main__":
    sys.exit(main())
