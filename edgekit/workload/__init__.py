"""The user's model, data and task, taken as they are.

>>> from edgekit.workload import load_callable
>>> load_callable("math:sqrt")(4.0)
2.0
"""

from edgekit.tasks import outputs_of
from edgekit.workload.batch import Batch, Signature, as_batch
from edgekit.workload.config import TEMPLATE, WorkloadConfig, config_from, read_config
from edgekit.workload.handover import from_accelerate, from_lightning
from edgekit.workload.loading import Loader, Stream, can_fork, loader, size_of
from edgekit.workload.models import MODEL_RULE, ModelSource, load_model
from edgekit.workload.randomness import derive, generator_states, isolated, restore_generators
from edgekit.workload.references import load_callable
from edgekit.workload.sources import as_dataset, load_data
from edgekit.workload.splits import Splits, labels_of, make_splits
from edgekit.workload.weights import read_weights, with_weights
from edgekit.workload.workload import (
    Answered,
    Workload,
    digest_of,
    load_workload,
    parts_of,
    source_of,
    try_out,
    with_reference_targets,
)

__all__ = [
    "MODEL_RULE",
    "TEMPLATE",
    "Answered",
    "Batch",
    "Loader",
    "ModelSource",
    "Signature",
    "Splits",
    "Stream",
    "Workload",
    "WorkloadConfig",
    "as_batch",
    "as_dataset",
    "can_fork",
    "config_from",
    "derive",
    "digest_of",
    "from_accelerate",
    "from_lightning",
    "generator_states",
    "isolated",
    "labels_of",
    "load_callable",
    "load_data",
    "load_model",
    "load_workload",
    "loader",
    "make_splits",
    "outputs_of",
    "parts_of",
    "read_config",
    "read_weights",
    "restore_generators",
    "size_of",
    "source_of",
    "try_out",
    "with_reference_targets",
    "with_weights",
]
