"""Training: one loop for fine-tuning, recovery and distillation.

>>> from edgekit.training import FitConfig
>>> FitConfig(epochs=8).optimizer
'sgd'
"""

from edgekit.training.augmentation import (
    AUGMENTATIONS,
    Augmentation,
    AugmentationName,
    augmentation_for,
    augmented,
    is_fixed,
)
from edgekit.training.choice import Objective, in_layout, on_threads
from edgekit.training.config import Choice, FitConfig, FitResult, Passed
from edgekit.training.fit import fit, setting_for
from edgekit.training.suited import OptimizerName, suited, suited_optimizer

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "AugmentationName",
    "Choice",
    "FitConfig",
    "FitResult",
    "Objective",
    "OptimizerName",
    "Passed",
    "augmentation_for",
    "augmented",
    "fit",
    "in_layout",
    "is_fixed",
    "on_threads",
    "setting_for",
    "suited",
    "suited_optimizer",
]
