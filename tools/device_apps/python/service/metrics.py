"""What the service has done, in Prometheus's text format (version 0.0.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from edgekit.device.serving import LATENCY_BOUNDS_S, Statistics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64)


def exposition(about: Mapping[str, str], requests: Counter[int], statistics: Statistics) -> str:
    """The page that Prometheus reads.

    Args:
        about: labels of the bundle.
        requests: how many were answered with each status.
        statistics: the batcher's.
    """
    labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in about.items())
    lines = [
        *_head("edgekit_bundle_info", "gauge", "The bundle that is served."),
        f"edgekit_bundle_info{{{labels}}} 1",
        *_head("edgekit_requests_total", "counter", "Requests to /predict, by the status they were answered with."),
        *[f'edgekit_requests_total{{status="{status}"}} {count}' for status, count in sorted(requests.items())],
        *_head("edgekit_inputs_total", "counter", "Accepted inputs, by how they ended."),
        *[
            f'edgekit_inputs_total{{end="{end}"}} {getattr(statistics, end)}'
            for end in ("answered", "failed", "cancelled")
        ],
        *_head("edgekit_inputs_shed_total", "counter", "Inputs turned away because too many waited."),
        f"edgekit_inputs_shed_total {statistics.shed}",
        *_head("edgekit_inputs_waiting", "gauge", "Inputs that wait for a batch."),
        f"edgekit_inputs_waiting {statistics.waiting}",
        *_head("edgekit_inputs_running", "gauge", "Inputs in the batch that runs."),
        f"edgekit_inputs_running {statistics.running}",
    ]
    sizes = statistics.batches
    buckets = [sum(n for size, n in sizes.items() if size <= bound) for bound in BATCH_BOUNDS]
    lines += _histogram(
        "edgekit_batch_size",
        "Inputs in a batch.",
        dict(zip(BATCH_BOUNDS, buckets, strict=True)),
        sum(sizes.values()),
        sum(size * n for size, n in sizes.items()),
    )
    counts = [sum(statistics.latency[: index + 1]) for index in range(len(LATENCY_BOUNDS_S))]
    lines += _histogram(
        "edgekit_latency_seconds",
        "From acceptance to the answer.",
        dict(zip(LATENCY_BOUNDS_S, counts, strict=True)),
        sum(statistics.latency),
        statistics.latency_sum_s,
    )
    return "\n".join([*lines, ""])


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _histogram(
    name: str, text: str, buckets: Mapping[float, int] | Mapping[int, int], count: int, total: float
) -> Iterator[str]:
    yield from _head(name, "histogram", text)
    for bound, value in buckets.items():
        yield f'{name}_bucket{{le="{bound:g}"}} {value}'
    yield f'{name}_bucket{{le="+Inf"}} {count}'
    yield f"{name}_sum {total:.9g}"
    yield f"{name}_count {count}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
