"""A plan applied to the exported graph: the pruned network's graph in milliseconds, without PyTorch or an export.

`draft` slices the weights that the plan names, `walk` and `operators` follow what stays through the graph and rewrite
the numbers in it that count channels, `bypass` takes out blocks. What comes of it is good for asking what a plan would
cost; a network that is kept is pruned as modules, with proof, and exported.
"""

from edgekit.prune.on_graph.draft import GraphPruner

__all__ = ["GraphPruner"]
