"""Placements beside the one that the rules give, and which of them is the fastest here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from edgekit.device.latency import Latency, measure
from edgekit.device.profile import DeviceProfile
from edgekit.device.session import open_session
from edgekit.progress import Progress
from edgekit.quantize.costs import Costs
from edgekit.quantize.layout import wired
from edgekit.quantize.plan import QuantPlan
from edgekit.quantize.planning import prepared, static_nodes
from edgekit.quantize.regions import cheapest_regions, units_of
from edgekit.spec import Feeds

RULES, CHEAPEST, LAYOUTS = "rules", "cheapest", "cheapest with layouts"
CLEARLY = 1.03
"""By how much another placement must beat the rules, at the low end of its interval: less is a matter of the day."""
SLOWER = "predicted to be slower in int8 than in fp32, with the Q and DQ around it"


def candidates(model: Path, plan: QuantPlan, profile: DeviceProfile) -> dict[str, QuantPlan]:
    """Plans with fewer int8 nodes than a static plan has, by what the profile predicts; the plan itself is the first.

    A profile is of operators one by one. What a change of layout costs at the border of an int8 region depends on what
    stands around it, so that there is a candidate without such costs and one with them; measurement decides.
    """
    graph = prepared(model, plan).graph
    nodes = static_nodes(graph, plan)
    others = set(plan.nodes) - nodes
    placement = wired(graph, nodes, plan.target)
    found = {RULES: plan}
    seen = {nodes}
    for name, layouts in ((CHEAPEST, False), (LAYOUTS, True)):
        costs = Costs(profile, layouts=layouts)
        chosen = cheapest_regions(graph, units_of(graph, placement, costs), costs)
        if chosen and chosen not in seen:
            seen.add(chosen)
            found[name] = plan.restricted(chosen | others, SLOWER)
    return found


def timed(
    files: Mapping[str, Path], feeds: Feeds, *, threads: int, time_s: float, progress: Progress
) -> dict[str, Latency]:
    """Latencies of files on the same inputs, interleaved in one run."""
    return measure(
        {name: _call(path, feeds, threads) for name, path in files.items()}, time_s=time_s, progress=progress
    )


def fastest(latencies: Mapping[str, Latency]) -> str:
    """The name of the fastest; that of the rules, unless another one is clearly faster."""
    rules = latencies[RULES]
    ratios = {name: latency.ratio_to(rules) for name, latency in latencies.items() if name in (CHEAPEST, LAYOUTS)}
    better = [name for name, ratio in ratios.items() if ratio.low > CLEARLY]
    return max(better, key=lambda name: ratios[name].value, default=RULES)


def _call(path: Path, feeds: Feeds, threads: int) -> Callable[[], object]:
    session, given = open_session(path, threads=threads), dict(feeds)
    return lambda: session.run(None, given)
