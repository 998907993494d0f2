import json

import numpy as np
import pytest
import torch
from PIL import Image

from edgekit.device.processing import Vocabulary
from edgekit.errors import WorkloadError
from edgekit.tasks import classification
from edgekit.workload import load_model

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "##s", "a"]


def bert(transformers, folder, **labels):
    """A tiny text classifier with its tokenizer in `folder`."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=24,
        num_labels=2,
        **labels,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture
def text_model(transformers, tmp_path):
    return bert(transformers, tmp_path / "bert", id2label={0: "sad", 1: "glad"}, label2id={"sad": 0, "glad": 1})


@pytest.fixture
def image_model(transformers, tmp_path):
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        num_labels=3,
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


def test_a_text_model_gives_logits_of_ids_and_mask(transformers, text_model):
    source = load_model(f"hf:{text_model}?tokens=8")
    inputs = source.text("a good film")
    assert {name: values.tolist() for name, values in inputs.items()} == {
        "input_ids": [2, 9, 5, 7, 3, 0, 0, 0],
        "attention_mask": [1, 1, 1, 1, 1, 0, 0, 0],
    }
    batch = {name: torch.from_numpy(values)[None] for name, values in inputs.items()}
    own = transformers.BertForSequenceClassification.from_pretrained(text_model).eval()
    with torch.no_grad():
        assert torch.equal(source.factory().eval()(**batch), own(**batch).logits)
    assert source.labels == ("sad", "glad")


def test_a_bundle_s_preprocessing_makes_the_same_ids(text_model):
    source = load_model(f"hf:{text_model}?tokens=8")
    vocabulary = Vocabulary.parse(source.vocabulary)
    assert vocabulary.tokens == tuple(WORDS)
    for text in ("a good film", "Bad films, a GOOD film?", "", "good " * 20):
        ours = source.preprocessing.apply(text, vocabulary)
        assert {name: ids[0].tolist() for name, ids in ours.items()} == {
            name: ids.tolist() for name, ids in source.text(text).items()
        }


def test_texts_are_as_long_as_the_model_takes_them(text_model):
    assert len(load_model(f"hf:{text_model}").text("film")["input_ids"]) == 24
    with pytest.raises(WorkloadError, match="tokens is '25'") as caught:
        load_model(f"hf:{text_model}?tokens=25")
    assert caught.value.rule == "a number from 1 to 24"


def test_placeholders_are_no_labels(transformers, tmp_path):
    assert load_model(f"hf:{bert(transformers, tmp_path / 'plain')}").labels == ()


def test_an_image_model_gives_logits(transformers, image_model):
    source = load_model(f"hf:{image_model}")
    pixels = torch.randn(2, 3, 32, 32)
    own = transformers.ViTForImageClassification.from_pretrained(image_model).eval()
    with torch.no_grad():
        assert torch.equal(source.factory().eval()(pixels), own(pixel_values=pixels).logits)
    assert source.preprocessing is None


def test_a_model_of_tokens_gives_logits_by_class(transformers, tmp_path):
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        id2label={0: "O", 1: "PLACE", 2: "NAME"},
    )
    own = transformers.BertForTokenClassification(config).eval()
    own.save_pretrained(tmp_path / "t")
    source = load_model(f"hf:{tmp_path / 't'}")
    # Names and texts are for what has one class; here every position has one.
    assert (source.labels, source.text) == ((), None)
    batch = {"input_ids": torch.randint(20, (2, 7)), "attention_mask": torch.ones(2, 7, dtype=torch.long)}
    with torch.no_grad():
        found = source.factory().eval()(**batch)
        assert torch.equal(found, own(**batch).logits.transpose(1, 2))
    target = torch.tensor([[0, 1, 2, -100, -100, -100, -100], [1, 1, 0, 0, 2, 2, -100]])
    with torch.no_grad():
        assert torch.isclose(classification().loss(found, target), own(**batch, labels=target).loss)


def test_a_model_of_pixels_gives_logits_as_large_as_its_image(transformers, tmp_path):
    config = transformers.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
        num_labels=4,
    )
    own = transformers.SegformerForSemanticSegmentation(config).eval()
    own.save_pretrained(tmp_path / "s")
    pixels, target = torch.randn(2, 3, 32, 48), torch.randint(4, (2, 32, 48))
    with torch.no_grad():
        found = load_model(f"hf:{tmp_path / 's'}").factory().eval()(pixels)
        assert found.shape == (2, 4, 32, 48)
        assert torch.isclose(classification().loss(found, target), own(pixels, labels=target).loss)


def test_an_audio_model_gives_logits(transformers, tmp_path):
    config = transformers.ASTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        patch_size=4,
        frequency_stride=4,
        time_stride=4,
        max_length=16,
        num_mel_bins=8,
        num_labels=3,
    )
    own = transformers.ASTForAudioClassification(config)
    own.save_pretrained(tmp_path / "ast")
    sounds = torch.randn(2, 16, 8)
    with torch.no_grad():
        found = load_model(f"hf:{tmp_path / 'ast'}").factory().eval()(sounds)
        assert torch.equal(found, own.eval()(sounds).logits)


def test_features_of_sound_go_by_the_name_that_the_network_has_for_them(transformers, tmp_path):
    config = transformers.WhisperConfig(
        d_model=16,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        num_mel_bins=8,
        max_source_positions=10,
        vocab_size=20,
        pad_token_id=0,
        num_labels=3,
    )
    own = transformers.WhisperForAudioClassification(config).eval()
    own.save_pretrained(tmp_path / "w")
    sounds = torch.randn(2, 8, 20)
    with torch.no_grad():
        found = load_model(f"hf:{tmp_path / 'w'}").factory().eval()(sounds)
        assert torch.equal(found, own(input_features=sounds).logits)


def test_a_configuration_may_name_no_classes(transformers, tmp_path):
    config = transformers.PvtConfig(hidden_sizes=[8, 8, 8, 8], depths=[1] * 4, num_attention_heads=[1] * 4)
    transformers.PvtForImageClassification(config).save_pretrained(tmp_path / "pvt")
    assert json.loads((tmp_path / "pvt" / "config.json").read_text()).get("id2label") is None
    assert load_model(f"hf:{tmp_path / 'pvt'}").labels == ()


def test_a_tokenizer_that_needs_a_package_says_which(transformers, text_model, monkeypatch):
    def refuse(*_, **__):
        raise ImportError("You need to install sacremoses to use this")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
    with pytest.raises(WorkloadError, match="its tokenizer cannot be loaded: You need to install sacremoses"):
        load_model(f"hf:{text_model}")
    # Without files of a tokenizer there is none to be loaded: data come as ids.
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        (text_model / name).unlink(missing_ok=True)
    assert load_model(f"hf:{text_model}").text is None


@pytest.mark.parametrize(("mask", "of"), [(True, "recording"), (False, "input")])
def test_a_network_that_listens_to_the_waveform_says_how_it_wants_it(transformers, tmp_path, mask, of):
    config = transformers.Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_stride=(5, 2),
        conv_kernel=(10, 3),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=8,
        num_labels=3,
    )
    own = transformers.Wav2Vec2ForSequenceClassification(config).eval()
    own.save_pretrained(tmp_path / "w")
    extractor = transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000, return_attention_mask=mask)
    extractor.save_pretrained(tmp_path / "w")
    source = load_model(f"hf:{tmp_path / 'w'}")
    before = source.preprocessing
    assert (before.sample_rate, before.samples, before.normalize) == (8000, None, of)
    sound = np.random.default_rng(0).standard_normal(400).astype(np.float32)
    wanted = extractor(sound, sampling_rate=8000, return_tensors="np")["input_values"]
    np.testing.assert_allclose(before.apply(sound), wanted, atol=1e-5)
    with torch.no_grad():
        found = source.factory().eval()(torch.from_numpy(wanted))
        assert torch.equal(found, own(torch.from_numpy(wanted)).logits)


PROCESSORS = {
    "stretch": {"size": {"height": 32, "width": 32}, "resample": 2},
    "crop": {
        "size": {"shortest_edge": 40},
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
        "resample": 2,
    },
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_preprocessing_is_that_of_the_image_processor(transformers, image_model, name):
    """Against the processor that transformers makes of the same file, with Pillow."""
    entries = {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.5, 0.6, 0.7],
        "rescale_factor": 1 / 255,
        "image_processor_type": "ViTImageProcessor" if name == "stretch" else "CLIPImageProcessor",
        **PROCESSORS[name],
    }
    (image_model / "preprocessor_config.json").write_text(json.dumps(entries))
    known = load_model(f"hf:{image_model}").preprocessing
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize((96, 64), Image.Resampling.BILINEAR)
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(image_model, backend="pil")
    except (ImportError, TypeError, ValueError) as error:
        pytest.skip(f"transformers makes no image processor here: {error}")
    theirs = np.asarray(processor(picture, return_tensors="np")["pixel_values"])
    assert np.abs(known.apply(np.asarray(picture)) - theirs).max() < 1e-5


def test_convnext_resizes_to_more_and_cuts_out(image_model):
    entries = {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 2, "do_resize": True}
    (image_model / "preprocessor_config.json").write_text(json.dumps(entries))
    known = load_model(f"hf:{image_model}").preprocessing
    assert (known.size, known.shorter_side) == ((224, 224), 256)


def test_a_pickle_is_read_only_if_it_is_trusted(transformers, image_model):
    own = transformers.ViTForImageClassification.from_pretrained(image_model)
    torch.save(own.state_dict(), image_model / "pytorch_model.bin")
    (image_model / "model.safetensors").unlink()
    with pytest.raises(WorkloadError, match="the weights cannot be loaded") as caught:
        load_model(f"hf:{image_model}").factory()
    assert "--trust-pickle" in caught.value.way_out
    made = load_model(f"hf:{image_model}", trusted=image_model / "pytorch_model.bin").factory()
    assert torch.equal(made.model.classifier.weight, own.classifier.weight)


def test_a_torchvision_that_does_not_fit_is_said_to_be_so(transformers, text_model, monkeypatch):
    def from_pretrained(*_, **__):
        raise ModuleNotFoundError("Could not import module") from RuntimeError(
            "operator torchvision::nms does not exist"
        )

    source = load_model(f"hf:{text_model}")
    monkeypatch.setattr(transformers.AutoModelForSequenceClassification, "from_pretrained", from_pretrained)
    with pytest.raises(WorkloadError) as caught:
        source.factory()
    assert caught.value.problem.endswith("RuntimeError: operator torchvision::nms does not exist")
    assert "built for this torch" in caught.value.way_out


def test_wrong_spellings(transformers, tmp_path, text_model):
    with pytest.raises(WorkloadError, match="no folder") as caught:
        load_model(f"hf:{text_model}t")
    assert caught.value.way_out == "did you mean bert?"
    with pytest.raises(WorkloadError, match="unknown option 'token'"):
        load_model(f"hf:{text_model}?token=3")
    with pytest.raises(WorkloadError, match="and no such repository in the cache") as caught:
        load_model("hf:nobody/nothing")
    assert caught.value.way_out == "fetch it once: hf download nobody/nothing"
    (tmp_path / "empty").mkdir()
    with pytest.raises(WorkloadError, match="no model in"):
        load_model(f"hf:{tmp_path / 'empty'}")
    transformers.BertConfig(architectures=["BertForMaskedLM"]).save_pretrained(tmp_path / "mlm")
    with pytest.raises(WorkloadError, match="a BertForMaskedLM") as caught:
        load_model(f"hf:{tmp_path / 'mlm'}")
    assert "classification" in caught.value.rule
    with pytest.raises(WorkloadError, match="weights for hf:") as caught:
        load_model(f"hf:{text_model}", weights=text_model / "x.safetensors")
    assert caught.value.way_out == "it has its weights in its folder"
