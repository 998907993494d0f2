"""How fast files are, measured against each other in one run of interleaved rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.device.latency import Latency, SpeedVerdict, measure
from edgekit.device.session import open_session
from edgekit.errors import EdgekitError, did_you_mean
from edgekit.progress import Progress, silent
from edgekit.spec import Feeds
from edgekit.stats import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One file's latency beside the baseline's.

    Args:
        latency: with all raw samples, in milliseconds.
        ratio: how many times faster than the baseline, over rounds that both took part in.
        verdict: `faster` or `slower` where the interval of `ratio` leaves 1 out, else `no measurable difference`.
    """

    latency: Latency
    ratio: Estimate
    verdict: SpeedVerdict

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form without the raw samples."""
        return {"latency": self.latency.to_dict(), "ratio": self.ratio.to_dict(), "verdict": self.verdict}


def latency_table(
    files: Mapping[str, Path],
    feeds: Feeds,
    *,
    baseline: str,
    provider: str = "cpu",
    threads: int = 1,
    time_s: float = 10.0,
    warmup_s: float = 0.2,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Timing]:
    """Time all `files` on the same inputs, provider and threads, in rounds whose order is drawn at random.

    Args:
        files: by name; all take `feeds`.
        feeds: real inputs, as many samples as a run is to have.
        baseline: the name of the file that ratios refer to.
        provider: `cpu`, `cuda` or `tensorrt`.
        threads: intra-op threads.
        time_s: seconds to measure, for all files together; less where the intervals are narrow before.
        warmup_s: seconds to warm up before, for each file; longer while it still gets faster.
        seed: of the order and of the bootstrap.
        progress: told now and then.

    Raises:
        ProviderError: the provider is unknown, absent, or did not take a model.
    """
    if baseline not in files:
        raise EdgekitError(
            f"no file {baseline!r}",
            where="baseline",
            rule=f"one of {', '.join(files)}",
            way_out=did_you_mean(baseline, files),
        )
    # All sessions before the first round, since loading one would disturb the others; the baseline first, since
    # `measure` stops when the ratios to the first are known well enough.
    names = [baseline, *(name for name in files if name != baseline)]
    calls = {name: _call(files[name], feeds, provider, threads) for name in names}
    measured = measure(calls, time_s=time_s, warmup_s=warmup_s, seed=seed, progress=progress)
    reference = measured[baseline]
    return {
        name: Timing(
            latency=measured[name],
            ratio=measured[name].ratio_to(reference),
            verdict=measured[name].verdict(reference),
        )
        for name in files
    }


def _call(path: Path, feeds: Feeds, provider: str, threads: int) -> Callable[[], object]:
    session = open_session(path, provider=provider, threads=threads)
    given = dict(feeds)
    return lambda: session.run(None, given)
