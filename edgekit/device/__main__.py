"""`python -m edgekit.device`: the command line for devices, where numpy and onnxruntime are all there is."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, get_args

from edgekit.device import doctor, inspect, load
from edgekit.device.benchmark import STARTS, benchmark
from edgekit.device.candidates import Candidate
from edgekit.device.model import Model, plain
from edgekit.device.scenarios import Kind, Scenario
from edgekit.device.trial import TIME_S, try_model
from edgekit.device.verify import is_bundle
from edgekit.errors import EdgekitError
from edgekit.progress import Step
from edgekit.stats import Estimate
from edgekit.units import format_bytes, format_latency


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 done, 2 wrong command line, 4 the input or the machine is at fault."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.command(options)
    except EdgekitError as error:
        _say(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edgekit.device", description="Use an edgekit bundle on a device.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str, *, session: bool = True) -> Any:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(command=command)
        made.add_argument("--json", action="store_true", help="print one JSON object")
        if session:
            made.add_argument("bundle", type=Path, help="the bundle: a folder, or NAME.edgekit.zip")
            made.add_argument("--key", type=Path, help="a public key (PEM): the bundle must be signed with it")
            made.add_argument("--signature", type=Path, help="its signature (default: NAME.edgekit.sig beside it)")
            made.add_argument("--provider", help="cpu, cuda or tensorrt; the bundle's first that runs here by default")
            made.add_argument("--threads", type=int, default=1, help="threads of one run (default: 1)")
        return made

    shown = add("inspect", _inspect, "Say what is in a bundle, and whether it is whole.", session=False)
    shown.add_argument("bundle", type=Path, help="the bundle: a folder, or NAME.edgekit.zip")
    shown.add_argument(
        "--untrusted",
        action="store_true",
        help="a stranger's: look into it, and run it once, in a process of its own inside limits; ONNX files too",
    )
    shown.add_argument("--memory", type=int, default=2048, help="with --untrusted: megabytes (default: 2048)")
    shown.add_argument("--time", type=float, default=TIME_S, help="with --untrusted: seconds of processor time")
    ran = add("run", _run, "Predict from an image, a .wav file or a text, or from tensors in an .npy or .npz.")
    ran.add_argument("input", help="what to predict from: a file, or for models of text also the text itself")
    ran.add_argument("--explain", action="store_true", help="say on stderr which variant runs, and why")
    add("check", _check, "Verify every file, and replay the golden vectors on this machine.")
    timed = add(
        "bench",
        _bench,
        "Measure latency and memory on this machine, each model in processes of its own.",
        session=False,
    )
    timed.add_argument("models", nargs="+", help="bundles or ONNX files; the first is the baseline")
    timed.add_argument("--provider", default="cpu", help="cpu, cuda or tensorrt; several with commas (default: cpu)")
    timed.add_argument("--threads", type=_whole, default=(1,), help="threads of one run; several as 1,2,4 (default: 1)")
    timed.add_argument("--batch", type=_whole, default=(None,), help="samples of one run; several as 1,8")
    timed.add_argument(
        "--scenario",
        choices=get_args(Kind),
        default="single-stream",
        help="how queries come, as in MLPerf Inference (default: single-stream)",
    )
    timed.add_argument("--rate", type=float, help="with --scenario server: queries a second")
    timed.add_argument("--query", type=int, default=0, help="samples of one query; 0 for the scenario's own")
    timed.add_argument("--time", type=float, default=5.0, help="seconds to measure at most, all together (default: 5)")
    timed.add_argument(
        "--starts",
        type=int,
        default=STARTS,
        help=f"processes of each model, up to twice as many on a noisy machine (default: {STARTS})",
    )
    profiled = add("profile", _profile, "Time the graphs of a request, as `edgekit profile` writes it.", session=False)
    profiled.add_argument("request", type=Path, help="the file that `edgekit profile MODEL.onnx --request` wrote")
    profiled.add_argument(
        "--out",
        default="costs.json",
        help="the file to write; what it has already is not timed again. `-` prints each batch as a line of JSON "
        "(default: costs.json)",
    )
    profiled.add_argument("--provider", default="cpu", help="cpu, cuda or tensorrt (default: cpu)")
    profiled.add_argument("--threads", type=int, default=1, help="threads of one run (default: 1)")
    profiled.add_argument("--time", type=float, default=60.0, help="seconds to measure (default: 60)")
    add("doctor", _doctor, "Say what works on this machine, and what to do where it does not.", session=False)
    return parser


def _inspect(options: argparse.Namespace) -> int:
    if options.untrusted:
        return _try(options)
    about = inspect(options.bundle)
    if options.json:
        _json(about)
    else:
        _say(f"{about['name']}: {format_bytes(about['size_bytes'])}, created {about['created']}")
        _say(f"  digest   {about['digest']}")
        _say(f"  whole    {'yes' if about['whole'] else 'NO, changed: ' + ', '.join(about['changed'])}")
        for side in ("inputs", "outputs"):
            for tensor in about["io"][side]:
                _say(f"  {side[:-1]:<8} {tensor['name']}: {tensor['dtype']} {tensor['shape']}")
        for side in ("preprocessing", "postprocessing"):
            _say(f"  {side} {json.dumps(about[side])}")
        _say(f"  labels   {', '.join(about['labels'][:20]) or 'none'}{' ...' if len(about['labels']) > 20 else ''}")
        for variant in about["variants"]:
            graph = variant["graph"] or {"operators": {}}
            counts = ", ".join(f"{count} {name}" for name, count in graph["operators"].items())
            about_it = f"{variant['precision']}, {variant['provider']}, for {variant['target']}"
            _say(f"  variant  {variant['name']} ({about_it}), {format_bytes(variant['size_bytes'])}: {counts}")
        for name, value in {**about["metrics"], **about["provenance"]}.items():
            _say(f"  {name}: {json.dumps(value)}")
    return 0 if about["whole"] else EdgekitError.exit_code


def _try(options: argparse.Namespace) -> int:
    trial = try_model(options.bundle, memory_bytes=options.memory * 1_000_000, time_s=options.time)
    if options.json:
        _json(trial.to_dict())
        return 0
    for key, value in trial.about.items():
        _say(f"  {key}: {json.dumps(value)}")
    ran = trial.note if trial.outputs is None else ", ".join(f"{name} {text}" for name, text in trial.outputs.items())
    _say(f"  one run: {ran}; {format_bytes(trial.peak_bytes)} at most")
    for name in trial.missing:
        _say(f"  this system keeps no limit on {name}")
    return 0


def _run(options: argparse.Namespace) -> int:
    given: str = options.input
    # What names no file is a text, for models that take one.
    model = _load(options)
    if options.explain:
        _say(model.explain(), file=sys.stderr)
    answer = model.predict(Path(given) if Path(given).is_file() else given)
    if options.json or isinstance(answer, dict):
        _json(plain(answer))
    else:
        for one in answer if isinstance(answer, tuple) else (answer,):
            _say(str(one))
        if answer == ():
            _say("nothing found")
    return 0


def _check(options: argparse.Namespace) -> int:
    model = _load(options)
    check = model.check()
    if options.json:
        _json({"variant": model.variant.name, "explain": model.explain(), **check.to_dict()})
    else:
        _say(f"every file is as written; {check.samples} golden sample(s) come out right")
        for name, difference in check.differences.items():
            _say(f"  {name}: largest difference {difference:.3g}, allowed {check.tolerances[name]:.3g}")
        _say(model.explain())
    return 0


def _bench(options: argparse.Namespace) -> int:
    found = benchmark(
        list(_candidates(options)),
        scenario=Scenario(kind=options.scenario, samples=options.query, rate=options.rate),
        time_s=options.time,
        starts=options.starts,
        progress=_silent_unless_terminal,
    )
    if not found.rows:
        raise found.failed[0].reason
    if options.json:
        _json(found.to_dict())
        return 0
    for row in found.rows:
        p50 = row.latency.p50
        _say(f"{row.candidate.name}{f' ({row.note})' if row.note else ''}")
        _say(f"  p50 {_interval(p50)}  n={len(row.latency.samples_ms)} calls in {p50.n} rounds")
        for name, value in (("p90", row.latency.p90), ("p99", row.latency.p99)):
            _say(f"  {name} {'n too small' if value is None else _interval(value)}")
        _say(f"  {row.throughput.value:.1f} samples/s [{row.throughput.low:.1f}, {row.throughput.high:.1f}]")
        if row.ratio is not None and row is not found.rows[0]:
            _say(f"  {row.ratio.value:.3f}x [{row.ratio.low:.3f}, {row.ratio.high:.3f}] the first: {row.verdict}")
        _say(f"  load {format_latency(row.load_ms[0])}, first run {format_latency(row.first_ms[0])}")
        peak, base = format_bytes(row.peak_bytes), format_bytes(row.base_bytes)
        _say(f"  peak memory {peak} ({base} before the model), file {format_bytes(row.size_bytes or 0)}")
        if row.energy_j is not None:
            _say(f"  energy {1e3 * row.energy_j.value:.3g} mJ a query, of the whole processor")
        for text in row.remarks:
            _say(f"  {text}")
    for failed in found.failed:
        _say(f"{failed.candidate.name}: FAILED: {failed.reason}")
    for text in found.remarks:
        _say(text)
    return 0


def _candidates(options: argparse.Namespace) -> Iterator[Candidate]:
    """Each model on each provider, with each number of threads and each batch size."""
    providers = [part.strip() for part in options.provider.split(",") if part.strip()]
    for path, provider, threads, batch in product(options.models, providers, options.threads, options.batch):
        if not Path(path).exists():
            raise EdgekitError("no such file or folder", where=path, rule="a bundle or an ONNX file")
        parts = [path, *([provider] if len(providers) > 1 else [])]
        parts += [f"threads {threads}"] if len(options.threads) > 1 else []
        parts += [f"batch {batch}"] if len(options.batch) > 1 else []
        yield Candidate(
            name=", ".join(parts),
            path=path,
            source="bundle" if is_bundle(path) else "onnx",
            provider=provider,
            threads=threads,
            batch=batch,
        )


def _whole(text: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in text.split(","))
    if min(numbers) < 1:
        raise ValueError(text)
    return numbers


def _interval(estimate: Estimate) -> str:
    low, high = format_latency(estimate.low), format_latency(estimate.high)
    return f"{format_latency(estimate.value)}  [{low}, {high}]"


def _silent_unless_terminal(step: Step) -> None:
    if sys.stderr.isatty():
        _bar(step)


def _profile(options: argparse.Namespace) -> int:
    from edgekit.device.costs import MeasuredCosts, load_costs
    from edgekit.device.request import read_request
    from edgekit.device.timing import time_graphs

    graphs = read_request(options.request)
    streamed = options.out == "-"
    out = Path(options.out)
    known = load_costs(out) if not streamed and out.exists() else None

    def keep(costs: MeasuredCosts) -> None:
        if streamed:
            _say(json.dumps(costs.to_dict()))
        else:
            costs.save(out)

    costs = time_graphs(
        graphs,
        keep=keep,
        known=known,
        provider=options.provider,
        threads=options.threads,
        time_s=options.time,
        progress=_bar,
    )
    if options.json and not streamed:
        _json(costs.to_dict())
    elif not streamed:
        keys = {each.key for each in graphs}
        _say(f"{len(keys & costs.measured.keys())} of {len(keys)} graphs timed; wrote {out}")
        for reason in sorted({costs.failed[key] for key in keys & costs.failed.keys()}):
            _say(f"  a graph does not run here: {reason}")
    return 0


def _bar(step: Step) -> None:
    """A bar on stderr: redrawn on a terminal, a line for each step elsewhere."""
    filled = 24 * step.done // max(step.total, 1)
    end = "\r" if sys.stderr.isatty() and step.done < step.total else "\n"
    text = f"{step.work} [{'#' * filled}{'.' * (24 - filled)}] {step.done}/{step.total}"
    _say(text, file=sys.stderr, end=end)


def _doctor(options: argparse.Namespace) -> int:
    findings = doctor()
    if options.json:
        _json([finding.to_dict() for finding in findings])
    else:
        for finding in findings:
            _say(f"{finding.status:<5} {finding.name}: {finding.found}")
            if finding.way_out:
                _say(f"      -> {finding.way_out}")
    return EdgekitError.exit_code if any(finding.status == "fault" for finding in findings) else 0


def _load(options: argparse.Namespace) -> Model:
    return load(
        options.bundle,
        provider=options.provider,
        threads=options.threads,
        public_key=options.key,
        signature=options.signature,
    )


def _json(value: object) -> None:
    _say(json.dumps(value, indent=2))


def _say(text: str, file: Any = None, end: str = "\n") -> None:
    print(text, file=file, end=end, flush=True)


if __name__ == "__main__":
    sys.exit(main())
