"""Distillation: a compressed model, or any other, learns from one or several teachers.

>>> from edgekit.distill import DistillConfig
>>> from edgekit.training import FitConfig
>>> DistillConfig(fit=FitConfig(epochs=1)).soft
0.7
"""

from edgekit.distill.batchnorm import reestimate_batchnorm, with_batch_statistics
from edgekit.distill.distill import DistillConfig, distill, distillation_objective, with_layers
from edgekit.distill.layers import Match, matched
from edgekit.distill.losses import decoupled, mixed, standardized, target_and_rest
from edgekit.distill.teachers import Frozen, Remembering, Teacher, Unlabelled
from edgekit.distill.tracing import Call, traced

__all__ = [
    "Call",
    "DistillConfig",
    "Frozen",
    "Match",
    "Remembering",
    "Teacher",
    "Unlabelled",
    "decoupled",
    "distill",
    "distillation_objective",
    "matched",
    "mixed",
    "reestimate_batchnorm",
    "standardized",
    "target_and_rest",
    "traced",
    "with_batch_statistics",
    "with_layers",
]
