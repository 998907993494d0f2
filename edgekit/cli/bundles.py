"""`edgekit bundle` and `run`: what goes to the device, and what it says there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from edgekit.cli import show
from edgekit.cli.kinds import kinds_in
from edgekit.cli.onnx_files import named, shared_spec
from edgekit.cli.onnx_jobs import OnnxJob
from edgekit.cli.options import AsJson, Threads
from edgekit.errors import EdgekitError, did_you_mean
from edgekit.report import interval

if TYPE_CHECKING:
    from edgekit.bundle import Side
    from edgekit.device import Golden
    from edgekit.progress import Progress
    from edgekit.quantize.targets import CpuTarget
    from edgekit.spec import IOSpec
    from edgekit.workload import Workload, WorkloadConfig

PRECISIONS = ("int8", "fp16", "fp32")
INTEGER = ("ConvInteger", "MatMulInteger", "MatMulNBits", "QLinearConv", "QLinearMatMul")


def bundle(
    config: WorkloadConfig | OnnxJob,
    file: Annotated[
        list[str] | None,
        typer.Option(
            "--file",
            "-f",
            help="A variant as PRECISION\\[@TARGET]=FILE.onnx, such as int8@x86-vnni=m.int8.onnx, fp32=m.onnx or "
            "fp16@cuda=m.fp16.onnx; may be given several times. The first is the reference. The target of an int8 file "
            "is read off its weights where it is not said.",
        ),
    ] = None,
    point: Annotated[
        int | None,
        typer.Option(min=1, help="Instead of files: the point of this number on the front of a finished run."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Folder of that run, which also knows the model, the data and the task.  \\[default: the latest in "
            "edgekit-runs]"
        ),
    ] = None,
    also: Annotated[
        str | None,
        typer.Option(
            metavar="KINDS",
            help="For a point in int8: further kinds of CPU, with commas, that the bundle gets an int8 file of the "
            "same network for: x86-vnni,x86-avx2,arm64. Each is scored on the selection split as such a CPU computes, "
            "and not timed.",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Golden vectors to record from the selection split.")] = 4,
    raw: Annotated[
        list[str] | None,
        typer.Option(
            help="Instead of the selection split: an image, a .wav or a text (itself, or a .txt file) to record a "
            "golden vector from, through the preprocessing; may be given several times. It goes into the bundle, "
            "and a device checks the preprocessing with it, too."
        ),
    ] = None,
    bake: Annotated[
        list[str] | None,
        typer.Option(
            help="preprocessing or postprocessing; may be given twice. Puts it into the graph of every file, in ONNX's "
            "own operators: the bundle then takes an image's bytes \\[height, width, 3] or sound's samples \\[n], and "
            "needs --raw to show how far that lies from the preprocessing in numpy; or it gives probabilities, or the "
            "boxes that non-maximum suppression leaves."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the bundle; a name that ends in .zip makes it one file.  \\[default: NAME.edgekit]",
        ),
    ] = None,
    zipped: Annotated[
        bool, typer.Option("--zip", help="Write one file, NAME.edgekit.zip, which is read as it is: not compressed.")
    ] = False,
    sign: Annotated[
        Path | None,
        typer.Option(
            help="A private key (PEM, P-256, P-384 or P-521): also write NAME.edgekit.sig, an OpenSSF model signature "
            "that `edgekit verify --key` checks (pip install 'edgekit\\[signing]')."
        ),
    ] = None,
    license_: Annotated[
        Path | None,
        typer.Option("--license", help="The license of the weights, a text file, to go along."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Write ONNX files as a bundle: an ONNX Runtime model package with contract, labels, digests and golden vectors.

    The files are named, or are those of a point on the front that `search` or `compress` left.

    Example: edgekit bundle net.py:model --train net.py:train_data --test net.py:test_data -f int8@x86-vnni=m.int8.onnx
    -f fp32=m.onnx && edgekit bundle --run edgekit-runs/net-network --point 3 --also x86-avx2,arm64
    && edgekit bundle m.int8.onnx m.onnx --data test.zip --image-size 224 --labels cat,dog
    """
    from edgekit.bundle import postprocessing_for, sign_bundle, write_bundle
    from edgekit.report import readme

    if isinstance(config, OnnxJob):
        file = file or _guessed(config.files)
    if (point is None) != (run is None) or (point is None) != bool(file):
        raise EdgekitError(
            "got "
            + (", ".join(n for n, v in (("--file", file), ("--point", point), ("--run", run)) if v) or "neither"),
            where="command line",
            rule="files (--file), or a point of a run (--point and --run)",
        )
    sides = _sides(bake or ())
    kinds = _kinds(also, point)
    contents = _of_point(run, point) if run is not None and point is not None else _of_files(file or [])
    spec = shared_spec([contents.reference])
    if isinstance(config, OnnxJob):
        workload: Workload | OnnxJob = config
        task, after, origin = config.task, config.postprocessing, "ONNX files"
    else:
        from edgekit.workload import load_workload

        workload = loaded = load_workload(config)
        task, after, origin = loaded.task.name, loaded.postprocessing, config.model
        if kinds and run is not None and point is not None:
            with show.progress(quiet=json) as progress:
                contents = _with_kinds(contents, run, point, loaded, kinds, spec=spec, progress=progress)
    with show.ticking("bundling", 2, quiet=json) as tick:
        golden = _of_raw(raw, workload, contents, spec) if raw else _of_data(samples, workload, contents, spec)
        tick()
        path = _place(out or Path(f"{workload.name}.edgekit"), zipped=zipped)
        folder = write_bundle(
            path,
            name=workload.name,
            variants=contents.variants,
            spec=spec,
            preprocessing=workload.preprocessing,
            labels=workload.labels,
            postprocessing=after or postprocessing_for(task, spec, workload.labels),
            metrics=contents.metrics,
            provenance={"model": origin, **contents.provenance},
            golden=golden,
            bake=sides,
            files={
                **workload.processing_files,
                **contents.files,
                **({} if license_ is None else {"LICENSE": license_}),
            },
            readme=lambda about: readme(about, path.name),
        )
        signature = None if sign is None else sign_bundle(folder, sign)
        tick()
    made_for = contents.metrics.get("kinds", {})
    if json:
        signed_by = {} if signature is None else {"signature": str(signature)}
        show.data({"bundle": str(folder), **signed_by, **({"kinds": made_for} if made_for else {})})
    else:
        for kind, found in made_for.items():
            show.out.print(
                f"{kind}: {contents.metrics['name']} {found['metric']['value']:.2f} on the selection split, "
                f"{interval(found['drop'], 2)} below the fp32 file of the same network",
                markup=False,
            )
        signed = "" if signature is None else f" and its signature {signature}"
        show.out.print(f"wrote {folder}{signed}; look into it with: edgekit inspect {folder}", markup=False)


