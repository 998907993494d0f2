"""Trained models by name, from the libraries that users have them in: `timm:NAME`, `torchvision:NAME`, `hf:PATH`.

Beside these a function of the user's, `file.py:function`. The model is taken as it is; what the library knows of it
(preprocessing, names of classes, tokenizer) comes along.
"""

from __future__ import annotations

from pathlib import Path

from edgekit.errors import WorkloadError
from edgekit.workload.models.source import ModelSource
from edgekit.workload.references import load_callable
from edgekit.workload.weights import with_weights

__all__ = ["MODEL_RULE", "ModelSource", "is_library", "load_model"]

MODEL_RULE = "file.py:function, package.module:function, timm:NAME, torchvision:NAME or hf:PATH"


def is_library(reference: str) -> bool:
    """Whether a reference names a model of a library, and no function.

    >>> is_library("timm:resnet18"), is_library("net.py:model")
    (True, False)
    """
    return reference.partition(":")[0] in ("timm", "torchvision", "hf") and ":" in reference


def load_model(reference: str, *, weights: Path | None = None, trusted: Path | None = None) -> ModelSource:
    """What `reference` names, with a factory of the model; no weights are read before the factory is called.

    Args:
        reference: a function that returns an `nn.Module`, or `timm:NAME`, `torchvision:NAME`, `hf:PATH`.
        weights: a file with the state dict; for hf they are in the folder.
        trusted: the file of weights that may be a Python pickle, which can run any code.

    Raises:
        WorkloadError: the function or the name does not exist, or a library is missing.

    >>> load_model("collections:OrderedDict").factory()
    OrderedDict()
    """
    kind = reference.partition(":")[0]
    if kind == "timm":
        from edgekit.workload.models.from_timm import from_timm

        return from_timm(reference, weights, trusted=trusted)
    if kind == "torchvision":
        from edgekit.workload.models.from_torchvision import from_torchvision

        return from_torchvision(reference, weights, trusted=trusted)
    if kind == "hf":
        if weights is not None:
            raise WorkloadError(
                f"weights for {reference}",
                where=f"weights = {weights}",
                rule="not for hf:PATH",
                way_out="it has its weights in its folder",
            )
        from edgekit.workload.models.from_hf import from_hf

        return from_hf(reference, trusted=trusted)
    factory = load_callable(reference)
    return ModelSource(factory=factory if weights is None else with_weights(factory, weights, trusted))
