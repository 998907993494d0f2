r"""Measure the int8 files of several quantizers, and files made before, beside their fp32 file in one interleaved run.

    python tools/benchmark_quantizers.py model.onnx
    python tools/benchmark_quantizers.py model.onnx --also int8=model.int8.onnx --also pruned=pruned.int8.onnx --time 20
    python tools/benchmark_quantizers.py model.onnx --data inputs.npz --json quantizers.json
    python tools/benchmark_quantizers.py model.onnx --workload-model net.py:model --train net.py:train_data \
        --test net.py:test_data --python nncf=~/nncf/bin/python --python aimet=~/aimet/bin/python

These files are made of model.onnx, all from the same calibration data, each by a fresh process whose time and peak
memory are told:

    ort-defaults   onnxruntime.quantization.quantize_static with its defaults
    ort-u8s8       the same with per_channel, activations QUInt8 and weights QInt8, after quant_pre_process
    ort-dynamic    quantize_dynamic, where there is MatMul, Gemm or LSTM and no Conv
    nncf           nncf.quantize on the ONNX file with its defaults
    aimet          aimet_onnx.QuantizationSimModel with 8-bit weights and activations, as QDQ
    edgekit        edgekit.quantize.quantize, unless a file of --also is the same byte for byte

NNCF and AIMET want versions of their own of what they need: give each an environment, and name its interpreter.

    python -m venv ~/nncf && ~/nncf/bin/pip install nncf onnx onnxruntime
    python -m venv ~/aimet && ~/aimet/bin/pip install aimet-onnx

Calibration data are the arrays of --data, or the calibration split of a workload given as to `edgekit compress`; then
the table has the metric on the selection split and its drop, too. Without either they are random numbers: speed and
size mean something even so, accuracy does not. A quantizer that fails gets a row with its error.

Every file is held against its own simulation: the largest number of quantization steps by which a kernel of ONNX
Runtime differs from what the file says.

Exit codes: 0 measured; 2 wrong command line; 4 a file or the data are at fault. Leave the machine alone while it runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from quantizer_benchmark.inputs import WORKLOAD, add_workload
from quantizer_benchmark.measuring import NAMES, benchmark
from quantizer_benchmark.quantizers import ELSEWHERE
from quantizer_benchmark.table import remarks, table

from edgekit.errors import EdgekitError
from edgekit.quantize.targets import CpuTarget, target_here

TARGETS = get_args(CpuTarget)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = _parser()
    options = parser.parse_args(arguments)
    _check(parser, options)
    from edgekit.cli import show
    from edgekit.report import markdown
    from edgekit.store import write_json

    try:
        with show.progress() as progress:
            report = benchmark(options, progress)
        if options.json is not None:
            write_json(options.json, report)
    except EdgekitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(markdown(*table(report)))
    print("", *remarks(report), sep="\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="FP32.onnx", help="the fp32 file: what others are made of")
    parser.add_argument(
        "--also",
        type=_named_file,
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="measure this file, too; may be given several times",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every figure to this file")
    parser.add_argument(
        "--python",
        type=_interpreter,
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help="the interpreter of the environment in which this quantizer is installed; may be given for each of "
        f"{', '.join(each.name for each in ELSEWHERE)}",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="measure nothing if the report at --json has the same conditions and fp32 file, and edgekit still makes "
        "the same int8 file",
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the files that are made in this folder")
    data = parser.add_argument_group("data: --data, a workload, or random numbers without either")
    data.add_argument("--data", type=Path, metavar="NPZ", help="one array for each input, by name; some 100 samples")
    add_workload(data)
    how = parser.add_argument_group("measurement")
    how.add_argument("--threads", type=_positive, default=1, help="threads of ONNX Runtime (default 1)")
    how.add_argument("--batch", type=_positive, default=1, help="samples a run (default 1)")
    how.add_argument("--time", default="10s", help="how long to measure all files together: 10s (the default), 1m")
    how.add_argument("--seed", type=int, default=0, help="of splits, random inputs and the order of rounds (default 0)")
    how.add_argument(
        "--device",
        choices=TARGETS,
        default=target_here(),
        help="what int8 files are for, of those tools that ask (default: this machine)",
    )
    return parser


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Leave with exit code 2 where options do not go together."""
    names = [name for name, _ in options.also]
    wrong = next((name for name in names if name in NAMES or names.count(name) > 1), None)
    if wrong is not None:
        parser.error(f"--also {wrong}=…: the name is taken; each file needs its own, other than {', '.join(NAMES)}")
    given = [f"--{name.replace('_', '-')}" for name in WORKLOAD if getattr(options, name) is not None]
    if options.workload_model is None and given:
        parser.error(f"{', '.join(given)}: only with --workload-model")
    if options.workload_model is not None:
        if options.data is not None:
            parser.error("--data and --workload-model: one or the other")
        if options.train is None or options.test is None:
            parser.error("--workload-model needs --train and --test")
    if options.resume and options.json is None:
        parser.error("--resume: only with --json, whose report it looks at")
    if options.seed < 0:
        parser.error(f"--seed {options.seed}: an integer from 0 up")


def _named_file(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=FILE")
    return name, Path(path)


def _interpreter(text: str) -> tuple[str, Path]:
    name, path = _named_file(text)
    if name not in {each.name for each in ELSEWHERE}:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(each.name for each in ELSEWHERE)}")
    path = path.expanduser()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"no interpreter {path}")
    return name, path.absolute()  # Not resolved: an environment's python is a link out of it.


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive integer")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
