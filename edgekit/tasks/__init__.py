"""What a model is for: loss, metric and agreement, from raw outputs.

>>> from edgekit import tasks
>>> tasks.classification().metric
'top-1 accuracy'
"""

from edgekit.tasks.continuous import imitation, reconstruction, regression
from edgekit.tasks.custom import custom
from edgekit.tasks.labels import classification, multilabel
from edgekit.tasks.outputs import outputs_of
from edgekit.tasks.task import Arrays, Task

__all__ = [
    "Arrays",
    "Task",
    "classification",
    "custom",
    "imitation",
    "multilabel",
    "outputs_of",
    "reconstruction",
    "regression",
]