def _place(out: Path, *, zipped: bool) -> Path:
    return out.with_name(f"{out.name}.zip") if zipped and out.suffix != ".zip" else out


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    """What goes into a bundle: the variants, the file that golden vectors come from (for which CPU), what is known."""

    variants: dict[str, Any]
    reference: Path
    target: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


def _sides(given: Sequence[str]) -> tuple[Side, ...]:
    from edgekit.bundle import Side

    sides: tuple[Side, ...] = get_args(Side)
    for text in given:
        if text not in sides:
            raise EdgekitError(
                f"got {text!r}", where="--bake", rule=" or ".join(sides), way_out=did_you_mean(text, sides)
            )
    return tuple(side for side in sides if side in given)


def _of_data(samples: int, workload: Workload | OnnxJob, contents: _Contents, spec: IOSpec) -> tuple[Golden, ...]:
    """Golden vectors from the selection split, or from --data: inputs as the data give them.

    A bundle travels, raw data need not. Of files without data there are none.
    """
    from edgekit.bundle import record_golden

    if isinstance(workload, OnnxJob):
        feeds = [] if workload.data is None else list(workload.feeds(spec, batch=1, limit=samples))
        return record_golden(contents.reference, feeds, target=contents.target)
    from edgekit.validate import feeds_of, signature_of
    from edgekit.workload import loader

    batches = loader(workload.splits.selection, 1, model=signature_of(spec), seed=workload.splits.seed, limit=samples)
    feeds = [feeds_of(batch, spec) for batch in batches]
    return record_golden(contents.reference, feeds, target=contents.target)


