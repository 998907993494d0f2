"""A bundle over HTTP: POST /predict, GET /health, /ready and /metrics.

Predictions go through one `Batcher`: what waits becomes a batch, and what comes when too much waits is answered 503
with Retry-After, so that an overloaded server stays quick to say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from decoding import decoded
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from metrics import CONTENT_TYPE, exposition

from edgekit.device import Model
from edgekit.device.model import plain
from edgekit.device.serving import Batcher, Closed, Overloaded
from edgekit.errors import BundleError, DataError, EdgekitError, ProviderError

LOG = logging.getLogger("uvicorn.error")
RETRY_AFTER_S = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much the service takes on.

    Attributes:
        max_batch, max_wait_s, queue: of the `Batcher`.
        max_body_bytes: a longer body is refused (413) as soon as it is seen to be longer.
        body_timeout_s: a body that takes longer is given up (408).
        predict_timeout_s: an answer that takes longer is given up (504), and its input taken out of the queue.
        drain_s: on shutdown, what waits is answered for so long; then it is cancelled.
    """

    max_batch: int = 8
    max_wait_s: float = 0.0
    queue: int = 64
    max_body_bytes: int = 10_000_000
    body_timeout_s: float = 10.0
    predict_timeout_s: float = 10.0
    drain_s: float = 10.0


class Refused(Exception):  # noqa: N818 - it says what became of the request
    """A request that is answered with a status of its own."""

    def __init__(self, status: int, error: EdgekitError) -> None:
        self.status, self.error = status, error
        super().__init__(str(error))


@dataclass(slots=True, kw_only=True)
class Service:
    """What the routes share."""

    model: Model
    limits: Limits
    batcher: Batcher | None = None
    ready: bool = False
    requests: Counter[int] = field(default_factory=Counter)

    @property
    def about(self) -> dict[str, str]:
        """What identifies the bundle in every answer."""
        return {"digest": self.model.digest, "name": self.model.manifest.name, "variant": self.model.variant.name}

    async def predict(self, request: Request) -> dict[str, Any]:
        """The answer to a request, JSON-ready."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.startswith("image/"):
            rule = "application/json, or an image's: image/jpeg, image/png, image/webp, image/bmp, image/gif"
            raise Refused(415, DataError(f"got {kind!r}", where="content-type", rule=rule))
        body = await self._body(request)
        batcher = self.batcher
        if batcher is None:
            raise Closed("the service is starting or ending", where="/predict", rule="GET /ready is 200")
        answer = batcher.predict(lambda: decoded(self.model, body, is_image=kind != "application/json"))
        try:
            async with asyncio.timeout(self.limits.predict_timeout_s):
                return {"bundle": self.about, "answer": finite(plain(await answer))}
        except TimeoutError as error:
            rule = f"an answer within {self.limits.predict_timeout_s:g} s"
            raise Refused(504, EdgekitError("timed out", where="/predict", rule=rule)) from error

    async def _body(self, request: Request) -> bytes:
        limit, parts, size = self.limits.max_body_bytes, [], 0
        too_long = Refused(413, DataError("the body is too long", where="body", rule=f"at most {limit} bytes"))
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > limit:
            raise too_long
        try:
            async with asyncio.timeout(self.limits.body_timeout_s):
                async for part in request.stream():
                    size += len(part)
                    if size > limit:
                        raise too_long
                    parts.append(part)
        except TimeoutError as error:
            rule = f"the whole body within {self.limits.body_timeout_s:g} s"
            raise Refused(408, DataError("the body is too slow", where="body", rule=rule)) from error
        return b"".join(parts)


def create_app(model: Model, limits: Limits | None = None) -> FastAPI:
    """The service for one loaded bundle; its golden vectors are replayed before it is ready."""
    service = Service(model=model, limits=limits or Limits())
    limits = service.limits

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if model.manifest.golden_samples:
            await asyncio.to_thread(model.check)
        service.batcher = await asyncio.to_thread(
            Batcher, model, max_batch=limits.max_batch, max_wait_s=limits.max_wait_s, queue=limits.queue
        )
        service.ready = True
        yield
        service.ready = False
        await asyncio.to_thread(service.batcher.close, timeout_s=limits.drain_s)

    # Its pages of documentation would load scripts from elsewhere.
    app = FastAPI(title="edgekit", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.service = service

    @app.middleware("http")
    async def identify(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["X-Edgekit-Bundle"] = model.digest
        return response

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        response = await answered(service, request)
        service.requests[response.status_code] += 1
        return response

    @app.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "alive", "bundle": service.about})

    @app.get("/ready")
    async def ready() -> Response:
        status = "ready" if service.ready else "not ready"
        batches = service.batcher.why_single or "yes" if service.batcher else "unknown"
        return JSONResponse(
            {"status": status, "bundle": service.about, "batches": batches}, 200 if service.ready else 503
        )

    @app.get("/metrics")
    async def metrics() -> Response:
        if service.batcher is None:
            return PlainTextResponse("", 503)
        text = exposition(service.about, service.requests, service.batcher.statistics())
        return Response(text, media_type=CONTENT_TYPE)

    return app


async def answered(service: Service, request: Request) -> Response:
    """The response to a request to predict, whatever becomes of it."""
    try:
        return JSONResponse(await service.predict(request))
    except Refused as refused:
        return fault(refused.status, refused.error)
    except (Overloaded, Closed) as error:
        return fault(503, error, {"Retry-After": str(RETRY_AFTER_S)})
    except (BundleError, ProviderError) as error:
        return fault(500, error)
    except EdgekitError as error:
        return fault(400, error)
    except Exception:
        # What went wrong inside is for the log, not for strangers.
        LOG.exception("a prediction failed")
        return fault(500, EdgekitError("the prediction failed", where="/predict", rule="see the server's log"))


def fault(status: int, error: EdgekitError, headers: dict[str, str] | None = None) -> Response:
    """An error as the command line tells it with --json."""
    parts = {"problem": error.problem, "where": error.where, "rule": error.rule, "way_out": error.way_out}
    return JSONResponse({"error": parts}, status, headers)


def finite(value: Any) -> Any:
    """`value` with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
