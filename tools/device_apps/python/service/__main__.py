"""Serve a bundle: python tools/device_apps/python/service resnet20.edgekit --port 8000."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import uvicorn
from app import Limits, create_app

from edgekit.device import load
from edgekit.errors import EdgekitError


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C; 4 where the bundle is at fault."""
    known = Limits()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", help="a bundle")
    parser.add_argument("--digest", help="the bundle's identity; another one is refused")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this host only)")
    parser.add_argument("--port", type=int, default=8000, help="port (default 8000; 0 takes a free one)")
    parser.add_argument("--provider", help="cpu, cuda or tensorrt; the best that works without")
    parser.add_argument("--threads", type=int, default=1, help="threads of ONNX Runtime (default 1)")
    parser.add_argument("--max-batch", type=int, default=known.max_batch, help="rows in a batch at most (default 8)")
    parser.add_argument(
        "--max-wait-ms", type=float, default=0.0, help="how long an input waits for company (default 0)"
    )
    parser.add_argument("--queue", type=int, default=known.queue, help="inputs that may wait (default 64)")
    parser.add_argument("--max-body-mb", type=float, default=10.0, help="longest body in megabytes (default 10)")
    parser.add_argument(
        "--timeout", type=float, default=known.predict_timeout_s, help="seconds for an answer (default 10)"
    )
    options = parser.parse_args(arguments)
    limits = Limits(
        max_batch=options.max_batch,
        max_wait_s=options.max_wait_ms / 1e3,
        queue=options.queue,
        max_body_bytes=int(options.max_body_mb * 1e6),
        predict_timeout_s=options.timeout,
    )
    try:
        model = load(options.bundle, provider=options.provider, threads=options.threads, digest=options.digest)
    except EdgekitError as error:
        print(error, file=sys.stderr)
        return EdgekitError.exit_code
    print(f"{model.explain()}\nbundle {model.digest}", file=sys.stderr)
    uvicorn.run(
        create_app(model, limits),
        host=options.host,
        port=options.port,
        server_header=False,
        # Bodies are read before the queue is asked: so many at a time bound the memory that they take.
        limit_concurrency=4 * limits.queue,
        timeout_graceful_shutdown=int(limits.drain_s + limits.predict_timeout_s),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