def _of_raw(raw: Sequence[str], workload: Workload | OnnxJob, contents: _Contents, spec: IOSpec) -> tuple[Golden, ...]:
    """Golden vectors from raw input, through the workload's preprocessing."""
    from edgekit.bundle import record_golden
    from edgekit.data import read_vocabulary
    from edgekit.device.processing import prepared
    from edgekit.device.raw import read_raw

    before = workload.preprocessing
    if before is None:
        raise EdgekitError(
            "nothing says how raw input becomes the model's",
            where="--raw",
            rule="a preprocessing",
            way_out="give --image-size, --mean and --std, or --preprocessing",
        )
    read = [read_raw(text if not Path(text).is_file() else Path(text), before) for text in raw]
    file = next(iter(workload.processing_files.values()), None)
    vocabulary = None if file is None else read_vocabulary(file)
    inputs = [prepared(before, each, spec, vocabulary) for each in read]
    return record_golden(contents.reference, inputs, raw=read, target=contents.target)


def _guessed(files: Sequence[Path]) -> list[str]:
    """The files with what they compute in, as `--file` would name them."""
    import onnx_ir as ir

    def precision(path: Path) -> str:
        graph = ir.load(named([path]).popitem()[1]).graph
        if any("Quantize" in node.op_type or node.op_type in INTEGER for node in graph):
            return "int8"
        return "fp16" if any(value.dtype == ir.DataType.FLOAT16 for value in graph.initializers.values()) else "fp32"

    return [f"{precision(path)}={path}" for path in files]


def _of_files(file: Sequence[str]) -> _Contents:
    variants = {_variant_name(text): _variant(text) for text in file}
    if len(variants) < len(file):
        raise EdgekitError(
            f"got {', '.join(file)}",
            where="--file",
            rule="one file for each PRECISION[@TARGET]",
            way_out="leave one out",
        )
    first = next(iter(variants.values()))
    return _Contents(variants=variants, reference=first.path, target=first.target)


def _of_point(run: Path, number: int) -> _Contents:
    from edgekit.bundle import Variant
    from edgekit.search import Front

    front = Front.load(run)
    member = front.member(number)
    path = front.file(run, member)
    variant = Variant(path=path, precision=member.precision, target=member.target)
    return _Contents(
        variants={f"cpu-{member.precision}": variant},
        reference=run / member.source,
        target="any",
        metrics={"name": front.metric, "unit": front.unit, "selection": member.point.to_dict(), "test": member.test},
        provenance={"choices": dict(member.choices), "file_sha256": member.sha256},
        files=_report_of(run),
    )


def _kinds(also: str | None, point: int | None) -> tuple[CpuTarget, ...]:
    if also is None:
        return ()
    if point is None:
        raise EdgekitError(
            f"got {also!r}",
            where="--also",
            rule="only with --point: the run knows the fp32 network and its data",
            way_out="quantize for several kinds with `edgekit quantize --target`, and name each file with --file",
        )
    from edgekit.quantize.targets import CpuTarget

    return kinds_in(also, get_args(CpuTarget), "--also")


