"""edgekit: the fastest ONNX bundle inside an accuracy budget on a given device, and the proof."""
