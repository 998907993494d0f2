"""`edgekit inspect`: what a model or a bundle is made of, without running it."""

from __future__ import annotations

import json as json_module
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.cli import completing, show
from edgekit.cli.options import AsJson
from edgekit.cli.profiling import sizes
from edgekit.errors import EdgekitError
from edgekit.units import format_bytes, format_count, parse_duration_s

if TYPE_CHECKING:  # They need onnx and torch, and --help need not wait for them.
    from edgekit.inspection import ModelFacts
    from edgekit.workload import Batch, ModelSource

LONGEST = 200
"""Characters of a value that is shown."""


def inspect(
    path: Annotated[
        str,
        typer.Argument(
            help="An ONNX file, a bundle, or a function that returns a model of PyTorch (net.py:model).",
            autocompletion=completing.functions,
        ),
    ],
    shape: Annotated[
        list[str] | None,
        typer.Option(
            help="Sizes of an input for which multiply-accumulates are counted, as INPUT=1x3x224x224, where the file "
            "leaves more open than the batch; of a model of PyTorch, an input of float32."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Samples in a run, where the first dimension is open.")] = 1,
    data: Annotated[
        str | None,
        typer.Option(
            help="For a model of PyTorch: data whose first samples are its inputs (net.py:test_data, .npz).",
            autocompletion=completing.functions,
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="What `edgekit quantize --json` printed: it says of each node why it is not int8."),
    ] = None,
    compare: Annotated[Path | None, typer.Option(help="Another ONNX file, to be shown side by side.")] = None,
    layers: Annotated[int, typer.Option(min=0, help="Layers to show, the largest weights first.")] = 10,
    untrusted: Annotated[
        bool,
        typer.Option(
            "--untrusted",
            help="For a file or bundle of a stranger: parse it, and run it once, in a process of its own that may use "
            "2 GB and a minute (--memory, --time) and can write no file. Linux; macOS keeps no limit on memory.",
        ),
    ] = False,
    memory: Annotated[int, typer.Option(min=1, help="With --untrusted: megabytes that the model may take.")] = 2048,
    time: Annotated[str, typer.Option(help="With --untrusted: processor time: 10s, 1m.")] = "60s",
    netron: Annotated[bool, typer.Option("--netron", help="Open the file in Netron (pip install netron).")] = False,
    json: AsJson = False,
) -> None:
    """Say what a model or a bundle is made of: inputs, operators, multiply-accumulates, weights, what is int8.

    An ONNX file is not run; its sizes are checked, and no other file is opened for it. A bundle's digests are checked.
    Neither needs torch. On a device: python -m edgekit.device inspect BUNDLE

    Example: edgekit inspect model.int8.onnx --compare model.onnx --shape x=1x3x32x32
    """
    given = sizes(shape or ())
    if untrusted:
        _try(path, memory, parse_duration_s(time, "--time"), json=json)
        return
    if netron:
        _open_netron(_onnx_file(path))
        return
    if Path(path).suffix == ".onnx":
        reasons = {} if plan is None else _reasons(plan, Path(path).name)
        found = {path: _facts(Path(path), given, batch, reasons)}
        if compare is not None:
            found[str(compare)] = _facts(compare, given, batch, {})
        _say(found, layers, json=json)
    elif ":" in path and not Path(path).exists():
        _say({path: _of_module(path, given, batch, data)}, layers, json=json)
    else:
        _bundle(path, given, batch, json=json)


def _facts(path: Path, given: Mapping[str, tuple[int, ...]], batch: int, reasons: Mapping[str, str]) -> ModelFacts:
    from edgekit.inspection import inspect_onnx

    return inspect_onnx(path, shapes=given, batch=batch, reasons=reasons)


def _of_module(reference: str, given: Mapping[str, tuple[int, ...]], batch: int, data: str | None) -> ModelFacts:
    from torch import nn

    from edgekit.inspection.torch_model import inspect_module
    from edgekit.workload import load_model

    source = load_model(reference)
    model = source.factory()
    if not isinstance(model, nn.Module):
        raise EdgekitError(
            f"the function returned a {type(model).__name__}",
            where=reference,
            rule="a torch.nn.Module",
            way_out="return the module itself, not its state dict or class",
        )
    model = model.eval().cpu()
    example = _example(model, source, given, batch, data, reference)
    try:
        return inspect_module(model, example)
    except EdgekitError:
        raise
    except Exception as error:
        raise EdgekitError(
            f"the model cannot be called: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            where=reference,
            rule="inputs as its forward takes them",
            way_out="check the sizes of --shape, or name data with --data",
        ) from error


def _example(
    model: Any,
    source: ModelSource,
    given: Mapping[str, tuple[int, ...]],
    batch: int,
    data: str | None,
    reference: str,
) -> Batch:
    import torch

    from edgekit.data import as_image
    from edgekit.workload import Batch, load_data, loader

    if data is not None:
        image = as_image(source.preprocessing)
        return next(iter(loader(load_data(data, image=image, text=source.text), batch, model=model, limit=batch)))
    if not given:
        known = source.example(batch)
        if known is not None:
            return known
        raise EdgekitError(
            "no inputs to count multiply-accumulates for",
            where=reference,
            rule="--shape INPUT=SIZES, or --data",
            way_out=f"edgekit inspect {reference} --shape x=1x3x224x224",
        )
    return Batch((), {name: torch.zeros(shape) for name, shape in given.items()}, None)


def _bundle(path: str, given: Mapping[str, tuple[int, ...]], batch: int, *, json: bool) -> None:
    from edgekit.device import inspect as look

    about = look(path)
    whole = [row["file"] for row in about["variants"] if row["graph"] is not None]
    models = _models(path, whole, given, batch)
    if json:
        show.data({**about, "models": {name: each.to_dict() for name, each in models.items()}})
    else:
        show.facts(path, {key: _short(value) for key, value in about.items()})
        _side_by_side(models)
    if about["changed"]:
        raise EdgekitError(
            f"changed: {', '.join(about['changed'])}",
            where=path,
            rule="every file has the SHA-256 that the bundle lists",
            way_out="get the bundle again from where it was made; do not run this one",
        )


def _models(path: str, files: Sequence[str], given: Mapping[str, tuple[int, ...]], batch: int) -> dict[str, ModelFacts]:
    """What the files of a bundle hold, each as it was when its digest was checked."""
    from edgekit.device.verify import open_bundle

    opened = open_bundle(path)
    with tempfile.TemporaryDirectory(prefix="edgekit-inspect-") as folder:
        copy = Path(folder, "model.onnx")
        found = {}
        for name in files:
            copy.write_bytes(opened.read(name))
            found[name] = _facts(copy, given, batch, {})
    return found


def _try(path: str, memory: int, time_s: float, *, json: bool) -> None:
    from edgekit.device.trial import try_model

    trial = try_model(path, memory_bytes=memory * 1_000_000, time_s=time_s)
    if json:
        show.data(trial.to_dict())
        return
    show.facts(path, {key: _short(value) for key, value in trial.about.items()})
    ran = trial.note if trial.outputs is None else ", ".join(f"{name} {text}" for name, text in trial.outputs.items())
    kept = "all limits held" if not trial.missing else f"this system keeps no limit on {', '.join(trial.missing)}"
    show.facts("tried", {"one run": ran, "memory": format_bytes(trial.peak_bytes), "limits": kept})


def _say(found: Mapping[str, ModelFacts], layers: int, *, json: bool) -> None:
    if json:
        rows = [{"path": name, **each.to_dict()} for name, each in found.items()]
        show.data(rows[0] if len(rows) == 1 else {"models": rows})
    elif len(found) > 1:
        _side_by_side(found)
    else:
        for name, each in found.items():
            _one(name, each, layers)


def _one(name: str, found: ModelFacts, layers: int) -> None:
    show.facts(
        name,
        {
            "inputs": ", ".join(f"{tensor.name} {tensor}" for tensor in found.inputs),
            "outputs": ", ".join(f"{tensor.name} {tensor}" for tensor in found.outputs),
            "open": ", ".join(f"{name} ({', '.join(places)})" for name, places in found.dynamic.items()) or "nothing",
            **_figures(found),
            "counted at": ", ".join(f"{name} {list(shape)}" for name, shape in found.assumed.items()),
            **_origin(found),
        },
    )
    if found.metadata:
        show.facts("metadata", {name: _short(text) for name, text in found.metadata.items()})
    macs = {name: sum(each.macs or 0 for each in found.layers if each.operator == name) for name in found.operators}
    show.table(
        "operators",
        ("operator", "nodes", "MACs", "share"),
        [
            (name, str(count), format_count(macs[name]) if macs[name] else "", _share(macs[name], found.macs))
            for name, count in found.operators.items()
        ],
    )
    if layers:
        _by_size(found, layers)
    if found.unknown:
        show.out.print(f"not counted: {_uncounted(found)}", markup=False)
    for layer in found.computing if 0 < (found.int8_share_of_nodes or 0) < 1 else ():
        if layer.why:
            show.out.print(f"not int8: {layer.name} ({layer.operator}): {layer.why}", markup=False)


def _by_size(found: ModelFacts, layers: int) -> None:
    every = sum(each.weight_bytes for each in found.layers)
    # Nodes that read a scale or a shape alone are no layers to people.
    largest = sorted((each for each in found.layers if each.parameters), key=lambda each: -each.weight_bytes)
    show.table(
        f"layers by size: {min(layers, len(largest))} of {len(largest)}",
        ("layer", "operator", "weights", "share", "parameters", "MACs", "computes in"),
        [
            (
                each.name,
                each.operator,
                format_bytes(each.weight_bytes),
                _share(each.weight_bytes, every),
                format_count(each.parameters),
                "?" if each.macs is None else format_count(each.macs) if each.macs else "",
                each.precision,
            )
            for each in largest[:layers]
        ],
    )


def _figures(found: ModelFacts) -> dict[str, str]:
    share, nodes = found.int8_share_of_macs, found.int8_share_of_nodes
    weights = ", ".join(f"{name} {format_bytes(size)}" for name, size in found.weight_bytes.items())
    unknown = f", without {len(found.unknown)} nodes that cannot be counted" if found.unknown else ""
    return {
        "size": format_bytes(found.size_bytes) if found.size_bytes else "",
        "weights": weights or "none",
        "parameters": format_count(found.parameters),
        "MACs": f"{format_count(found.macs)}{unknown}",
        "int8": "nothing is multiplied"
        if nodes is None
        else f"{share or 0:.1%} of the MACs, {nodes:.1%} of the {len(found.computing)} nodes that multiply",
        "nodes": str(found.nodes),
    }


def _origin(found: ModelFacts) -> dict[str, str]:
    external = {name: "missing" if size is None else format_bytes(size) for name, size in found.external.items()}
    rows = {
        "opset": ", ".join(f"{name} {version}" for name, version in found.opsets.items()),
        "IR version": str(found.ir_version or ""),
        "producer": found.producer,
        "external": ", ".join(f"{name} ({size})" for name, size in external.items()),
        "SHA-256": found.sha256,
    }
    return {name: text for name, text in rows.items() if text}


def _side_by_side(models: Mapping[str, ModelFacts]) -> None:
    columns = [
        {
            **_figures(each),
            **{f"{name} nodes": str(count) for name, count in each.operators.items()},
            **{f"{name} weights": format_bytes(size) for name, size in each.weight_bytes.items()},
        }
        for each in models.values()
    ]
    names = dict.fromkeys(name for column in columns for name in column)
    show.table(
        "side by side",
        ("what", *models),
        [(name, *(column.get(name, "") for column in columns)) for name in names if name != "weights"],
    )


def _uncounted(found: ModelFacts) -> str:
    without = ", ".join(f"{len(nodes)} {name} (no rule)" for name, nodes in found.uncounted.items())
    names = {layer.operator for layer in found.unknown} - set(found.uncounted)
    sizes_lack = f"{', '.join(sorted(names))} (open sizes: give them with --shape)" if names else ""
    return ", ".join(filter(None, (without, sizes_lack)))


def _reasons(path: Path, name: str) -> dict[str, str]:
    """Why nodes are not int8, out of the result of `edgekit quantize --json`: of the file of that name, or the only."""
    try:
        files = json_module.loads(path.read_text())["files"]
        rows = next((row for row in files if row["path"] == name), files[0])
        return {str(node["name"]): str(node["reason"]) for node in rows["nodes"] if node["reason"]}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise EdgekitError(
            "no nodes with reasons in it",
            where=str(path),
            rule="what `edgekit quantize --json` prints",
            way_out="edgekit quantize … --json > plan.json",
        ) from error


def _onnx_file(path: str) -> Path:
    file = Path(path)
    if file.suffix != ".onnx" or not file.is_file():
        raise EdgekitError(
            f"got {path}", where="--netron", rule="an ONNX file", way_out="name the file; of a bundle, one inside of it"
        )
    return file


def _open_netron(path: Path) -> None:
    try:
        import netron
    except ModuleNotFoundError as error:
        raise EdgekitError(
            "Netron is not installed", where="--netron", rule="the package netron", way_out="pip install netron"
        ) from error
    netron.start(str(path))
    netron.wait()


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if part and whole else ""


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json_module.dumps(value, default=str)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
