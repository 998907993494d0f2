"""Making a network to try: built, given weights as training would leave them, and an input that it takes."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from coverage_study import small_transformers
from coverage_study.catalogue import Subject
from torch import Tensor, nn

from edgekit.workload import Batch

SIDES = (64, 96, 128, 224, 256)
"""Sizes of images in pixels, the smallest that a network takes is used."""


@contextmanager
def without_operators() -> Iterator[None]:
    """Let torchvision be imported where its compiled operators are missing: it describes them to torch on import.

    What needs one of them (non-maximum suppression, region pooling) fails when it is called.
    """
    register = torch.library.register_fake

    def forgiving(op: Any, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        def describe(function: Any) -> Any:
            try:
                return register(op, *args, **kwargs)(function)
            except RuntimeError:
                if str(op).startswith("torchvision::"):
                    return function
                raise

        return describe

    torch.library.register_fake = forgiving  # type: ignore[assignment] # a stand-in for the time of an import
    try:
        yield
    finally:
        torch.library.register_fake = register


def load_packages() -> None:
    """Import what builds networks; the others need torchvision."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with without_operators():
            import torchvision
        import timm
        import transformers
    transformers.utils.logging.set_verbosity_error()
    del torchvision, timm, transformers


class Dense(nn.Module):
    """A detector's network without what follows it: choosing boxes is no part of a network's graph.

    It returns what the heads say of each level; of a detector in two stages, what the first one says.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone: Any = detector.backbone
        self.head: Any = detector.rpn.head if hasattr(detector, "rpn") else detector.head

    def forward(self, x: Tensor) -> Any:
        """What the head makes of the features of images [n, 3, rows, columns]."""
        features = self.backbone(x)
        return self.head([features] if isinstance(features, Tensor) else list(features.values()))


def build(subject: Subject) -> tuple[nn.Module, Batch, dict[str, Any]]:
    """The network, two inputs for it, and what is worth knowing: size, builder's options, parameters.

    Raises:
        RuntimeError: it takes images of no size that was tried.
    """
    if subject.source != "transformers":
        return _build_for_images(subject)
    model, example, about = small_transformers.build(subject.name)
    _shake(model)
    if about["side"]:
        _settle(model, _mixed(example.args[0]))
    return model, example, about


def _build_for_images(subject: Subject) -> tuple[nn.Module, Batch, dict[str, Any]]:
    refused = ""
    # Some functions that build a network set themselves what the catalogue would have smaller.
    given = [subject.options, {}] if subject.options else [{}]
    for side in SIDES:
        for sized, smaller in itertools.product((True, False), given):
            try:
                model = _made(subject, side if sized else None, smaller)
            except (TypeError, AssertionError, ValueError, RuntimeError) as error:
                refused = f"{type(error).__name__}: {error}"
                continue
            images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
            try:
                with torch.no_grad():
                    model(images)
                _shake(model)
                _settle(model, _mixed(images))
                with torch.no_grad():
                    model(images)
            except Exception as error:  # noqa: BLE001 - networks raise whatever they like at sizes that do not fit
                refused = f"{type(error).__name__}: {error}"
                continue
            options = {**smaller, **({"img_size": side} if sized and subject.source == "timm" else {})}
            parameters = sum(value.numel() for value in model.parameters())
            return model, Batch((images,), {}, None), {"side": side, "options": options, "parameters": parameters}
    raise RuntimeError(f"it takes images of none of {SIDES} pixels: {refused}")


def _made(subject: Subject, side: int | None, options: Mapping[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    if subject.source == "timm":
        import timm

        sized = {} if side is None else {"img_size": side}
        return timm.create_model(subject.name, pretrained=False, num_classes=10, **options, **sized).eval()
    import torchvision

    if side is not None and not subject.name.startswith("vit_"):
        raise TypeError("only Vision Transformers take a size")
    given: dict[str, Any] = {"weights": None}
    area = subject.name.rpartition("_")[2]
    if hasattr(torchvision.models.detection, subject.name):
        made = torchvision.models.get_model(subject.name, weights_backbone=None, **given)
        return Dense(made).eval()
    if hasattr(torchvision.models.segmentation, subject.name) and area != "":
        return torchvision.models.get_model(subject.name, weights_backbone=None, num_classes=5, **given).eval()
    if side is not None:
        given["image_size"] = side
    if subject.name in ("googlenet", "inception_v3"):
        given["init_weights"] = True
    return torchvision.models.get_model(subject.name, num_classes=10, **given).eval()


@torch.no_grad()
def _shake(model: nn.Module) -> None:
    """Give a fresh network weights that hide nothing, in place.

    Training starts from zeros and ones that a trained network does not have: branches that begin with a scale of
    nothing, heads of zeros, normalizations that do nothing. Every comparison would be one of nothing with nothing.
    """
    generator = torch.Generator().manual_seed(2)

    def noise(value: Tensor) -> Tensor:
        return torch.randn(value.shape, generator=generator)

    for value in model.parameters():
        if not value.is_floating_point() or not value.numel():
            continue
        spread, mean = float(value.std(correction=0)), float(value.mean())
        if spread > 1e-4:
            continue
        if value.ndim > 1 and value.shape[0] > 1 and abs(mean) < 1e-4:
            value.copy_(noise(value) * max(1, value[0].numel()) ** -0.5)
        elif abs(mean) < 1e-2:  # A bias, or the scale of a branch.
            value.copy_(0.1 * noise(value) + (0.3 if mean else 0.0))
        else:
            value.mul_(1 + 0.1 * noise(value))
    # What attentions keep of their biases in eval mode is of the old ones; they forget it when training begins.
    model.train()
    model.eval()


def _mixed(images: Tensor) -> Tensor:
    """Images to settle a network by.

    Half of them as the parity gate draws its inputs: deep networks whose normalizations have seen a few of one kind
    make values a hundred times as large of the other, and blow every rounding error up.
    """
    plain, mixed, more = torch.randn(3, 32, *images.shape[1:], generator=torch.Generator().manual_seed(3))
    return torch.cat([plain, (mixed + more).clamp(float(images.min()), float(images.max()))])


@torch.no_grad()
def _settle(model: nn.Module, images: Tensor) -> None:
    """Let every BatchNorm see what comes in, one after the other, so that nothing grows from layer to layer."""
    norms = [each for each in model.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001

    def hook(module: Any, inputs: Any) -> None:
        x = inputs[0]
        if module.running_mean is not None and x.ndim > 1:
            axes = [axis for axis in range(x.ndim) if axis != 1]
            module.running_mean.copy_(x.mean(axes))
            spread = x.var(axes, correction=0)
            # A channel that hardly varies on a few images would be blown up, and every rounding error with it.
            module.running_var.copy_(spread.clamp_min(0.1 * float(spread.mean()) + 1e-6))

    hooks = [norm.register_forward_pre_hook(hook) for norm in norms]
    try:
        model(images)
    finally:
        for each in hooks:
            each.remove()
