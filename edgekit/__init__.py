"""edgekit: the fastest ONNX bundle inside an accuracy budget on a given device, and the proof.

The verbs are functions in rooms of their names (`edgekit.compress.compress`, `edgekit.prune.prune`, ...); importing
this package, or `edgekit.device`, loads neither torch nor onnx. `edgekit.choice` declares what an architecture search
may decide.
"""

from edgekit.choices import choice

__all__ = ["choice"]

__version__ = "0.1.0"
