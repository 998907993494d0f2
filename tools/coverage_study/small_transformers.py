"""Architectures of transformers in small sizes, saved as their users save them and read by `hf:`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from edgekit.workload import Batch
from edgekit.workload.models import load_model

TOKENS, SAMPLES, FRAMES, SIDE = 32, 8000, 50, 96
"""Of the inputs: tokens of a text, samples or frames of a recording, pixels of an image that may have any size."""
VOCABULARY = 200
PADDING, FIRST, LAST = 0, 1, 2
WORDS_FROM = 5
"""Tokens below it mean something of their own."""
PADDED = 5
"""Tokens of the second text that are padding."""
LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers", "encoder_layers", "decoder_layers")
HEADS = ("num_attention_heads", "n_heads", "n_head", "num_heads", "encoder_attention_heads", "decoder_attention_heads")
WIDTHS = ("hidden_size", "d_model", "dim", "n_embd", "embedding_size", "emb_dim", "word_embed_proj_dim")
INNER = ("intermediate_size", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim", "n_inner", "hidden_dim")
SMALL: Mapping[str, int] = {
    **dict.fromkeys(LAYERS, 2),
    **dict.fromkeys(HEADS, 4),
    **dict.fromkeys(WIDTHS, 64),
    **dict.fromkeys(INNER, 128),
    "num_key_value_heads": 2,
    "head_dim": 16,
    "d_kv": 16,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 128,
    "n_positions": 128,
}
"""What any configuration that has such a number gets instead of it."""
TOKEN_IDS: Mapping[str, int] = {"pad_token_id": PADDING, "bos_token_id": FIRST, "eos_token_id": LAST}
MIXED = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16}
"""Of latent attentions."""
FOUR = {"hidden_sizes": [16, 32, 48, 64], "depths": [2, 2, 2, 2]}
BLOCKS = {"hidden_sizes": [32, 64, 96, 128], "depths": [1, 1, 1, 1]}
WINDOWS = {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "image_size": 64, "window_size": 4, "patch_size": 4}
ENCODED = {"decoder_start_token_id": PADDING}
ONE_HEAD_EACH = {"num_key_value_heads": 4}
SPECIAL: Mapping[str, Mapping[str, Any]] = {
    "audio-spectrogram-transformer": {"max_length": 128},
    "beit": {"image_size": 64},
    "bit": {"hidden_sizes": [128, 256, 384, 512], "depths": [1, 1, 1, 1], "embedding_size": 32},
    "convnext": FOUR,
    "convnextv2": FOUR,
    "deberta": {"pooler_hidden_size": 64},
    "deberta-v2": {"pooler_hidden_size": 64},
    "deepseek_v2": {**MIXED, **ONE_HEAD_EACH},
    "deepseek_v3": {**MIXED, **ONE_HEAD_EACH},
    "donut-swin": WINDOWS,
    "efficientnet": {"width_coefficient": 0.5, "depth_coefficient": 0.3, "hidden_dim": 640, "image_size": 96},
    "esm": {"vocab_size": VOCABULARY},
    "esmc": ONE_HEAD_EACH,
    "focalnet": {"depths": [1, 1, 1, 1], "embed_dim": 32},
    "funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 8},
    "hgnet_v2": {**BLOCKS, "embedding_size": 32},
    "hiera": {"depths": [1, 1, 1, 1], "embed_dim": 24, "num_heads": [1, 2, 4, 8]},
    "lilt": {"channel_shrink_ratio": 4},
    "luke": {"entity_vocab_size": 20},
    "minicpm3": {**MIXED, **ONE_HEAD_EACH},
    "mistral4": {**MIXED, **ONE_HEAD_EACH},
    "nemotron": {"head_dim": 16},
    "pvt": {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 3, 4]},
    "regnet": {**BLOCKS, "groups_width": 16, "embedding_size": 32},
    "resnet": {**BLOCKS, "embedding_size": 32},
    "squeezebert": {"embedding_size": 64},
    "swin": WINDOWS,
    "swinv2": WINDOWS,
    "t5": ENCODED,
    "mt5": ENCODED,
    "textnet": {"image_size": 96},
    "umt5": ENCODED,
    "whisper": {"max_source_positions": 50},
}
"""What single architectures need besides, or have to have smaller."""


def build(name: str) -> tuple[nn.Module, Batch, dict[str, Any]]:
    """A classifier with random weights as `hf:FOLDER` gives it, two inputs for it, and what is worth knowing.

    Args:
        name: a type of transformers, such as `bert`.

    Raises:
        ValueError: it has no classifier of that type.
    """
    import transformers

    kind, classifier = _kind(name)
    settings = _settings(name)
    torch.manual_seed(0)
    made = getattr(transformers, classifier)(settings).eval()
    if hasattr(made, "set_default_language"):
        made.set_default_language(settings.languages[0])
    with tempfile.TemporaryDirectory(prefix="edgekit-coverage-") as folder:
        made.save_pretrained(folder)
        model = load_model(f"hf:{folder}").factory().eval()
    example, side = _example(kind, settings)
    with torch.no_grad():
        example.call(model)
    return model, example, {"side": side, "parameters": sum(value.numel() for value in model.parameters())}


def _kind(name: str) -> tuple[str, str]:
    """What it classifies, and the name of the class that does."""
    from transformers.models.auto import modeling_auto as auto

    kinds = {
        "image": auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        "sound": auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
        "text": auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    }
    for kind, names in kinds.items():
        if name in names:
            found = names[name]
            return kind, found if isinstance(found, str) else found[0]
    raise ValueError(f"transformers has no classifier {name!r}")


def _settings(name: str) -> Any:
    from transformers import CONFIG_MAPPING

    small = _smaller(CONFIG_MAPPING[name]())
    return CONFIG_MAPPING[name](**{**small, **TOKEN_IDS, **SPECIAL.get(name, {})}, num_labels=10)


def _smaller(usual: Any) -> dict[str, Any]:
    """What a configuration has to be given to come out small, and the ones that it consists of."""
    small: dict[str, Any] = {key: value for key, value in SMALL.items() if type(getattr(usual, key, None)) is int}
    small |= {key: SMALL[key] for key in ("num_key_value_heads", "head_dim") if getattr(usual, key, 0) is None}
    other_names = set(usual.attribute_map)
    if isinstance(getattr(type(usual), "head_dim", None), property):
        other_names.add("head_dim")
    if hasattr(usual, "block_sizes"):
        other_names.add("num_hidden_layers")
    small = {key: value for key, value in small.items() if key not in other_names}
    parts = {key: getattr(usual, key, None) for key in ("text_config", "vision_config")}
    return {**small, **{key: _smaller(part) for key, part in parts.items() if hasattr(part, "to_dict")}}


def _example(kind: str, settings: Any) -> tuple[Batch, int | str]:
    """Two inputs, and the side of images."""
    draw = torch.Generator().manual_seed(1)
    if kind == "image":
        given = getattr(getattr(settings, "vision_config", settings), "image_size", SIDE)
        side = given if isinstance(given, int) else given[0]
        channels = getattr(settings, "num_channels", 3)
        return Batch((torch.randn(2, channels, side, side, generator=draw),), {}, None), side
    if kind == "sound":
        return Batch((torch.randn(2, *_shape_of_sound(settings), generator=draw),), {}, None), ""
    ids = torch.randint(WORDS_FROM, VOCABULARY, (2, TOKENS), generator=draw)
    mask = torch.ones_like(ids)
    ids[:, 0], ids[0, -1], ids[1, -PADDED - 1] = FIRST, LAST, LAST
    ids[1, -PADDED:], mask[1, -PADDED:] = PADDING, 0
    return Batch((), {"input_ids": ids, "attention_mask": mask}, None), ""


def _shape_of_sound(settings: Any) -> tuple[int, ...]:
    """Samples, or frames of features in the order in which the network takes them."""
    if settings.model_type == "whisper":
        return settings.num_mel_bins, 2 * settings.max_source_positions
    if settings.model_type == "audio-spectrogram-transformer":
        return settings.max_length, settings.num_mel_bins
    if settings.model_type == "wav2vec2-bert":
        return FRAMES, settings.feature_projection_input_dim
    return (SAMPLES,)
