"""All the way: a model of a library, data where they lie, export, int8, validate, bundle."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from edgekit.cli import main
from edgekit.device import load

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "a", "the"]


def run(capsys, *words):
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out


def right(path, feeds, labels):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return 100 * float((session.run(None, feeds)[0].argmax(1) == labels).mean())


def validated(capsys, words, files):
    named = [word for path in files for word in ("--file", path)]
    out = run(
        capsys, "validate", *words, *named, "--split", "all-test", "--time", "1s", "--robustness-time", "0", "--json"
    )
    return [row["score"]["metric"]["value"] for row in json.loads(out)["rows"]]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_network_of_timm_with_a_folder_of_images(timm, tmp_path, capsys):
    """The classes of the folder are numbered by the alphabet; the labels are named in the network's order."""
    torch.manual_seed(0)
    network = timm.create_model("test_byobnet", num_classes=2).eval()
    save_file(network.state_dict(), tmp_path / "best.safetensors")
    rng = np.random.default_rng(0)
    for index in range(48):
        folder = tmp_path / "images" / ("night" if index % 2 else "day")
        folder.mkdir(parents=True, exist_ok=True)
        light = rng.integers(0, 90, (40, 48, 3)) + (0 if index % 2 else 160)
        Image.fromarray(light.astype(np.uint8)).save(folder / f"{index}.png")
    words = ["timm:test_byobnet", "--weights", tmp_path / "best.safetensors", "--image-size", "32"]
    words += ["--train", tmp_path / "images", "--test", tmp_path / "images", "--labels", "night,day"]
    fp32, int8 = tmp_path / "model.onnx", tmp_path / "model.int8.onnx"
    run(capsys, "export", *words, "--out", fp32)
    run(capsys, "quantize", *words, "--file", fp32, "--placement", "rules", "--out", int8)
    found = validated(capsys, words, [fp32, int8])
    settings = timm.data.resolve_data_config({}, model=network)
    settings["input_size"] = (3, 32, 32)
    transform = timm.data.create_transform(**settings)
    paths = sorted((tmp_path / "images").rglob("*.png"))
    pixels = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths]).numpy()
    labels = np.array([["night", "day"].index(path.parent.name) for path in paths])
    assert found == pytest.approx([right(path, {"x": pixels}, labels) for path in (fp32, int8)], abs=100 / 48 + 0.01)
    run(capsys, "bundle", *words, "--file", f"fp32={fp32}", "--out", tmp_path / "net.edgekit")
    model = load(tmp_path / "net.edgekit")
    with torch.no_grad():
        said = network(torch.from_numpy(pixels[:1])).softmax(1)[0]
    assert model.predict(paths[0]).label == ["night", "day"][int(said.argmax())]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_text_classifier_of_transformers_with_a_table(transformers, tmp_path, capsys):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
        id2label={0: "sad", 1: "glad"},
        label2id={"sad": 0, "glad": 1},
    )
    network = transformers.BertForSequenceClassification(config).eval()
    network.save_pretrained(tmp_path / "bert")
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    tokenizer.save_pretrained(tmp_path / "bert")
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS[5:], 4)) for _ in range(64)]
    names = ["glad" if "good" in text else "sad" for text in texts]
    lines = [f"{text},{name}" for text, name in zip(texts, names, strict=True)]
    (tmp_path / "reviews.csv").write_text("\n".join(["review,mood", *lines]))
    data = f"{tmp_path / 'reviews.csv'}?text=review&label=mood"
    words = [f"hf:{tmp_path / 'bert'}?tokens=8", "--train", data, "--test", data]
    fp32, int8 = tmp_path / "model.onnx", tmp_path / "model.int8.onnx"
    run(capsys, "export", *words, "--out", fp32)
    run(capsys, "quantize", *words, "--file", fp32, "--out", int8)
    found = validated(capsys, words, [fp32, int8])
    ids = tokenizer(texts, padding="max_length", truncation=True, max_length=8, return_tensors="np")
    feeds = {name: ids[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
    labels = np.array([["sad", "glad"].index(name) for name in names])
    assert found == pytest.approx([right(path, feeds, labels) for path in (fp32, int8)])
    run(capsys, "bundle", *words, "--file", f"fp32={fp32}", "--out", tmp_path / "bert.edgekit")
    answer = load(tmp_path / "bert.edgekit").predict(texts[0])
    with torch.no_grad():
        said = network(**{name: torch.from_numpy(values[:1]) for name, values in feeds.items()}).logits
    assert answer.label == ("sad", "glad")[int(said.argmax())]
