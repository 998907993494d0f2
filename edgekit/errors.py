"""Errors that say the value, the rule, the place and the way out.

The library raises, only `edgekit.cli` prints and exits. Every error a user can cause is an `EdgekitError`; anything
else that escapes is a defect of edgekit and is shown as such.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class EdgekitError(Exception):
    r"""A fault the user can mend.

    Args:
        problem: what was found, with the offending value.
        where: the place: a file, a key, an argument, a node.
        rule: what would have been right.
        way_out: what to do now; a command where there is one.

    >>> str(EdgekitError("grid is 0", where="--grid", rule="a positive multiple of 8", way_out="try --grid 16"))
    'grid is 0\n  where: --grid\n  rule: a positive multiple of 8\n  way out: try --grid 16'
    """

    exit_code: ClassVar[int] = 4

    def __init__(self, problem: str, *, where: str = "", rule: str = "", way_out: str = "") -> None:
        self.problem, self.where, self.rule, self.way_out = problem, where, rule, way_out
        super().__init__(problem)

    def __str__(self) -> str:
        parts = (("where", self.where), ("rule", self.rule), ("way out", self.way_out))
        return "\n  ".join([self.problem, *(f"{name}: {text}" for name, text in parts if text)])


def did_you_mean(given: object, known: Iterable[object], otherwise: str = "") -> str:
    """The way out of a name that there is not: the nearest one that there is, or `otherwise` if none comes near.

    >>> did_you_mean("x86-vni", ["x86-vnni", "x86-avx2", "arm64"])
    'did you mean x86-vnni?'
    >>> did_you_mean("z80", ["x86-vnni", "x86-avx2", "arm64"], "leave it out")
    'leave it out'
    """
    from difflib import get_close_matches

    # Of three letters two may not be alike by chance: a tpu is no cpu.
    near = get_close_matches(str(given), list(map(str, known)), n=1, cutoff=0.7)
    return f"did you mean {near[0]}?" if near else otherwise


class WorkloadError(EdgekitError):
    """The model, the data or the task cannot be taken as given."""


class DataError(WorkloadError):
    """The data are missing, too few, or not what the task needs."""


class PruneError(EdgekitError):
    """A pruning plan does not fit the model, or its proof failed."""


class TrainingError(EdgekitError):
    """Training cannot start or has diverged."""


class ExportError(EdgekitError):
    """No exporter gave an ONNX file that agrees with the PyTorch model."""


class QuantizeError(EdgekitError):
    """The model cannot be quantized as asked."""


class ProviderError(EdgekitError):
    """An execution provider is unknown, absent, or did not run the model."""


class UnreachableError(EdgekitError):
    """Another machine cannot be reached, or what runs there has failed."""


class BundleError(EdgekitError):
    """A bundle is not whole, not ours, or not safe to load."""


class StoreError(EdgekitError):
    """A file cannot be written or read where it should be."""
