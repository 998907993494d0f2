"""`edgekit finetune`: a trained network learns another task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgekit.cli import show
from edgekit.cli.options import HOW, AsJson, Augment
from edgekit.units import format_duration, parse_duration_s

if TYPE_CHECKING:
    from edgekit.workload import WorkloadConfig

EXAMPLE_SAMPLES = 2
"""Held out of the training data: every sample counts where there are few."""


def finetune(
    config: WorkloadConfig,
    method: Annotated[
        Literal["lp-ft", "gradual", "full", "probe"],
        typer.Option(
            help="lp-ft: first the best head for the frozen body (a linear probe), then everything; gradual: after the "
            "head one stage more in each phase, from the last to the first; full: everything at once; probe: the head "
            "alone, in seconds."
        ),
    ] = "lp-ft",
    shots: Annotated[
        int | None,
        typer.Option(
            min=1, help="Learn from so many examples of each class, drawn with --seed; a dozen may be enough."
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            help="Passes over the training data in a phase, at most. Without it 20, or as many as make 300 steps."
        ),
    ] = None,
    time: Annotated[str | None, typer.Option(help="Stop in time: 90s, 15m. The schedules are fitted into it.")] = None,
    head: Annotated[
        str | None,
        typer.Option(
            help="The classifier, as in named_modules(), where it is not the last layer with weights.",
            rich_help_panel=HOW,
        ),
    ] = None,
    keep_head: Annotated[
        bool,
        typer.Option("--keep-head", help="Go on with the head that there is: same classes.", rich_help_panel=HOW),
    ] = False,
    freeze: Annotated[
        int,
        typer.Option(
            min=0, help="Never train so many stages, from the input on; their BatchNorm stays too.", rich_help_panel=HOW
        ),
    ] = 0,
    decay: Annotated[
        float,
        typer.Option(help="A stage learns by this factor more slowly than the one after it.", rich_help_panel=HOW),
    ] = 0.7,
    learning_rate: Annotated[
        float, typer.Option(help="Peak learning rate of the head (AdamW).", rich_help_panel=HOW)
    ] = 1e-3,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples a step.", rich_help_panel=HOW)] = 32,
    patience: Annotated[
        int,
        typer.Option(
            min=1,
            help="End a phase after so many evaluations (20 in a phase) without a better one; the best weights are "
            "kept in any case.",
            rich_help_panel=HOW,
        ),
    ] = 10,
    augment: Augment = "auto",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for weights, model.py and the report.")] = Path(
        "finetuned"
    ),
    json: AsJson = False,
) -> None:
    """Teach a trained network the classes of other data: a new head, then its stages, each at a rate of its own.

    Killed and started again, it goes on and ends with the same weights. The selection split decides when a phase ends
    and which weights stay; test is scored once. OUT/model.py:model is the network for every other command.

    Example: edgekit finetune net.py:model --train birds.npz --test birds-test.npz --shots 12 --out birds
    && edgekit compress birds/model.py:model --train birds.npz --test birds-test.npz
    """
    from edgekit.transfer import FinetuneConfig
    from edgekit.transfer import finetune as run
    from edgekit.transfer.config import LEAST_STEPS, STANDARD
    from edgekit.workload import load_workload
    from edgekit.workload.models import is_library

    # A function's own network may have another head than the file: what does not fit is named, not refused.
    weights = None if config.weights is None or is_library(config.model) else Path(config.resolved(config.weights))
    with show.ticking("loading", 1, quiet=json) as tick:
        loaded = replace(config, calibration_size=EXAMPLE_SAMPLES, weights=None if weights else config.weights)
        workload = load_workload(loaded, tried=False)
        tick()
    settings = FinetuneConfig(
        method=method,
        head=head,
        keep_head=keep_head,
        shots=shots,
        freeze=freeze,
        decay=decay,
        augment=augment,
        fit=replace(
            STANDARD,
            epochs=STANDARD.epochs if epochs is None else epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            patience=patience,
        ),
        least_steps=LEAST_STEPS if epochs is None else 0,
        seed=config.seed,
    )
    with show.progress(quiet=json) as progress:
        done = run(
            workload,
            settings,
            out=out,
            weights=weights,
            reference=config.resolved(config.model),
            time_s=None if time is None else parse_duration_s(time, "--time"),
            progress=progress,
        )
    if json:
        show.data(done.to_dict())
        return
    if done.fitting is not None:
        show.out.print(f"weights: {done.fitting}", markup=False)
    show.table(f"{workload.name}: {done.outputs} classes, {sum(done.counts.values())} samples", done.headers, done.rows)
    test = done.test.metric
    show.facts(
        f"wrote {out}",
        {
            "head": f"{done.head.name}, {done.outputs} outputs",
            f"{done.test.name}": f"{test.value:.2f} [{test.low:.2f}, {test.high:.2f}] on {done.test.n} test samples",
            "stages": ", ".join(
                f"{stage.name}{' (frozen)' if index < done.frozen else ''}" for index, stage in enumerate(done.stages)
            ),
            "time": format_duration(sum(phase.seconds for phase in done.phases)),
        },
    )
    show.out.print(f"next\n  edgekit compress {out / 'model.py'}:model …", markup=False)
