"""Is the compressed network right for the same reasons? Maps of both, and how far they agree.

`drift` compares occlusion maps of ONNX files, the int8 one included; `gradients` those of PyTorch modules; `attention`
the maps of attention; `tcav` how much concepts matter. `explain` does what applies to a workload.

`Drift.to_dict`, which a report of `compress` holds under `explanations` together with `panels`, and `explain.json`
under `drift`, has this shape (an *estimate* is `{"value", "low", "high", "n"}`, a mean with its 95 % interval):

    {
      "method": "occlusion",
      "original": "fp32",                        the file that others are compared with
      "input": {
        "name": "x",
        "kind": "image",                         or steps, features, tokens
        "sizes": [32, 32],                       of the axes that windows move over
        "window": [6, 6], "stride": [3, 3],
        "grid": [10, 10],                        windows along each axis
        "fill": "the mean of each channel"       what a covered part becomes
      },
      "samples": {
        "asked": 64,
        "original_right": 60,                    of those that were looked at
        "explained": 60
      },
      "yardstick": {"what": "the original against itself, …", "correlation": estimate or null},
      "files": [{
        "file": "int8",
        "both_right": 59,                        samples that `correlation` is over
        "correlation": estimate or null,         mean Spearman rank correlation with the original's maps
        "largest_drift": [{"sample": 17, "output": 3, "correlation": 0.41}, …]
      }, …],
      "panels": [{                               in reports only
        "sample": 17, "file": "int8", "class": "cat", "correlation": 0.41,
        "caption": "sample 17, cat: rank correlation 0.41",
        "png_base64": "…"                        input, original's map, file's map; at most 15 kB
      }, …],
      "notes": ["…"]                             what a reader must know
    }

Where nothing could be computed, a report has only `{"notes": ["why"]}`.

`explain.json` is `Explanation.to_dict`: `{"drift": the above without panels, "gradients": {"samples", "layers",
"correlations": {method: estimate}, "completeness_gap", "notes"} or null, "attention": {"samples", "layers",
"rollout_correlation", "layer_correlations", "notes"} or null, "concepts": [{"concept", "module", "layer", "output",
"samples", "score": estimate, "random": estimate, "p", "significant"}], "notes"}`.
"""

from edgekit.explain.attention import Attention, AttentionMap, attention, attention_maps, rollout
from edgekit.explain.concepts import ConceptScore, concept_data, tcav
from edgekit.explain.drift import Drift, Explained, FileDrift, drift, spearman
from edgekit.explain.explanation import Explanation, explain
from edgekit.explain.gradients import Attributions, Gradients, attributions, gradients
from edgekit.explain.grid import Grid, grid_for, kind_of
from edgekit.explain.occlusion import occlusion_map, runner
from edgekit.explain.pictures import panels
from edgekit.explain.samples import Sample, draw

__all__ = [
    "Attention",
    "AttentionMap",
    "Attributions",
    "ConceptScore",
    "Drift",
    "Explained",
    "Explanation",
    "FileDrift",
    "Gradients",
    "Grid",
    "Sample",
    "attention",
    "attention_maps",
    "attributions",
    "concept_data",
    "draw",
    "drift",
    "explain",
    "gradients",
    "grid_for",
    "kind_of",
    "occlusion_map",
    "panels",
    "rollout",
    "runner",
    "spearman",
    "tcav",
]
