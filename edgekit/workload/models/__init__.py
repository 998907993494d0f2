"""Trained models by name, from the libraries that users have them in: `timm:NAME`, `torchvision:NAME`, `hf:PATH`.

Beside these a function of the user's, `file.py:function`. The model is taken as it is; what the library knows of it
(preprocessing, names of classes, tokenizer) comes along.
"""

from __future__ import annotations

from edgekit.errors import WorkloadError
from edgekit.workload.models.source import ModelSource
from edgekit.workload.references import load_callable

__all__ = ["MODEL_RULE", "ModelSource", "is_library", "load_model"]

MODEL_RULE = "file.py:function, package.module:function, timm:NAME, torchvision:NAME or hf:PATH"


def is_library(reference: str) -> bool:
    """Whether a reference names a model of a library, and no function.

    >>> is_library("timm:resnet18"), is_library("net.py:model")
    (True, False)
    """
    return reference.partition(":")[0] in ("timm", "torchvision", "hf") and ":" in reference


def load_model(reference: str, *, weights: str | None = None, trust_pickle: bool = False) -> ModelSource:
    """What `reference` names, with a factory of the model; no weights are read before the factory is called.

    Args:
        reference: a function that returns an `nn.Module`, or `timm:NAME`, `torchvision:NAME`, `hf:PATH`.
        weights: a file with the state dict, for timm and torchvision.
        trust_pickle: whether weights may be read that are Python pickles, which can run any code.

    Raises:
        WorkloadError: the function or the name does not exist, or a library is missing.

    >>> load_model("collections:OrderedDict").factory()
    OrderedDict()
    """
    kind = reference.partition(":")[0]
    if kind == "timm":
        from edgekit.workload.models.from_timm import from_timm

        return from_timm(reference, weights, trust_pickle=trust_pickle)
    if kind == "torchvision":
        from edgekit.workload.models.from_torchvision import from_torchvision

        return from_torchvision(reference, weights, trust_pickle=trust_pickle)
    if weights is not None:
        raise WorkloadError(
            f"weights for {reference}",
            where=f"weights = {weights}",
            rule="only for timm:NAME and torchvision:NAME",
            way_out="hf:PATH has its weights in its folder" if kind == "hf" else "load them in the function",
        )
    if kind == "hf":
        from edgekit.workload.models.from_hf import from_hf

        return from_hf(reference, trust_pickle=trust_pickle)
    return ModelSource(factory=load_callable(reference))
