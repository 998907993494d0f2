"""Options that several commands share, and how they become a workload."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DATA = "What to ask, and what to answer with"
LIMITS = "Budget"
HOW = "How it goes about it"

Model = Annotated[
    str | None,
    typer.Argument(
        help="The trained model: path/to/file.py:function or package.module:function; the function returns an nn.Module. "
        "May stand in edgekit.toml instead.",
        show_default=False,
    ),
]
Train = Annotated[
    str | None,
    typer.Option(
        help="Training data: a function that returns a Dataset or DataLoader (file.py:function), an ImageFolder "
        "directory or zip, or an .npz.",
        rich_help_panel=DATA,
    ),
]
Test = Annotated[str | None, typer.Option(help="Test data, given like --train.", rich_help_panel=DATA)]
Selection = Annotated[
    str | None,
    typer.Option(
        help="Data that decisions may look at, given like --train. Without it, half of the test data (at most 5,000 "
        "samples) are set aside: the model has already seen its train data.",
        rich_help_panel=DATA,
    ),
]
TaskName = Annotated[
    str | None,
    typer.Option("--task", help="classification, multilabel, regression or reconstruction.", rich_help_panel=DATA),
]
ImageSize = Annotated[
    str | None, typer.Option(help="Size of images as the model takes them, e.g. 224 or 32x48.", rich_help_panel=DATA)
]
Mean = Annotated[
    str | None, typer.Option(help="Mean of each channel in [0, 1], e.g. 0.485,0.456,0.406.", rich_help_panel=DATA)
]
Std = Annotated[str | None, typer.Option(help="Standard deviation of each channel.", rich_help_panel=DATA)]
Labels = Annotated[
    str | None,
    typer.Option(help="Names of the classes: a text file with one a line, or a,b,c.", rich_help_panel=DATA),
]
LimitTrain = Annotated[int | None, typer.Option(help="Use at most so many training samples.", rich_help_panel=DATA)]
LimitTest = Annotated[int | None, typer.Option(help="Use at most so many test samples.", rich_help_panel=DATA)]
Config = Annotated[
    Path | None,
    typer.Option(help="An edgekit.toml; the one in this folder is read if there is one. `edgekit init` writes one."),
]
Seed = Annotated[int, typer.Option(help="Seed of every random choice.", rich_help_panel=HOW)]
Threads = Annotated[int, typer.Option(help="Threads of ONNX Runtime in every measurement.", rich_help_panel=HOW)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the results.")]
Provider = Annotated[
    str, typer.Option(help="Execution providers to validate on: cpu, cuda or cpu,cuda.", rich_help_panel=HOW)
]
Target = Annotated[
    str,
    typer.Option("--device", help="What the int8 file is for: x86-vnni, x86-avx2 or arm64.", rich_help_panel=HOW),
]
