"""Models of timm: `timm:resnet18`, `timm:resnet18.a1_in1k`, `timm:mobilenetv3_small_100?pretrained=no`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from edgekit.data import split_options
from edgekit.data.reference import asking, yes
from edgekit.errors import WorkloadError, did_you_mean
from edgekit.workload.models.images import image_preprocessing, resized_to
from edgekit.workload.models.optional import optional
from edgekit.workload.models.source import ModelSource
from edgekit.workload.weights import classes_in, fill, read_weights

OPTIONS = ("pretrained", "download", "classes")


def from_timm(reference: str, weights: Path | None = None, *, trusted: Path | None = None) -> ModelSource:
    """A model of timm, with the preprocessing of its `pretrained_cfg`.

    Weights come from `weights` (with as many classes as that file has), from the user's cache of Hugging Face, or with
    `download=yes` from there; `pretrained=no` leaves them random. `classes` sets their number for random weights.

    Raises:
        WorkloadError: timm is missing, the name is unknown, or the weights are nowhere.
    """
    target, options = split_options(reference, OPTIONS)
    name = target.partition(":")[2]
    library = optional("timm", where=reference, extra="timm")
    architecture, _, tag = name.partition(".")
    if not library.is_model(architecture):
        raise WorkloadError(
            f"timm has no model {name!r}",
            where=reference,
            rule="a name of timm.list_models()",
            way_out=did_you_mean(architecture, library.list_models(), "`timm.list_models('*part*')` lists them"),
        )
    if tag and name not in library.list_pretrained(architecture):
        known = library.list_pretrained(architecture)
        raise WorkloadError(
            f"timm has no weights {tag!r} of {architecture}",
            where=reference,
            rule=f"one of {', '.join(known)}" if known else f"{architecture} without weights of timm's",
            way_out=did_you_mean(name, known, f"timm:{architecture}"),
        )
    settings = library.get_pretrained_cfg(name)
    return ModelSource(
        factory=_factory(library, name, settings, options, reference=reference, weights=weights, trusted=trusted),
        preprocessing=_preprocessing(library, settings, reference),
        labels=() if weights or options else _labels(library, name),
    )


def _factory(
    library: Any,
    name: str,
    settings: Any,
    options: dict[str, str],
    *,
    reference: str,
    weights: Path | None,
    trusted: Path | None,
) -> partial[nn.Module]:
    if weights is not None:
        return partial(_filled, library, name, settings, weights, trusted=trusted)
    pretrained = options.get("pretrained", "yes")
    if pretrained not in ("yes", "no"):
        raise WorkloadError(f"pretrained is {pretrained!r}", where=reference, rule="pretrained=yes or pretrained=no")
    count = options.get("classes")
    if count is not None and not (count.isdigit() and int(count)):
        raise WorkloadError(f"classes is {count!r}", where=reference, rule="a positive number")
    made = {} if count is None else {"num_classes": int(count)}
    if pretrained == "no":
        return partial(library.create_model, name, pretrained=False, **made)
    if count is not None:
        raise WorkloadError(
            "classes with pretrained weights would leave a new, untrained layer",
            where=reference,
            rule="classes only with pretrained=no",
            way_out="train it first (`edgekit compress` takes trained models), then name your weights: --weights FILE",
        )
    if yes(options, "download", reference):
        return partial(library.create_model, name, pretrained=True)
    cached = _cached(settings)
    if cached is None:
        raise WorkloadError(
            f"the weights of {name} are not on this machine",
            where=reference,
            rule="a file (--weights), or the cache of Hugging Face; nothing is downloaded unless you ask",
            way_out=f"{asking(reference)}, --weights FILE, or pretrained=no for random ones",
        )
    return partial(library.create_model, name, pretrained=True, pretrained_cfg_overlay={"file": cached})


def _filled(library: Any, name: str, settings: Any, path: Path, *, trusted: Path | None) -> nn.Module:
    weights = read_weights(path, trusted)
    classifier = settings.classifier if settings is not None else None
    count = classes_in(weights, classifier) if isinstance(classifier, str) else None
    model: nn.Module = library.create_model(name, pretrained=False, **({} if count is None else {"num_classes": count}))
    return fill(model, weights, str(path))


def _cached(settings: Any) -> str | None:
    """The file with the weights in the user's cache."""
    if settings is None or not settings.hf_hub_id:
        return None
    from huggingface_hub import try_to_load_from_cache

    for file in ("model.safetensors", "pytorch_model.bin"):
        found = try_to_load_from_cache(settings.hf_hub_id, file)
        if isinstance(found, str):
            return found
    return None


def _preprocessing(library: Any, settings: Any, reference: str) -> Any:
    """What `timm.data.create_transform` makes for evaluation, with the crop that is of timm's default mode."""
    if settings is None:
        return None
    data = library.data.resolve_data_config({}, pretrained_cfg=settings.to_dict())
    channels, height, width = data["input_size"]
    if channels != 3:
        return None
    # timm: the shorter side is floor(size / crop_pct), then the centre is cut out; "squash" resizes to it, whatever
    # the image's shape.
    shorter, size = resized_to(height, width, data["crop_pct"]), (height, width)
    whole = data["crop_mode"] == "squash" and shorter == max(size)
    if data["crop_mode"] != "center" and not whole:
        return None
    return image_preprocessing(
        size=size,
        shorter_side=None if whole else shorter,
        interpolation=data["interpolation"],
        mean=data["mean"],
        std=data["std"],
        where=reference,
    )


def _labels(library: Any, name: str) -> tuple[str, ...]:
    """ImageNet's names, where timm knows that the classes are ImageNet's 1,000 (or 21,841, ...)."""
    settings = library.get_pretrained_cfg(name)
    subset = library.data.infer_imagenet_subset(settings.to_dict()) if settings is not None else None
    if not subset:
        return ()
    info = library.data.ImageNetInfo(subset)
    return tuple(info.index_to_description(index) for index in range(info.num_classes()))
