"""Distillation: a compressed model learns from the uncompressed one.

>>> from edgekit.distill import DistillConfig
>>> from edgekit.training import FitConfig
>>> DistillConfig(fit=FitConfig(epochs=1)).soft
0.7
"""

from edgekit.distill.batchnorm import reestimate_batchnorm, with_batch_statistics
from edgekit.distill.distill import DistillConfig, distill, distillation_objective

__all__ = ["DistillConfig", "distill", "distillation_objective", "reestimate_batchnorm", "with_batch_statistics"]
