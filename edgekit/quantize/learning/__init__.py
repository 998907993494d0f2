"""Quantization that learns: rounding of weights block by block, and training with quantized weights and activations."""
