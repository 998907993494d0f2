"""Pre- and postprocessing inside the graph: an app then hands over bytes or samples, whatever language it is in.

Only ONNX's own operators. They may round otherwise than the numpy implementation, which is what training saw: how far
the inputs lie apart on the golden samples is measured and recorded, and the variants' tolerances are measured with it.
"""

from edgekit.bundle.baking.plan import Baked, bake

__all__ = ["Baked", "bake"]
