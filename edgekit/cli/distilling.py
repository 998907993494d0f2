"""`edgekit distill`: one network learns from others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic as clock
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgekit.cli import completing, show
from edgekit.cli.options import HOW, AsJson, Augment, LearningRate, OptimizerName
from edgekit.cli.stages import IMPORTANCE_SAMPLES, say_model
from edgekit.errors import EdgekitError
from edgekit.store import file_sha256, write_json, writing
from edgekit.units import parse_duration_s

if TYPE_CHECKING:
    from torch import nn

    from edgekit.distill import DistillConfig, Teacher
    from edgekit.prune import PrunePlan
    from edgekit.training import Augmentation
    from edgekit.workload import Workload, WorkloadConfig

LEAST_S = 1.0
"""Left for the training where asking the teachers took all the time."""
WHO = "Student and teachers"
LOSSES = "What the student learns"


def distill(
    config: WorkloadConfig,
    pruned: Annotated[
        Path | None,
        typer.Option("--pruned", help="Folder that `edgekit prune` wrote: the student.", rich_help_panel=WHO),
    ] = None,
    student: Annotated[
        str | None,
        typer.Option(
            help="A function (file.py:function) that makes the student: any network with the same inputs and classes. "
            "Without --student and --pruned, MODEL is the student and --teacher names who teaches.",
            autocompletion=completing.functions,
            rich_help_panel=WHO,
        ),
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help="Who teaches: file.py:function, or an ONNX file, which runs in ONNX Runtime. May be given several "
            "times: their probabilities are averaged. Without it MODEL teaches.",
            autocompletion=completing.functions,
            rich_help_panel=WHO,
        ),
    ] = None,
    teacher_weights: Annotated[
        Literal["equal", "accuracy"],
        typer.Option(
            help="Of several teachers in the average: by accuracy on the selection split.", rich_help_panel=WHO
        ),
    ] = "equal",
    unlabelled: Annotated[
        str | None,
        typer.Option(
            help="More data, given like --train, of which the teachers' answers are learned; labels in it are ignored.",
            autocompletion=completing.functions,
            rich_help_panel=WHO,
        ),
    ] = None,
    loss: Annotated[
        Literal["kd", "dkd"],
        typer.Option(
            help="kd: the divergence of the answers (Hinton 2015); dkd: what is said of the right class and of the "
            "others, weighed by themselves (Zhao 2022).",
            rich_help_panel=LOSSES,
        ),
    ] = "kd",
    standardize: Annotated[
        bool,
        typer.Option(
            "--standardize",
            help="Give the logits of both mean 0 and deviation 1 first (Sun 2024): for a student much smaller than its "
            "teacher. Goes with --temperature 2 and a --soft of several.",
            rich_help_panel=LOSSES,
        ),
    ] = False,
    temperature: Annotated[float, typer.Option(help="Softens teacher and student.", rich_help_panel=LOSSES)] = 4.0,
    hard: Annotated[
        float, typer.Option(help="Weight of the loss on the labels; 0 ignores them.", rich_help_panel=LOSSES)
    ] = 0.3,
    soft: Annotated[
        float, typer.Option(help="Weight of the divergence from the teacher.", rich_help_panel=LOSSES)
    ] = 0.7,
    feature: Annotated[
        float,
        typer.Option(
            help="Weight of the distance between layers, with learned 1x1 projections where widths differ (FitNets).",
            rich_help_panel=LOSSES,
        ),
    ] = 0.0,
    attention: Annotated[
        float, typer.Option(help="Weight of the distance between attention maps of layers.", rich_help_panel=LOSSES)
    ] = 0.0,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            help="Layers that --feature and --attention compare, as STUDENT=TEACHER; may be given several times. "
            "Without it they are paired by relative depth and spatial size.",
            rich_help_panel=LOSSES,
        ),
    ] = None,
    epochs: Annotated[float, typer.Option(help="Passes over the training data.")] = 8.0,
    time: Annotated[str | None, typer.Option(help="Stop in time: 90s, 15m. The schedule is fitted into it.")] = None,
    optimizer: OptimizerName = "auto",
    learning_rate: LearningRate = None,
    batch_size: Annotated[int, typer.Option(help="Samples a step.", rich_help_panel=HOW)] = 128,
    augment: Augment = "auto",
    cache_mb: Annotated[
        int,
        typer.Option(
            min=0,
            help="Where data come out alike every time, teachers answer each sample once; their answers are kept on "
            "disk, up to this size. 0: ask again each time.",
            rich_help_panel=HOW,
        ),
    ] = 1024,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the student's weights (and its plan, if it is pruned).")
    ] = Path("distilled"),
    json: AsJson = False,
) -> None:
    """Train one network to answer as others do: a pruned one with the original as its teacher, or any student.

    Killed and started again, it goes on from its checkpoint. Of a student that is not pruned, OUT/model.py:model is the
    trained network for every other command.

    Example: edgekit distill net.py:model --train net.py:train_data --test net.py:test_data --pruned pruned
    && edgekit distill net.py:small --teacher big.onnx --train net.py:train_data --test net.py:test_data --loss dkd
    """
    from edgekit.distill import DistillConfig, Remembering
    from edgekit.distill import distill as recover
    from edgekit.training import FitConfig, augmentation_for, suited
    from edgekit.workload import load_workload

    seconds = None if time is None else parse_duration_s(time, "--time")
    workload = load_workload(config)
    taught = _student(workload, config, pruned, student, taught=bool(teacher))
    chosen, rate = suited(taught.model, optimizer, learning_rate)
    settings = DistillConfig(
        fit=FitConfig(
            epochs=epochs,
            learning_rate=rate,
            optimizer=chosen,
            batch_size=batch_size,
            seed=config.seed,
        ),
        temperature=temperature,
        hard=hard,
        soft=soft,
        loss=loss,
        standardize=standardize,
        feature=feature,
        attention=attention,
        feature_layers=() if not (feature or attention) else tuple(layers or ()) or "auto",
    )
    kind = augmentation_for(augment, workload.splits.train, task=workload.task, model=taught.model, seed=config.seed)
    asked = [_asked(name, workload) for name in teacher or [config.model]]
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)  # What cannot be written is found before the training.
    with show.progress(quiet=json) as progress:
        scores = [each.score(workload, progress) for each in asked] if pruned is None else []
        weights = [score["metric"]["value"] for score in scores] if teacher_weights == "accuracy" else []
        checkpoint = out.with_name(f".{out.name}.checkpoint")
        train = _with_unlabelled(workload, unlabelled, taught.model, kind)
        with _remembered(asked, train, taught.model, settings, cache_mb, out) as teachers:
            begin = clock()
            for each in teachers:
                if isinstance(each, Remembering):
                    each.ask(train, taught.model, progress=progress)
            left_s = None if seconds is None else max(seconds - (clock() - begin), LEAST_S)
            result = recover(
                taught.model,
                teachers,
                train,
                workload.task,
                settings,
                teacher_weights=weights if len(asked) > 1 else [],
                checkpoint=checkpoint,
                about={"answers": [each.digest for each in asked], "augment": kind},
                deadline_s=left_s,
                progress=progress,
            )
    if taught.plan is not None:
        from edgekit.prune import save

        save(out, taught.plan, result.model)
    else:
        from edgekit.transfer import save_network

        save_network(out, result.model, reference=taught.reference)
    fitted = {**result.to_dict(), "augment": kind}
    write_json(out / "fit.json", fitted)
    checkpoint.unlink(missing_ok=True)
    more: dict[str, Any] = {"fit": fitted}
    if taught.plan is None:
        more |= _report(workload, asked, scores, weights, taught.model, result.model, settings, out, json=json)
    say_model(workload, result.model, f"wrote {out}", json=json, **more)


@dataclass(frozen=True, slots=True)
class _Student:
    model: nn.Module
    reference: str
    plan: PrunePlan | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    """A teacher by the name that it has on the command line."""

    name: str
    teacher: Teacher
    digest: str

    def score(self, workload: Workload, progress: Any) -> dict[str, Any]:
        """Its metric on the selection split."""
        from torch import nn

        from edgekit.cli.onnx_files import spec_of
        from edgekit.validate import score, score_torch

        data, task = workload.splits.selection, workload.task
        if isinstance(self.teacher, nn.Module):
            return score_torch(self.teacher, data, task, progress=progress).to_dict()
        path = Path(self.name)
        return score(path, data, task, spec=spec_of(path), signature=workload.model(), progress=progress).to_dict()


def _student(
    workload: Workload, config: WorkloadConfig, pruned: Path | None, student: str | None, *, taught: bool
) -> _Student:
    from edgekit.distill import reestimate_batchnorm
    from edgekit.prune import load_plan, replay
    from edgekit.workload import load_callable, loader, try_out

    if pruned is not None and student is not None:
        raise EdgekitError(
            f"got {pruned} and {student}", where="--pruned, --student", rule="one student", way_out="leave one out"
        )
    if pruned is not None:
        plan, model = load_plan(pruned), replay(workload.factory, pruned)
        batches = list(loader(workload.splits.calibration, 64, model=model, limit=IMPORTANCE_SAMPLES))
        return _Student(reestimate_batchnorm(model, batches), "", plan)
    if student is None and not taught:
        raise EdgekitError(
            "no student",
            where="--student, --pruned, --teacher",
            rule="MODEL teaches a student, or is the student of a teacher",
            way_out="name --student net.py:small, --pruned FOLDER, or --teacher big.onnx",
        )
    if student is None:
        return _Student(workload.model(), config.resolved(config.model))
    own = replace(workload, factory=load_callable(student), model_reference=student)
    try_out(own)
    return _Student(own.model(), replace(config, folder=Path.cwd()).resolved(student))


def _asked(name: str, workload: Workload) -> _Asked:
    from edgekit.cli.onnx_files import spec_of
    from edgekit.transfer import onnx_teacher
    from edgekit.workload import digest_of, load_callable, try_out

    if name.endswith(".onnx"):
        path = Path(name)
        return _Asked(name, onnx_teacher(path, spec_of(path)), file_sha256(path))
    own = workload
    if name != workload.model_reference:
        own = replace(workload, factory=load_callable(name), model_reference=name)
        try_out(own)
    model = own.model()
    return _Asked(name, model, digest_of(model))


def _with_unlabelled(workload: Workload, reference: str | None, model: nn.Module, kind: Augmentation) -> Any:
    """The training data, their images moved by `kind`, and what `reference` names beside them."""
    from edgekit.data.processing import as_image
    from edgekit.distill import Unlabelled
    from edgekit.training import augmented
    from edgekit.workload import load_data, loader

    train = augmented(workload.splits.train, kind)
    if reference is None:
        return train
    if workload.task.name != "classification":
        raise EdgekitError(f"the task is {workload.task.name}", where="--unlabelled", rule="only for classification")
    extra = load_data(reference, image=as_image(workload.preprocessing))
    bare = next(iter(loader(extra, 1, model=model))).target is None
    return Unlabelled(train, augmented(extra, kind), bare=bare)


@contextmanager
def _remembered(
    asked: Sequence[_Asked], train: Any, student: nn.Module, settings: DistillConfig, cache_mb: int, out: Path
) -> Iterator[list[Teacher]]:
    """The teachers, each of which answers a sample once where samples come out alike; the files go afterwards."""
    from edgekit.distill import Remembering
    from edgekit.training import is_fixed

    folder = out.with_name(f".{out.name}.answers")
    fixed = cache_mb > 0 and is_fixed(train, student)
    teachers: list[Teacher] = []
    for index, each in enumerate(asked):
        # Layers are compared batch by batch.
        heard = index == 0 and bool(settings.feature_layers)
        if not fixed or heard:
            teachers.append(each.teacher)
            continue
        limit = cache_mb * 1_000_000 // len(asked)
        teachers.append(Remembering(each.teacher, folder / f"{each.digest[:16]}.bin", limit_bytes=limit))
    yield teachers
    for path in folder.glob("*.bin"):
        path.unlink()
    if folder.is_dir():
        folder.rmdir()


def _report(
    workload: Workload,
    asked: Sequence[_Asked],
    scores: Sequence[dict[str, Any]],
    weights: Sequence[float],
    before: nn.Module,
    after: nn.Module,
    settings: DistillConfig,
    out: Path,
    *,
    json: bool,
) -> dict[str, Any]:
    """Write and print what teachers and student score."""
    from edgekit.validate import score_torch

    splits, task = workload.splits, workload.task
    total = sum(weights) or len(asked)
    teachers = [
        {"name": each.name, "share": (weights[index] if weights else 1) / total, "selection": scores[index]}
        for index, each in enumerate(asked)
    ]
    student = {
        "before": score_torch(before, splits.selection, task).to_dict(),
        "selection": score_torch(after, splits.selection, task).to_dict(),
        "test": score_torch(after, splits.test, task).to_dict(),
    }
    report = {"settings": settings.to_dict(), "teachers": teachers, "student": student}
    write_json(out / "report.json", report)
    if not json:
        rows = [
            *((f"teacher {each['name']}", _metric(each["selection"]), "") for each in teachers),
            ("student before", _metric(student["before"]), ""),
            ("student", _metric(student["selection"]), _metric(student["test"])),
        ]
        show.table(task.metric, ("network", "selection", "test"), rows)
    return report


def _metric(score: Any) -> str:
    metric = score["metric"]
    return f"{metric['value']:.2f} [{metric['low']:.2f}, {metric['high']:.2f}]"
