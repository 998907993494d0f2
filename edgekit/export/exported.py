"""What an export leaves: the file, its contract, and the proof that it computes what the PyTorch model computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from edgekit.errors import StoreError
from edgekit.spec import IOSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """The outcome of comparing an ONNX file with its PyTorch model, input by input.

    Args:
        max_abs_diff: the largest absolute difference over all outputs of all checks.
        max_abs_output: the largest absolute output of the PyTorch model, the scale of `max_abs_diff`.
        batches: the batch sizes that were checked.
        seeds: the seeds of the random inputs; the real example was checked besides.
        sizes: the further sizes that were checked of each dynamic dimension other than the batch.
        checks: how many inputs were compared.
    """

    max_abs_diff: float
    max_abs_output: float
    batches: tuple[int, ...]
    seeds: tuple[int, ...]
    sizes: Mapping[str, tuple[int, ...]]
    checks: int

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` takes it back."""
        return {
            "max_abs_diff": self.max_abs_diff,
            "max_abs_output": self.max_abs_output,
            "batches": list(self.batches),
            "seeds": list(self.seeds),
            "sizes": {name: list(sizes) for name, sizes in self.sizes.items()},
            "checks": self.checks,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        return cls(
            max_abs_diff=float(data["max_abs_diff"]),
            max_abs_output=float(data["max_abs_output"]),
            batches=tuple(data["batches"]),
            seeds=tuple(data["seeds"]),
            sizes={name: tuple(sizes) for name, sizes in data["sizes"].items()},
            checks=int(data["checks"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An fp32 ONNX file that passed the parity gate.

    Args:
        path: the file.
        spec: its inputs and outputs; dynamic dimensions are names.
        opset: the version of the ONNX operator set.
        exporter: which exporter made it (`torch.export` or `torchscript`).
        parity: the proof.
        parameters: learnable values of the PyTorch model.
        macs: multiply-accumulates for one sample.
        refused: why exporters that were tried before this one were refused.
    """

    path: Path
    spec: IOSpec
    opset: int
    exporter: str
    parity: Parity
    parameters: int
    macs: int
    refused: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form, to be kept in the folder of the file: the path is its name alone."""
        return {
            "path": self.path.name,
            "spec": self.spec.to_dict(),
            "opset": self.opset,
            "exporter": self.exporter,
            "parity": self.parity.to_dict(),
            "parameters": self.parameters,
            "macs": self.macs,
            "refused": list(self.refused),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], folder: Path) -> Self:
        """Read what `to_dict` wrote; `folder` is where the file lies now.

        Raises:
            StoreError: the record lacks a field, or the file is not in `folder`.
        """
        try:
            exported = cls(
                path=folder / str(data["path"]),
                spec=IOSpec.from_dict(data["spec"], "exported.spec"),
                opset=int(data["opset"]),
                exporter=str(data["exporter"]),
                parity=Parity.from_dict(data["parity"]),
                parameters=int(data["parameters"]),
                macs=int(data["macs"]),
                refused=tuple(data["refused"]),
            )
        except KeyError as error:
            raise StoreError(
                f"the record of an export has no {error}",
                where=str(folder),
                rule="what Exported.to_dict writes",
                way_out="export the model again",
            ) from error
        if not exported.path.is_file():
            raise StoreError(
                f"no file {exported.path.name}",
                where=str(folder),
                rule="the record of an export lies beside its file",
                way_out="export the model again",
            )
        return exported
