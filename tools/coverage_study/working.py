"""The work of one process; importing this loads what all of them need."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import onnxscript
import torch
from coverage_study.building import load_packages
from coverage_study.catalogue import Subject
from coverage_study.processes import limit
from coverage_study.stages import study

load_packages()
torch.set_num_threads(1)
del onnxscript


def work(subject: Subject, path: Path, seconds: int, memory: int) -> None:
    """Study one network within limits; whatever is said on the way is not shown."""
    limit(seconds, memory)
    torch.set_num_threads(1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)
    os.dup2(quiet, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study(subject, path)
