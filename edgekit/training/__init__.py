"""Training: one loop for fine-tuning, recovery and distillation.

>>> from edgekit.training import FitConfig
>>> FitConfig(epochs=8).optimizer
'sgd'
"""

from edgekit.training.choice import Objective, in_layout
from edgekit.training.config import FitConfig, FitResult, Passed
from edgekit.training.fit import fit
from edgekit.training.suited import OptimizerName, suited, suited_optimizer

__all__ = [
    "FitConfig",
    "FitResult",
    "Objective",
    "OptimizerName",
    "Passed",
    "fit",
    "in_layout",
    "suited",
    "suited_optimizer",
]
