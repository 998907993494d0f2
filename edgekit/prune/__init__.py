"""Structured pruning: whole channels, units, heads, blocks and layers, with a proof.

`analyse` reads a model's graph into a `Coupling`; `importance` ranks its channels; `plan` (or `actions` and `combine`)
decides; `prune` applies the plan to the user's own modules and proves the outcome; `save` and `replay` keep it.
`GraphPruner` applies plans to an exported graph, to ask what they would cost.
"""

from edgekit.prune.actions import Action, actions, combine, inside
from edgekit.prune.blocks import ResidualBlock, ZeroBranch
from edgekit.prune.coupling import ChannelGroup, Coupling
from edgekit.prune.importance import Importance, importance
from edgekit.prune.on_graph import GraphPruner
from edgekit.prune.plan import Narrowing, PrunePlan, make_plan, plan
from edgekit.prune.proof import Proof, prove
from edgekit.prune.prune import Pruned, analyse, load_plan, prune, replay, save
from edgekit.prune.recurrent_layers import RecurrentLayer
from edgekit.prune.resolution import Resolution, resolutions
from edgekit.prune.surgery import apply, lift, masked

__all__ = [
    "Action",
    "ChannelGroup",
    "Coupling",
    "GraphPruner",
    "Importance",
    "Narrowing",
    "Proof",
    "PrunePlan",
    "Pruned",
    "RecurrentLayer",
    "ResidualBlock",
    "Resolution",
    "ZeroBranch",
    "actions",
    "analyse",
    "apply",
    "combine",
    "importance",
    "inside",
    "lift",
    "load_plan",
    "make_plan",
    "masked",
    "plan",
    "prove",
    "prune",
    "replay",
    "resolutions",
    "save",
]
