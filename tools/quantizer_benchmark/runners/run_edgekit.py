"""edgekit's own quantizer as `edgekit quantize` calls it."""

from __future__ import annotations

from harness import Job, Make, run


def load() -> Make:
    """Import it."""
    import onnxruntime  # noqa: F401 - edgekit imports it where it needs it; for the others it is an import, too

    from edgekit.quantize import quantize
    from edgekit.spec import IOSpec

    def make(job: Job) -> str:
        spec = IOSpec.from_dict(job.spec)
        made = quantize(job.model, job.calibration, job.path, spec=spec, target=job.target, placement="measured")
        return f"{made.scheme}, {made.int8_nodes} nodes in int8"

    return make


if __name__ == "__main__":
    run(load, "edgekit", ("onnxruntime", "onnxruntime-gpu", "onnx", "onnx-ir"))
