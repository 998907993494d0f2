"""A file's answers in ONNX Runtime, counted without edgekit's scoring."""

from __future__ import annotations

import numpy as np
import onnxruntime

from edgekit.device.variants import exact_config


def right(path, data, target):
    """0 or 100 for each sample (x, label) of `data`, with sums as the kind of CPU `target` forms them."""
    options = onnxruntime.SessionOptions()
    for key, value in exact_config(target).items():
        options.add_session_config_entry(key, value)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    x, y = (np.stack([np.asarray(item[part]) for item in data]) for part in (0, 1))
    return 100.0 * (session.run(None, {session.get_inputs()[0].name: x})[0].argmax(1) == y)
