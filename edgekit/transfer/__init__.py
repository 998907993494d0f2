"""Transfer: a trained network learns another task, and a network of any kind becomes a teacher.

>>> from edgekit.transfer import FinetuneConfig
>>> FinetuneConfig().method
'lp-ft'
"""

from edgekit.transfer.classes import Classes, few
from edgekit.transfer.config import FinetuneConfig, Finetuned, Phase
from edgekit.transfer.fastest import StandIn, Teaching, fastest_teacher, files_may_teach
from edgekit.transfer.finetune import finetune
from edgekit.transfer.head import Head, find_head, with_head
from edgekit.transfer.probe import Probe, features_of, probe
from edgekit.transfer.saved import load_network, save_network
from edgekit.transfer.stages import Stage, rates_of, stages_of
from edgekit.transfer.teachers import onnx_teacher
from edgekit.transfer.weights import Fitting, fit_weights

__all__ = [
    "Classes",
    "FinetuneConfig",
    "Finetuned",
    "Fitting",
    "Head",
    "Phase",
    "Probe",
    "Stage",
    "StandIn",
    "Teaching",
    "fastest_teacher",
    "features_of",
    "few",
    "files_may_teach",
    "find_head",
    "finetune",
    "fit_weights",
    "load_network",
    "onnx_teacher",
    "probe",
    "rates_of",
    "save_network",
    "stages_of",
    "with_head",
]
