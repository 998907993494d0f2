"""Attribution maps of PyTorch modules by gradients, computed by Captum.

- saliency: K. Simonyan, A. Vedaldi, A. Zisserman, *Deep Inside Convolutional Networks* (2014), section 3: the absolute
  gradient of the score, its maximum over the channels;
- integrated gradients: M. Sundararajan, A. Taly, Q. Yan, *Axiomatic Attribution for Deep Networks* (2017), section 3:
  they sum up to the score less the baseline's, and here over the channels of each place;
- Grad-CAM: R. Selvaraju et al., *Grad-CAM* (2017), section 3: channels of a layer weighted by their mean gradient,
  positive part, drawn over the input.

The score is that of `occlusion`. Quantization is not seen: an int8 file has no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgekit import stats
from edgekit.explain.drift import Explained, spearman
from edgekit.explain.grid import Grid, channel_axis
from edgekit.explain.layers import last_spatial, layer_of
from edgekit.progress import Progress, Step, silent
from edgekit.stats import Estimate
from edgekit.tasks import outputs_of
from edgekit.workload import Batch

STEPS = 32
"""Points of the path in integrated gradients (Gauss-Legendre)."""
SALIENCY, INTEGRATED, GRAD_CAM = "saliency", "integrated gradients", "Grad-CAM"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attributions:
    """Maps of one module for one sample.

    Args:
        maps: by method, float64 over the axes that the grid has; saliency and Grad-CAM are never negative.
        score: what integrated gradients should sum up to: the score of the sample less the baseline's.
    """

    maps: Mapping[str, np.ndarray]
    score: float

    @property
    def gap(self) -> float:
        """How far the sum of integrated gradients is from that, as a share of it."""
        return abs(float(self.maps[INTEGRATED].sum()) - self.score) / max(abs(self.score), 1e-12)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gradients:
    """Attribution maps of the original module, and of the compressed one where it is given.

    Args:
        layers: for each module, where Grad-CAM looked; None where it has no layer with places.
        correlations: by method, mean rank correlation between the two modules' maps; empty without a second one.
        maps: for each explained sample, by module (`original`, `compressed`).
        gap: the largest gap between the sum of integrated gradients and the score.
        notes: what does not apply, and why.
    """

    layers: Mapping[str, str | None]
    correlations: Mapping[str, Estimate]
    maps: Sequence[Mapping[str, Attributions]]
    gap: float
    notes: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form without the maps."""
        return {
            "samples": len(self.maps),
            "layers": dict(self.layers),
            "correlations": {method: each.to_dict() for method, each in self.correlations.items()},
            "completeness_gap": self.gap,
            "notes": list(self.notes),
        }


def gradients(
    modules: Mapping[str, nn.Module],
    samples: Sequence[Explained],
    grid: Grid,
    *,
    fill: np.ndarray,
    centred: bool,
    layer: str | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Gradients:
    """Attribution maps of the modules for samples with one real-valued input.

    Args:
        modules: `original`, and `compressed` where there is one; in evaluation mode.
        samples: as `drift` explained them.
        grid: says which axes of the input a map keeps.
        fill: baseline of integrated gradients; broadcasts to the input.
        centred: whether the mean of all outputs is taken off the score.
        layer: for Grad-CAM, instead of the last one with spatial output.
        seed: of the bootstrap.
        progress: told after each sample.

    Raises:
        EdgekitError: a module has no such layer.
    """
    first = samples[0].sample.batch
    layers = {name: layer or last_spatial(module, first) for name, module in modules.items()}
    found: list[dict[str, Attributions]] = []
    for done, each in enumerate(samples, 1):
        found.append(
            {
                name: attributions(
                    module,
                    each.sample.batch,
                    each.output,
                    grid,
                    fill=fill,
                    centred=centred,
                    layer=layers[name],
                )
                for name, module in modules.items()
            }
        )
        progress(Step("gradients", done, len(samples)))
    shared = set.intersection(*({*each.maps} for maps in found for each in maps.values()))
    methods = [method for method in (SALIENCY, INTEGRATED, GRAD_CAM) if method in shared]
    return Gradients(
        layers=layers,
        correlations={
            method: stats.mean(
                np.array([spearman(maps["original"].maps[method], maps["compressed"].maps[method]) for maps in found]),
                seed=seed,
            )
            for method in (methods if "compressed" in modules else ())
        },
        maps=found,
        gap=max(each.gap for maps in found for each in maps.values()),
        notes=[
            f"Grad-CAM does not apply to the {name} network: no layer of it has an output [n, channels, h, w]"
            for name, found_layer in layers.items()
            if found_layer is None
        ],
    )


def attributions(
    model: nn.Module,
    batch: Batch,
    output: int,
    grid: Grid,
    *,
    fill: np.ndarray,
    centred: bool,
    layer: str | None,
) -> Attributions:
    """The maps of one sample [1, ...]; Grad-CAM where `layer` is given and the input is an image."""
    from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam, Saliency

    (given,) = batch.leaves()
    x = given.detach().clone().requires_grad_()
    forward = score_of(model, batch, centred=centred)
    baseline = torch.from_numpy(np.broadcast_to(fill, given.shape).copy()).to(x.dtype)
    channels = channel_axis(grid.kind, given.shape)
    assert channels is not None, "gradients need a real-valued input"
    flat = grid.kind == "features"
    saliency = Saliency(forward).attribute(x, target=output)
    integrated = IntegratedGradients(forward).attribute(x, baselines=baseline, target=output, n_steps=STEPS)
    with torch.no_grad():
        score = float(forward(x)[0, output] - forward(baseline)[0, output])
    maps = {
        SALIENCY: saliency if flat else saliency.amax(channels),
        INTEGRATED: integrated if flat else integrated.sum(channels),
    }
    if layer is not None and grid.kind == "image":
        cam = LayerGradCam(forward, layer_of(model, layer)).attribute(x, target=output, relu_attributions=True)
        maps[GRAD_CAM] = LayerAttribution.interpolate(cam, grid.sizes, interpolate_mode="bilinear")[:, 0]
    return Attributions(
        maps={name: value.detach().numpy()[0].astype(np.float64) for name, value in maps.items()}, score=score
    )


def score_of(model: nn.Module, batch: Batch, *, centred: bool) -> Callable[[Tensor], Tensor]:
    """The model as a function of its one input tensor: its first output [n, outputs], centred if asked for."""
    leaves, structure = pytree.tree_flatten((batch.args, batch.kwargs))
    place = next(index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor))

    def forward(x: Tensor) -> Tensor:
        args, kwargs = pytree.tree_unflatten([*leaves[:place], x, *leaves[place + 1 :]], structure)
        values: Tensor = outputs_of(model(*args, **kwargs))[0]
        return values - values.mean(1, keepdim=True) if centred else values

    return forward
