"""Models of torchvision: `torchvision:resnet18`, `torchvision:resnet50?pretrained=IMAGENET1K_V2`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekit.data import split_options
from edgekit.data.reference import asking, yes
from edgekit.errors import WorkloadError, did_you_mean
from edgekit.workload.models.images import image_preprocessing
from edgekit.workload.models.optional import optional
from edgekit.workload.models.source import ModelSource
from edgekit.workload.weights import classes_in, fill, read_weights

OPTIONS = ("pretrained", "download", "classes")


def from_torchvision(reference: str, weights: Path | None = None, *, trusted: Path | None = None) -> ModelSource:
    """A classification model of torchvision, with the transforms and the classes of its weights.

    Weights come from `weights` (with as many classes as that file has), or from torch's cache; `download=yes` fetches
    them, `pretrained` names others than the default or says `no` for random ones.

    Raises:
        WorkloadError: torchvision cannot be imported, the name is unknown, or the weights are nowhere.
    """
    target, options = split_options(reference, OPTIONS)
    name = target.partition(":")[2]
    models = optional("torchvision", where=reference, extra="torchvision").models
    known = models.list_models(module=models)
    if name not in known:
        raise WorkloadError(
            f"torchvision has no classification model {name!r}",
            where=reference,
            rule="a name of torchvision.models.list_models(module=torchvision.models)",
            way_out=did_you_mean(name, known, f"such as {', '.join(known[:3])}"),
        )
    kinds = models.get_model_weights(name)
    asked = options.get("pretrained", "DEFAULT")
    if asked != "no" and asked not in ("DEFAULT", "yes", *kinds.__members__):
        raise WorkloadError(
            f"{name} has no weights {asked!r}",
            where=reference,
            rule=f"one of {', '.join(kinds.__members__)}, or no",
            way_out=did_you_mean(asked, kinds.__members__),
        )
    kind = getattr(kinds, asked if asked in kinds.__members__ else "DEFAULT")
    trained = kind if asked != "no" and weights is None else None
    return ModelSource(
        factory=_factory(models, name, trained, options, reference=reference, weights=weights, trusted=trusted),
        preprocessing=_preprocessing(kind, reference),
        labels=tuple(kind.meta.get("categories", ())) if trained is not None else (),
    )


def _factory(
    models: Any,
    name: str,
    kind: Any,
    options: dict[str, str],
    *,
    reference: str,
    weights: Path | None,
    trusted: Path | None,
) -> partial[nn.Module]:
    if weights is not None:
        return partial(_filled, models, name, weights, trusted=trusted)
    count = options.get("classes")
    if count is not None and (kind is not None or not count.isdigit() or not int(count)):
        raise WorkloadError(f"classes is {count!r}", where=reference, rule="a positive number, with pretrained=no")
    if kind is None:
        return partial(models.get_model, name, weights=None, **({} if count is None else {"num_classes": int(count)}))
    file = Path(torch.hub.get_dir()) / "checkpoints" / kind.url.rpartition("/")[2]
    if not file.is_file() and not yes(options, "download", reference):
        raise WorkloadError(
            f"the weights of {name} are not on this machine",
            where=reference,
            rule="a file (--weights), or torch's cache; nothing is downloaded unless you ask",
            way_out=f"{asking(reference)}, --weights FILE, or pretrained=no for random ones",
        )
    return partial(models.get_model, name, weights=kind)


def _filled(models: Any, name: str, path: Path, *, trusted: Path | None) -> nn.Module:
    weights = read_weights(path, trusted)
    with torch.device("meta"):
        bare = models.get_model(name, weights=None)
    classifier = [layer for layer, module in bare.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    count = classes_in(weights, classifier)
    model: nn.Module = models.get_model(name, weights=None, **({} if count is None else {"num_classes": count}))
    return fill(model, weights, str(path))


def _preprocessing(kind: Any, reference: str) -> Any:
    transforms = kind.transforms()
    side, crop = transforms.resize_size[0], transforms.crop_size[0]
    return image_preprocessing(
        size=(crop, crop),
        shorter_side=side,
        interpolation=transforms.interpolation.value,
        mean=transforms.mean,
        std=transforms.std,
        where=reference,
    )