def _with_kinds(
    contents: _Contents,
    run: Path,
    number: int,
    workload: Workload,
    kinds: Sequence[CpuTarget],
    *,
    spec: IOSpec,
    progress: Progress,
) -> _Contents:
    """With an int8 file of the same network for each further kind of CPU."""
    from edgekit.bundle import variants_for_kinds
    from edgekit.search import Front, for_kinds

    front = Front.load(run)
    made = for_kinds(front, front.member(number), run, workload, kinds, spec=spec, progress=progress)
    (chosen,) = contents.variants.values()
    figures = {each.target: {"metric": each.metric.to_dict(), "drop": each.drop.to_dict()} for each in made}
    return replace(
        contents,
        variants=variants_for_kinds(chosen, {each.target: each.path for each in made}, contents.reference),
        metrics={**contents.metrics, "kinds": figures},
    )


def _report_of(run: Path) -> dict[str, bytes]:
    """The report of a run of compress; a search has none."""
    from edgekit.report import read_run, without_pictures
    from edgekit.report.saved import IN_BUNDLE, REPORT

    if not (run / REPORT).is_file():
        return {}
    return {IN_BUNDLE: (dumps(without_pictures(read_run(run).report), indent=2) + "\n").encode()}


def run(
    path: Annotated[Path, typer.Argument(help="A bundle.")],
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Images, .wav files or texts (themselves, or .txt files), through the recorded preprocessing; or "
            "tensors in .npy or .npz files."
        ),
    ],
    provider: Annotated[str | None, typer.Option(help="cpu or cuda; the bundle's best variant without it.")] = None,
    threads: Threads = 1,
    key: Annotated[
        Path | None, typer.Option(help="A public key (PEM): run the bundle only if it is signed with it.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Replay the bundle's golden vectors first.")] = False,
    json: AsJson = False,
) -> None:
    """Predict with a bundle, from files as they are. The same as `edgekit.device.load(PATH).predict(INPUT)`.

    Example: edgekit run resnet20.edgekit photo.jpg --check
    """
    from edgekit.device import load
    from edgekit.device.model import plain

    answers = {}
    with show.ticking("predicting", len(inputs), quiet=json or len(inputs) == 1) as tick:
        model = load(path, provider=provider, threads=threads, public_key=key)
        checked = model.check() if check else None
        for each in inputs:
            # What names no file is a text, for models that take one.
            answers[each] = model.predict(Path(each) if Path(each).is_file() else each)
            tick()
    if json:
        show.data(
            {
                "variant": model.explain(),
                "golden": None if checked is None else checked.to_dict(),
                "predictions": {name: plain(answer) for name, answer in answers.items()},
            }
        )
        return
    show.out.print(model.explain(), markup=False)
    if checked is not None:
        show.out.print(f"golden vectors: {checked.samples} samples reproduced", markup=False)
    for name, answer in answers.items():
        show.out.print(f"{name}: {_said(answer)}", markup=False)


def _variant_name(text: str) -> str:
    return text.partition("=")[0].replace("@", "-")


def _variant(text: str) -> Any:
    from edgekit.bundle import Variant

    kind, separator, path = text.partition("=")
    precision, _, target = kind.partition("@")
    if not separator or precision not in PRECISIONS:
        raise EdgekitError(
            f"got {text!r}", where="--file", rule=f"PRECISION[@TARGET]=FILE.onnx with {', '.join(PRECISIONS)}"
        )
    file = named([Path(path)]).popitem()[1]
    if precision == "int8" and not target:
        import onnx_ir as ir

        from edgekit.quantize.weights import target_of

        target = target_of(ir.load(file).graph)
    return Variant(
        path=file,
        provider=target if target in ("cuda", "tensorrt") else "cpu",
        precision=precision,
        target=target or "any",
    )


def _said(answer: Any) -> str:
    if answer == ():
        return "nothing found"
    return "; ".join(map(str, answer)) if isinstance(answer, tuple) else str(answer)
