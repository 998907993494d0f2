"""Data where their owners keep them, sample by sample and in numpy: nothing here loads torch.

>>> from edgekit.data import split_options
>>> split_options("flowers.csv?label=species", ("label",))
('flowers.csv', {'label': 'species'})
"""

from edgekit.data.arrays import TARGET_KEYS, Arrays
from edgekit.data.feeding import feeds_in_batches
from edgekit.data.images import ImageFolder
from edgekit.data.labels import Relabelled, relabelled
from edgekit.data.processing import as_image, as_text, preprocessing_of, read_vocabulary
from edgekit.data.reading import DATA_RULE, read_source
from edgekit.data.reference import anchored, split_options
from edgekit.data.source import Image, Source, Text

__all__ = [
    "DATA_RULE",
    "TARGET_KEYS",
    "Arrays",
    "Image",
    "ImageFolder",
    "Relabelled",
    "Source",
    "Text",
    "anchored",
    "as_image",
    "as_text",
    "feeds_in_batches",
    "preprocessing_of",
    "read_source",
    "read_vocabulary",
    "relabelled",
    "split_options",
]
