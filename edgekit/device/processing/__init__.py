"""What happens to raw input before a model and to its outputs after it, as data: read from a bundle, applied in numpy.

One module for each kind. A kind is a frozen dataclass with `kind`, `to_dict`, a strict `from_dict`, and `apply`.
"""

from edgekit.device.processing.classification import ClassificationPostprocessing, Prediction
from edgekit.device.processing.detection import Detection, DetectionPostprocessing
from edgekit.device.processing.geometry import Geometry
from edgekit.device.processing.image import ImagePreprocessing
from edgekit.device.processing.kinds import (
    Postprocessing,
    Preprocessing,
    SoundPreprocessing,
    postprocessing_from,
    prepared,
    preprocessing_from,
    vocabulary_file,
)
from edgekit.device.processing.log_mel import LogMelPreprocessing
from edgekit.device.processing.text import TextPostprocessing
from edgekit.device.processing.vocabulary import VOCABULARY_FILE, Vocabulary
from edgekit.device.processing.waveform import WaveformPreprocessing
from edgekit.device.processing.wordpiece import TokenInputs, WordpiecePreprocessing

__all__ = [
    "VOCABULARY_FILE",
    "ClassificationPostprocessing",
    "Detection",
    "DetectionPostprocessing",
    "Geometry",
    "ImagePreprocessing",
    "LogMelPreprocessing",
    "Postprocessing",
    "Prediction",
    "Preprocessing",
    "SoundPreprocessing",
    "TextPostprocessing",
    "TokenInputs",
    "Vocabulary",
    "WaveformPreprocessing",
    "WordpiecePreprocessing",
    "postprocessing_from",
    "prepared",
    "preprocessing_from",
    "vocabulary_file",
]
