"""The worker process of a PyTorch model: eager, or through `torch.compile`."""

from __future__ import annotations

from edgekit.device.worker import Opened, Request, fed, main
from edgekit.errors import EdgekitError
from edgekit.spec import Feeds

WORKER = "edgekit.bench.torch_worker"


def open_torch(request: Request) -> Opened:
    """Open the model that a function returns, with the inputs that the request names, by the names of its arguments.

    `torch.compile` compiles at the first run, which is where its time shows.

    Raises:
        EdgekitError: there are no inputs, the provider is another than cpu or cuda, or the function is at fault.
    """
    import torch

    from edgekit.workload.batch import as_batch
    from edgekit.workload.models import load_model

    device = request["provider"]
    if device not in ("cpu", "cuda"):
        raise EdgekitError(f"PyTorch on {device!r}", where="provider", rule="cpu or cuda")
    torch.set_num_threads(request["threads"])
    model = load_model(request["path"]).factory()
    if not isinstance(model, torch.nn.Module):
        raise EdgekitError(f"got a {type(model).__name__}", where=request["path"], rule="a torch.nn.Module")
    model = model.eval().to(device)
    feeds = fed(request, _no_inputs)
    batch = as_batch(
        ({name: torch.from_numpy(value).to(device) for name, value in feeds.items()}, torch.zeros(1)), model
    )
    called = torch.compile(model) if request["kind"] == "compiled" else model

    def run() -> None:
        with torch.inference_mode():
            batch.call(called)
            if device == "cuda":
                torch.cuda.synchronize()  # Calls return before the GPU is done.

    return Opened(run, feeds)


def _no_inputs(batch: int) -> Feeds:
    raise EdgekitError(
        f"no inputs for a batch of {batch}",
        where="bench",
        rule="a PyTorch model beside an ONNX file that says what it takes, or with data",
        way_out="--data inputs.npz, with one array for each argument of forward",
    )


if __name__ == "__main__":
    main(open_torch)
