"""Options that several commands share, and how they become a workload."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgekit.cli import completing
from edgekit.errors import EdgekitError, WorkloadError

if TYPE_CHECKING:  # It needs torch, and --help need not wait for it.
    from edgekit.cli.onnx_jobs import OnnxJob
    from edgekit.workload import WorkloadConfig

WHAT = "The model, its data and its task"
LIMITS = "Budget"
HOW = "How it goes about it"
CONFIG_NAME = "edgekit.toml"
RUNS = Path("edgekit-runs")

Seed = Annotated[int | None, typer.Option(help="Seed of every random choice.  \\[default: 0]", rich_help_panel=HOW)]
Threads = Annotated[int, typer.Option(min=1, help="Threads of ONNX Runtime in every measurement.", rich_help_panel=HOW)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Provider = Annotated[
    str,
    typer.Option(
        help="Execution providers to validate on: cpu, cuda or cpu,cuda.",
        autocompletion=completing.providers,
        rich_help_panel=HOW,
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        help="Peak learning rate of a training (0.06 with sgd, 0.001 with adamw by default).", rich_help_panel=HOW
    ),
]
OptimizerName = Annotated[
    Literal["auto", "sgd", "adamw"],
    typer.Option(
        help="Of a training. auto: sgd for convolutions with BatchNorm, adamw for Transformers, recurrent and all "
        "other networks.",
        rich_help_panel=HOW,
    ),
]
Augment = Annotated[
    Literal["auto", "none", "shift", "mirror"],
    typer.Option(
        help="Of training images. shift: move them by up to an eighth; mirror: mirror them as well (no digits, no "
        "text); auto: shift pictures with a label, unless the data augment themselves.",
        rich_help_panel=HOW,
    ),
]
Importance = Annotated[
    Literal["taylor", "bn-scale", "l1", "l2"], typer.Option(help="How channels are ranked.", rich_help_panel=HOW)
]
PlacementBy = Annotated[
    Literal["measured", "rules"],
    typer.Option(
        help="rules: int8 wherever a kernel fuses, the same file on any machine; measured: the regions that the "
        "profile predicts to be cheapest are timed beside that, where this machine is of the target's kind, and the "
        "fastest file is kept.",
        rich_help_panel=HOW,
    ),
]
Ranges = Annotated[
    Literal["mse", "minmax", "percentile", "entropy"],
    typer.Option(help="How int8 ranges are chosen.", rich_help_panel=HOW),
]


def workload_config(
    model: Annotated[
        str | None,
        typer.Argument(
            help="The trained model (search: untrained): a function that returns an nn.Module "
            "(path/to/file.py:function or package.module:function), or a model of a library: timm:resnet18.a1_in1k, "
            f"torchvision:resnet50, hf:FOLDER (transformers). May stand in {CONFIG_NAME} instead.",
            show_default=False,
            autocompletion=completing.models,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Weights for the model, where its function does not load them, and for timm:NAME and torchvision:NAME "
            "(they then say how many classes there are): .safetensors, or a state dict of torch.save. Nothing in the "
            "file is run.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    trust_pickle: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="The file of --weights, named once more: it may run any code while it is read. Only for files that "
            "you made yourself.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            help="Training data: a function that returns a Dataset or DataLoader (file.py:function), an ImageFolder "
            "directory or zip, an .npz, a table (data.csv?label=species), WebDataset shards (shards-{000..009}.tar), "
            "datasets of Hugging Face (hf:FOLDER?split=train) or torchvision (torchvision:CIFAR10?root=data).",
            autocompletion=completing.data,
            rich_help_panel=WHAT,
        ),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(
            help="Data that the model has never seen, given like --train.",
            autocompletion=completing.data,
            rich_help_panel=WHAT,
        ),
    ] = None,
    selection: Annotated[
        str | None,
        typer.Option(
            help="Data that decisions may look at, given like --train. Without it half of test (at most 5,000 samples) "
            "is set aside, since a trained model has already seen its train data.",
            autocompletion=completing.data,
            rich_help_panel=WHAT,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="classification (the default), multilabel, regression, reconstruction, imitation (no labels: the "
            "original is the reference), or file.py:function that returns an edgekit.tasks.Task.",
            autocompletion=completing.tasks,
            rich_help_panel=WHAT,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Names of the classes: a text file with one a line, or a,b,c.", rich_help_panel=WHAT),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            help="Height and width of images as the model takes them: 224 or 32x48.  \\[default: what timm, "
            "torchvision or transformers say of their model]",
            rich_help_panel=WHAT,
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(help="Mean of each channel in [0, 1], such as 0.485,0.456,0.406.", rich_help_panel=WHAT),
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="Standard deviation of each channel, likewise.", rich_help_panel=WHAT)
    ] = None,
    preprocessing: Annotated[
        str | None,
        typer.Option(
            help="What happens to raw input, where --image-size, --mean and --std do not say it all: a JSON file with "
            'the bundle\'s object, such as {"kind": "image", "size": [640, 640], "fit": "letterbox", "pad": 114}. '
            "Kinds: image, log_mel, waveform, wordpiece; what is left out has its default.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    postprocessing: Annotated[
        str | None,
        typer.Option(
            help="What becomes of the outputs, likewise. Kinds: classification, detection, text.", rich_help_panel=WHAT
        ),
    ] = None,
    vocabulary: Annotated[
        str | None,
        typer.Option(
            help="For the kinds wordpiece and text: a text file with one token a line, whose number is its id.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    dynamic: Annotated[
        list[str] | None,
        typer.Option(
            help="A dimension that stays open beside the batch, as INPUT:AXIS=NAME such as tokens:1=time; may be given "
            "several times.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    limit_train: Annotated[
        int | None, typer.Option(help="Use at most so many training samples.", rich_help_panel=WHAT)
    ] = None,
    limit_test: Annotated[
        int | None, typer.Option(help="Use at most so many test samples.", rich_help_panel=WHAT)
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model in folders and reports.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help=f"A file with these entries; without a MODEL, {CONFIG_NAME} in this folder is read if it is there. "
            "`edgekit init` writes a commented one.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    seed: Seed = None,
) -> WorkloadConfig:
    """The workload that the options name, on top of what a configuration file says."""
    from edgekit.workload import config_from, read_config

    given = {
        "model": model,
        "weights": weights,
        "trust_pickle": trust_pickle,
        "train": train,
        "test": test,
        "selection": selection,
        "task": task,
        "labels": _labels(labels),
        "image_size": _size(image_size),
        "mean": _numbers(mean, "--mean"),
        "std": _numbers(std, "--std"),
        "preprocessing": _object(preprocessing, "--preprocessing"),
        "postprocessing": _object(postprocessing, "--postprocessing"),
        "vocabulary": vocabulary,
        "dynamic": tuple(dynamic) if dynamic else None,
        "limit_train": limit_train,
        "limit_test": limit_test,
        "name": name,
        "seed": seed,
    }
    if config is None and model is None and Path(CONFIG_NAME).is_file():
        config = Path(CONFIG_NAME)
    if config is not None:
        return read_config(config, **given)
    if model is None or train is None or test is None:
        missing = [text for text, value in (("MODEL", model), ("--train", train), ("--test", test)) if value is None]
        raise WorkloadError(
            f"not given: {', '.join(missing)}",
            where="command line",
            rule="a trained model, the data it was trained on, and data it has never seen",
            way_out=f"name them, or put them into {CONFIG_NAME} (`edgekit init` writes one)",
        )
    return config_from({key: value for key, value in given.items() if value is not None}, folder=Path.cwd())


def takes_workload(command: Callable[..., Any], *, files: str | None = None) -> Callable[..., Any]:
    """Give `command(config, ...)` the options of `workload_config` in place of its first parameter.

    Where it takes ONNX files in the place of a model, `files` names the option that else holds their data; `config` is
    then an `OnnxJob`, and --data names the data.

    Where the command has the options `point` and `run` and takes a point of a run, the workload is that of the run; the
    latest one where none is named.
    """
    # The workload is no option, so its type may be anything: what it really is need not be loaded for --help.
    unloaded = {"WorkloadConfig": object, "OnnxJob": object}
    shared = dict(inspect.signature(workload_config, eval_str=True, locals=unloaded).parameters)
    _, *own = inspect.signature(command, eval_str=True, locals=unloaded).parameters.values()

    if files is not None:
        shared = {"model": _MODELS, **{key: each for key, each in shared.items() if key != "model"}, "data": _DATA}

    @functools.wraps(command)
    def wrapper(**values: Any) -> Any:
        given = {key: values.pop(key) for key in shared}
        if files is not None:
            data, models = given.pop("data"), given.pop("model") or []
            if any(name.endswith(".onnx") for name in models) or (data is not None and not models):
                return command(_onnx_job(models, values.get("file"), data or given[files], given), **values)
            given["model"] = _only_model(models, data)
            if "file" in values and not values["file"] and values.get("point") is None:
                _no_file(command.__name__, values)
        if values.get("point") is not None:
            from edgekit.search.record import Front

            # A finished run knows what it was made of.
            values["run"] = values["run"] or _latest_run()
            return command(Front.load(values["run"]).workload, **values)
        return command(workload_config(**given), **values)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*shared.values(), *own)]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


def _onnx_job(models: Sequence[str], listed: Any, data: str | None, given: Mapping[str, Any]) -> OnnxJob:
    from edgekit.cli.onnx_jobs import OnnxJob
    from edgekit.data import preprocessing_of
    from edgekit.device.processing import postprocessing_from

    odd = [name for name in ("weights", "config", "dynamic", "selection") if given[name]]
    named = [str(each) for each in ([listed] if isinstance(listed, Path) else listed or ())]
    files = [Path(name.rpartition("=")[2]) for name in models or named]
    if odd or not files or (models and named):
        problem = f"--{odd[0]} beside ONNX files" if odd else f"--file beside {models[0]}" if models else "no file"
        raise EdgekitError(
            problem,
            where="command line",
            rule="ONNX files and --data, or a model with --train and --test",
        )
    before = preprocessing_of(
        None,
        given=_object(given["preprocessing"], "--preprocessing"),
        size=_size(given["image_size"]),
        mean=_numbers(given["mean"], "--mean"),
        std=_numbers(given["std"], "--std"),
    )
    after = _object(given["postprocessing"], "--postprocessing")
    return OnnxJob(
        files=tuple(files),
        data=data,
        task=given["task"] or "classification",
        labels=_labels(given["labels"]) or (),
        preprocessing=before,
        postprocessing=None if after is None else postprocessing_from(after, complete=False),
        vocabulary=None if given["vocabulary"] is None else Path(given["vocabulary"]),
        limit=given["limit_test"],
        seed=given["seed"] or 0,
        name=given["name"] or files[-1].name.partition(".")[0],
    )


def _only_model(models: Sequence[str], data: str | None) -> str | None:
    if len(models) > 1 or data is not None:
        raise EdgekitError(
            f"got {' '.join(models)}" if len(models) > 1 else f"--data {data} beside the model {models[0]}",
            where="command line",
            rule="one model with --train and --test, or ONNX files with --data",
            way_out="name ONNX files by paths that end with .onnx",
        )
    return models[0] if models else None


def _no_file(command: str, values: Mapping[str, Any]) -> None:
    from edgekit.cli.faults import CommandLineError

    if "point" not in values:
        raise CommandLineError(
            "Missing option '--file'",
            where=f"edgekit {command}",
            rule="ONNX files: with --file beside a model, or in its place with --data",
            way_out=f"edgekit {command} model.onnx --data samples.npz. Try 'edgekit {command} -h' for help",
        )


def _latest_run() -> Path:
    from edgekit.search.record import FRONT

    fronts = sorted(RUNS.glob(f"*/{FRONT}"), key=lambda path: path.stat().st_mtime)
    if not fronts:
        raise EdgekitError(
            f"no finished run in {RUNS}", where="--point", rule="a point of a run", way_out="name its folder with --run"
        )
    return fronts[-1].parent


_MODELS = inspect.Parameter(
    "model",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL | FILE.onnx ...]",
            help="The trained model, as for `edgekit compress`; or ONNX files, the first being the baseline, with "
            "--data: then no PyTorch model is needed.",
            show_default=False,
            autocompletion=completing.models,
        ),
    ],
)
_DATA = inspect.Parameter(
    "data",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        str | None,
        typer.Option(
            help="With ONNX files in the place of a model: samples as the files take them, given like --train.",
            autocompletion=completing.data,
            rich_help_panel=WHAT,
        ),
    ],
)


def providers(text: str) -> tuple[str, ...]:
    """`cpu,cuda` as names."""
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not names:
        raise EdgekitError(f"got {text!r}", where="--provider", rule="cpu, cuda or cpu,cuda")
    return names


def _labels(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    path = Path(text)
    if path.suffix == ".txt":
        try:
            return tuple(line.strip() for line in path.read_text().splitlines() if line.strip())
        except (OSError, UnicodeDecodeError) as error:
            raise EdgekitError(
                f"cannot read {path}: {getattr(error, 'strerror', None) or error}",
                where="--labels",
                rule="a text file with one name a line",
            ) from error
    return tuple(part.strip() for part in text.split(","))


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 2 or not all(part.isdigit() for part in parts):
        raise EdgekitError(f"got {text!r}", where="--image-size", rule="a size such as 224, or height x width: 32x48")
    return int(parts[0]), int(parts[-1])


def _numbers(text: str | None, where: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise EdgekitError(f"got {text!r}", where=where, rule="numbers with commas: 0.485,0.456,0.406") from error


def _object(text: str | None, where: str) -> dict[str, Any] | None:
    """A JSON object: what `text` is, or what the file of this name holds."""
    from edgekit.device import strict_json

    if text is None:
        return None
    if text.lstrip().startswith("{"):
        return strict_json.parse(text.encode(), where)
    try:
        data = Path(text).read_bytes()
    except OSError as error:
        raise EdgekitError(
            f"cannot read {text}: {error.strerror}", where=where, rule='a JSON file, or an object such as {"kind": …}'
        ) from error
    return strict_json.parse(data, f"{where} {text}")
