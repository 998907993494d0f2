"""Feed a bundle's readers bytes that nobody would write, guided by what code they reach.

    python tools/fuzz_bundle.py --time 30s [--only zip] [--keep FOLDER]

Targets: the manifest (strict JSON and its rules), the zip, the ONNX scan, the golden vectors. Whatever they get, they
give a result or raise an EdgekitError, within 20 seconds and a gigabyte. The time is shared out among them; each starts
from a bundle in artifacts/. An input that breaks a reader is kept in the folder (`./fuzz-findings` by default), and the
exit code is 1. Needs atheris: pip install '.[fuzz]'.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from edgekit.units import parse_duration_s

ARTIFACTS = Path(__file__).resolve().parents[1] / "artifacts"
SEEDED = "keywords-lstm/keywords-lstm.edgekit"
INPUT_S, MEMORY_MB = 20, 1024
LINES = 120
"""Of what libFuzzer said, when a reader fell."""
Reader = Callable[[bytes], object]


def readers(folder: Path) -> dict[str, Reader]:
    """What is fuzzed, by name; `folder` holds what has to be a file."""
    from edgekit.device import strict_json
    from edgekit.device.golden import read_golden
    from edgekit.device.manifest import Manifest
    from edgekit.device.onnx_scan import scan
    from edgekit.device.verify import open_bundle
    from edgekit.spec import IOSpec, TensorSpec

    spec = IOSpec(
        inputs=(TensorSpec(name="input", dtype="float32", shape=("batch", 2)),),
        outputs=(TensorSpec(name="output", dtype="float32", shape=("batch", 3)),),
    )

    def manifest(data: bytes) -> object:
        return Manifest.from_dict(strict_json.parse(data, "fuzz"))

    def archive(data: bytes) -> object:
        path = folder / "fuzz.edgekit.zip"
        path.write_bytes(data)
        opened = open_bundle(path)
        opened.check_digests()
        return opened

    return {
        "manifest": manifest,
        "zip": archive,
        "onnx": lambda data: scan(data, "fuzz"),
        "golden": lambda data: read_golden(data, spec, 1, "fuzz"),
    }


def seeds() -> dict[str, Mapping[str, bytes]]:
    """Inputs that are all right, for each target: whole files of a bundle, and small ones, which change faster."""
    import numpy as np
    from onnx import TensorProto, helper

    from edgekit.bundle.archive import write_archive
    from edgekit.device.golden import Golden, write_golden

    bundle = ARTIFACTS / SEEDED
    models = {path.parent.name: path.read_bytes() for path in sorted(bundle.glob("models/model/*/model.onnx"))}
    golden = Golden(inputs={"input": np.zeros((1, 2), np.float32)}, outputs={"output": np.zeros((1, 3), np.float32)})
    with tempfile.TemporaryDirectory() as temporary:
        packed = Path(temporary, "b.edgekit.zip")
        write_archive(packed, _light(bundle))
        zipped = packed.read_bytes()
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
        [helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])],
    )
    tiny = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()
    return {
        "manifest": {"whole": (bundle / "edgekit/bundle.json").read_bytes()},
        "zip": {"whole": zipped, "end": zipped[-22:]},
        "onnx": {**models, "tiny": tiny},
        "golden": {"whole": (bundle / "edgekit/golden.npz").read_bytes(), "small": write_golden([golden])},
    }


def _light(bundle: Path) -> dict[str, bytes]:
    """A bundle's files; those whose contents the zip's reader does not look into hold one byte."""
    about = json.loads((bundle / "edgekit/bundle.json").read_text())
    files = {
        name: (bundle / name).read_bytes() if name.endswith(("manifest.json", "component.json")) else b"x"
        for name in about["files"]
    }
    about["files"] = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in files.items()
    }
    return {**files, "edgekit/bundle.json": json.dumps(about).encode()}


def fuzz(target: str, arguments: list[str]) -> None:
    """Run libFuzzer on one target in this process; it does not return."""
    import atheris

    with atheris.instrument_imports(include=["edgekit", "zipfile", "json"]):
        from edgekit.errors import EdgekitError

        read = readers(Path(tempfile.mkdtemp(prefix="edgekit-fuzz-")))[target]
    warnings.filterwarnings("error")
    warnings.filterwarnings("ignore", message=".*is newer than")

    def one(data: bytes) -> None:
        try:
            read(data)
        except EdgekitError:
            return

    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


def campaign(target: str, time_s: int, kept: Path) -> tuple[int, bool]:
    """Fuzz one target in a process of its own: how many inputs were tried, and whether the reader stood."""
    with tempfile.TemporaryDirectory(prefix="edgekit-corpus-") as corpus:
        given = seeds()[target]
        for name, data in given.items():
            Path(corpus, name).write_bytes(data)
        longest = 2 * max(map(len, given.values()))
        limits = [f"-max_total_time={time_s}", f"-timeout={INPUT_S}", f"-rss_limit_mb={MEMORY_MB}"]
        options = [
            "-print_final_stats=1",
            f"-artifact_prefix={kept}/{target}-",
            f"-max_len={longest}",
            "-len_control=20",
        ]
        done = subprocess.run(
            [sys.executable, __file__, "--worker", target, *limits, *options, corpus],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    tried = re.findall(r"stat::number_of_executed_units:\s*(\d+)", done.stderr) or re.findall(
        r"^#(\d+)\t", done.stderr, re.MULTILINE
    )
    if done.returncode:
        said = (line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("INFO: Instrument"))
        print("\n".join(list(said)[:LINES]))
    return int(tried[-1]) if tried else 0, done.returncode == 0


def main(arguments: list[str] | None = None) -> int:
    """Fuzz the targets one after the other; 1 if one fell."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["--worker"]:
        fuzz(given[1], given[2:])
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--time", default="30s", help="in all: 30s, 10m (default: 30s)")
    parser.add_argument("--only", choices=list(seeds()), help="one target alone")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="where inputs that break a reader go")
    options = parser.parse_args(given)
    targets = [options.only] if options.only else list(seeds())
    time_s = max(1, int(parse_duration_s(options.time, "--time") / len(targets)))
    options.keep.mkdir(parents=True, exist_ok=True)
    stood = True
    for target in targets:
        tried, held = campaign(target, time_s, options.keep.resolve())
        stood = stood and held and tried > 0
        print(f"{target}: {tried} inputs in {time_s} s, {'nothing found' if held else 'FOUND'}", flush=True)
    return 0 if stood else 1


if __name__ == "__main__":
    sys.exit(main())
