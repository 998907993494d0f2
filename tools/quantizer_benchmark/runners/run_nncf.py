"""NNCF: post-training quantization of the ONNX file with its defaults, on all calibration samples.

pip install nncf onnx onnxruntime, in an environment of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness import Feeds, Job, Make, run


class Samples:
    """The batches sample by sample, as NNCF's documentation advises: it takes statistics of whole items."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __len__(self) -> int:
        return self._job.samples // (self._job.fixed_batch or 1)

    def __iter__(self) -> Iterator[Feeds]:
        size = self._job.fixed_batch or 1
        for feeds in self._job.calibration:
            for start in range(0, len(next(iter(feeds.values()))), size):
                yield {name: array[start : start + size] for name, array in feeds.items()}


def load() -> Make:
    """Import it."""
    import nncf
    import onnx

    def make(job: Job) -> str:
        samples = Samples(job)
        made = nncf.quantize(onnx.load(job.model), nncf.Dataset(samples), subset_size=len(samples))
        onnx.save(made, job.path)
        return ""

    return make


if __name__ == "__main__":
    run(load, "nncf", ("nncf", "onnx", "onnxruntime", "torch"))
