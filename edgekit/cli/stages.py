"""`edgekit prune` and `export`: one stage at a time, from what the last one wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgekit.cli import show
from edgekit.cli.options import HOW, AsJson, Importance
from edgekit.units import format_bytes, format_count

if TYPE_CHECKING:
    from torch import nn

    from edgekit.workload import Workload, WorkloadConfig

Pruned = Annotated[
    Path | None,
    typer.Option(
        "--pruned", help="Folder that `edgekit prune` or `edgekit distill` wrote: plan and weights of a pruned model."
    ),
]
IMPORTANCE_SAMPLES = 512


def prune(
    config: WorkloadConfig,
    keep: Annotated[
        float, typer.Option(help="Share of the channels that stays in each group, or overall with --scope global.")
    ] = 0.5,
    scope: Annotated[
        Literal["uniform", "global"],
        typer.Option(help="uniform: each group alike; global: the least important anywhere."),
    ] = "uniform",
    grid: Annotated[int, typer.Option(help="Widths come out as multiples of this.")] = 16,
    importance: Importance = "taylor",
    drop_block: Annotated[
        list[str] | None,
        typer.Option(
            help="Remove this residual block, sublayer or recurrent layer, as --dry-run names it; may be given several "
            "times."
        ),
    ] = None,
    resolution: Annotated[
        int | None,
        typer.Option(
            metavar="HEIGHT", help="Scale images down to this height (in proportion) before the network sees them."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print what can be pruned, what is frozen and why, and the plan; write nothing."
        ),
    ] = False,
    replay: Annotated[
        Path | None,
        typer.Option(help="Rebuild the model from a folder that was written before, and prove plan and weights again."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for plan and weights.")] = Path("pruned"),
    json: AsJson = False,
) -> None:
    """Remove whole channels, units, heads, blocks and layers, and prove that nothing else changed.

    The pruned model equals the original with the same channels masked, to float tolerance, or it is an error. Accuracy
    comes back with `edgekit distill`.

    Example: edgekit prune net.py:model --train net.py:train_data --test net.py:test_data --keep 0.5 --out pruned
    """
    from edgekit import prune as room
    from edgekit.workload import load_workload, loader

    with show.ticking("loading", 1, quiet=json) as tick:
        workload = load_workload(config)
        model, example = workload.model(), workload.example(2)
        tick()
    if replay is not None:
        plan, rebuilt = room.load_plan(replay), room.replay(workload.factory, replay)
        proof = room.prune(model, example, plan).proof
        if not json:
            show.out.print(f"{plan}\nproof: {proof}", markup=False)
        say_model(workload, rebuilt, f"replayed {replay}", json=json, plan=plan.to_dict(), proof=proof.to_dict())
        return
    with show.ticking("pruning", 3 if dry_run else 4, quiet=json) as tick:
        coupling = room.analyse(model, example)
        tick()
        batches = list(loader(workload.splits.calibration, 64, model=model, limit=IMPORTANCE_SAMPLES))
        ranked = room.importance(model, coupling, method=importance, batches=batches, loss=workload.task.loss)
        tick()
        scaled = room.resolutions(model, example, [] if resolution is None else [resolution])
        plan = room.plan(
            coupling,
            ranked,
            keep=keep,
            scope=scope,
            grid=grid,
            drop_blocks=tuple(drop_block or ()),
            resolution=scaled[0] if scaled else None,
        )
        tick()
        pruned = None if dry_run else room.prune(model, example, plan)
        tick()
    if pruned is None:
        if json:
            show.data({"coupling": coupling.to_dict(), "plan": plan.to_dict()})
        else:
            show.out.print(str(coupling), markup=False)
            show.out.print(str(plan), markup=False)
        return
    room.save(out, plan, pruned.model)
    if not json:
        show.out.print(str(plan), markup=False)
        show.out.print(f"proof: {pruned.proof}", markup=False)
    say_model(workload, pruned.model, f"wrote {out}", json=json, plan=plan.to_dict(), proof=pruned.proof.to_dict())


def export(
    config: WorkloadConfig,
    pruned: Pruned = None,
    opset: Annotated[int, typer.Option(help="Version of the ONNX operator set.", rich_help_panel=HOW)] = 20,
    out: Annotated[Path, typer.Option("--out", "-o", help="The ONNX file to write.")] = Path("model.onnx"),
    json: AsJson = False,
) -> None:
    """Export to fp32 ONNX and prove that ONNX Runtime computes what PyTorch computes.

    Example: edgekit export net.py:model --train net.py:train_data --test net.py:test_data --pruned distilled
    """
    from edgekit.export import export as convert
    from edgekit.workload import load_workload

    workload = load_workload(config)
    model = _model(workload, pruned)
    with show.progress(quiet=json) as progress:
        done = convert(
            model,
            workload.example(2),
            out,
            dynamic=workload.dynamic or "batch",
            opset=opset,
            metadata={"model": workload.model_reference},
            progress=progress,
        )
    if json:
        show.data(done.to_dict())
        return
    show.facts(
        f"wrote {out}",
        {
            "exporter": done.exporter,
            "opset": done.opset,
            "inputs": ", ".join(f"{s.name} {s}" for s in done.spec.inputs),
            "outputs": ", ".join(f"{s.name} {s}" for s in done.spec.outputs),
            "parity": f"largest difference {done.parity.max_abs_diff:.2e} in {done.parity.checks} checks",
            "size": format_bytes(out.stat().st_size),
            "parameters": format_count(done.parameters),
            "MACs": format_count(done.macs),
        },
    )
    for why in done.refused:
        show.out.print(f"refused before: {why}", markup=False)


def _model(workload: Workload, pruned: Path | None) -> nn.Module:
    if pruned is None:
        return workload.model()
    from edgekit.prune import replay

    return replay(workload.factory, pruned)


def say_model(workload: Workload, model: nn.Module, title: str, *, json: bool, **more: Any) -> None:
    """How many parameters and MACs there were and are, and with --json what else there is to say."""
    from edgekit.export import mac_count, parameter_count

    before, example = workload.model(), workload.example(1)
    counts = {
        "parameters": (parameter_count(before), parameter_count(model)),
        "MACs": (mac_count(before, example), mac_count(model, example)),
    }
    if json:
        show.data({**{name: {"before": old, "after": new} for name, (old, new) in counts.items()}, **more})
    else:
        show.facts(title, {name: f"{format_count(old)} -> {format_count(new)}" for name, (old, new) in counts.items()})
