"""AIMET: QuantizationSimModel with 8-bit weights and activations, and its QDQ file.

pip install aimet-onnx, in an environment of its own.

The default configuration has symmetric weights per channel and asymmetric activations, ranges by min-max. The weights
are written as integers (`prequantize_constants`): ONNX Runtime makes the same kernels of the file either way, and
without it the file is as large as the fp32 one.
"""

from __future__ import annotations

from harness import Job, Make, run


def load() -> Make:
    """Import it."""
    import aimet_onnx
    import onnx

    def make(job: Job) -> str:
        sim = aimet_onnx.QuantizationSimModel(
            onnx.load(job.model), param_type=aimet_onnx.int8, activation_type=aimet_onnx.int8
        )
        sim.compute_encodings(job.calibration)
        onnx.save(sim.to_onnx_qdq(prequantize_constants=True), job.path)
        return ""

    return make


if __name__ == "__main__":
    run(load, "aimet_onnx", ("aimet-onnx", "onnx", "onnxruntime", "torch"))
