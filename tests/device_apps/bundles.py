"""Bundles of every kind, small enough to be read in a blink, with raw inputs for them."""

from __future__ import annotations

import zipfile
from datetime import UTC, datetime

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.bundle import Golden, Variant, write_bundle
from edgekit.device.processing import (
    ClassificationPostprocessing,
    DetectionPostprocessing,
    ImagePreprocessing,
    LogMelPreprocessing,
    TextPostprocessing,
    TokenInputs,
    Vocabulary,
    WordpiecePreprocessing,
    prepared,
)
from edgekit.device.session import open_session
from edgekit.spec import IOSpec, TensorSpec

CREATED = datetime(2026, 1, 31, 12, tzinfo=UTC)
VOCABULARY = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\ncat\ns\n##s\nsat\n,\ncaf\n##e\ncafe\n\xe6\x9d\xb1\n!\n"
TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


def save(path, nodes, spec, weights):
    values = [
        [helper.make_tensor_value_info(tensor.name, TYPES[tensor.dtype], list(tensor.shape)) for tensor in tensors]
        for tensors in (spec.inputs, spec.outputs)
    ]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph([helper.make_node(*node[:3], **node[3]) for node in nodes], "g", *values, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def spec_of(inputs, outputs):
    return IOSpec(
        inputs=tuple(TensorSpec(name=name, dtype=dtype, shape=shape) for name, dtype, shape in inputs),
        outputs=tuple(TensorSpec(name=name, dtype=dtype, shape=shape) for name, dtype, shape in outputs),
    )


def write(folder, name, path, spec, raws, *, preprocessing, variants=None, proof=True, **about):
    """A bundle whose golden vectors come from `raws` through the model in `path`; without `proof` it has none."""
    vocabulary = Vocabulary.parse(about["files"]["edgekit/vocabulary.txt"]) if "files" in about else None
    session, golden = open_session(path), []
    for raw in raws if proof else ():
        inputs = prepared(preprocessing, raw, spec, vocabulary)
        names = [tensor.name for tensor in spec.outputs]
        golden.append(
            Golden(inputs=inputs, outputs=dict(zip(names, session.run(names, dict(inputs)), strict=True)), raw=raw)
        )
    return write_bundle(
        folder / f"{name}.edgekit",
        name=name,
        variants=variants or {"cpu-fp32": Variant(path=path)},
        spec=spec,
        preprocessing=preprocessing,
        golden=golden,
        created=CREATED,
        **about,
    )


def pack(bundle):
    """The bundle in one file beside it."""
    path = bundle.with_name(f"{bundle.name}.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(bundle.rglob("*")):
            if file.is_file():
                archive.writestr(zipfile.ZipInfo(file.relative_to(bundle).as_posix()), file.read_bytes())
    return path


def shapes(folder, scale=1.0, **changes):
    """Images to three classes. Its first variant pretends to be int8 for x86 with VNNI."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    spec = spec_of([("image", "float32", ("batch", 3, 8, 8))], [("scores", "float32", ("batch", 3))])
    weights = rng.standard_normal((192, 3)).astype(np.float32)
    nodes = [("Flatten", ["image"], ["flat"], {}), ("MatMul", ["flat", "w"], ["scores"], {})]
    exact = save(folder / "shapes.onnx", nodes, spec, {"w": weights})
    other = save(folder / "shapes-other.onnx", nodes, spec, {"w": scale * weights})
    raws = [rng.integers(0, 256, (13, 17, 3), dtype=np.uint8), rng.integers(0, 256, (9, 8), dtype=np.uint8)]
    preprocessing = ImagePreprocessing(
        size=(8, 8), fit="letterbox", pad=114, filter="bicubic", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)
    )
    made = write(
        folder,
        "shapes",
        exact,
        spec,
        raws,
        **{
            "preprocessing": preprocessing,
            "labels": ("circle", "square", "star"),
            "postprocessing": ClassificationPostprocessing(output="scores", top=2),
            "variants": {
                "cpu-int8": Variant(path=other, precision="int8", target="x86-vnni"),
                "cpu-fp32": Variant(path=exact),
            },
            **changes,
        },
    )
    return made, raws


def words(folder, **changes):
    """Sound to two classes."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    spec = spec_of([("features", "float32", ("batch", "frames", 12))], [("y", "float32", ("batch", 2))])
    nodes = [
        ("ReduceMean", ["features", "axes"], ["mean"], {"keepdims": 0}),
        ("MatMul", ["mean", "w"], ["y"], {}),
    ]
    weights = {"axes": np.array([1]), "w": rng.standard_normal((12, 2)).astype(np.float32)}
    path = save(folder / "words.onnx", nodes, spec, weights)
    # 200 samples are no power of two, 1200 end within a frame.
    preprocessing = LogMelPreprocessing(sample_rate=8000, window=200, hop=80, mels=12, centre=True, norm="slaney")
    raws = [rng.uniform(-0.5, 0.5, 1200).astype(np.float32), np.sin(np.arange(999) / 7).astype(np.float32)]
    about = {"labels": ("yes", "no"), "postprocessing": ClassificationPostprocessing(output="y", scores="sigmoid")}
    return write(folder, "words", path, spec, raws, preprocessing=preprocessing, **about, **changes), raws


def echo(folder):
    """Text to the same text, as far as the vocabulary knows it."""
    spec = spec_of([("ids", "int64", ("batch", "n"))], [("same", "int64", ("batch", "n"))])
    path = save(folder / "echo.onnx", [("Identity", ["ids"], ["same"], {})], spec, {})
    preprocessing = WordpiecePreprocessing(inputs=TokenInputs(ids="ids"), length=12)
    after = TextPostprocessing(output="same", stop="[SEP]", skip=("[CLS]", "[PAD]"))
    raws = ["The cats sat, café 東!", "Cats CAFÉS " * 5]
    about = {"postprocessing": after, "files": {"edgekit/vocabulary.txt": VOCABULARY}}
    return write(folder, "echo", path, spec, raws, preprocessing=preprocessing, **about), raws


def boxes(folder, **changes):
    """Images to objects: boxes that are always the same, with scores that the image decides."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(2)
    spec = spec_of(
        [("image", "float32", (1, 1, 16, 24))],
        [("boxes", "float32", (1, 6, 4)), ("scores", "float32", (1, 6, 2))],
    )
    nodes = [
        ("Flatten", ["image"], ["flat"], {}),
        ("MatMul", ["flat", "w"], ["row"], {}),
        ("Reshape", ["row", "shape"], ["scores"], {}),
        ("Identity", ["fixed"], ["boxes"], {}),
    ]
    weights = {
        "w": (0.2 * rng.standard_normal((384, 12))).astype(np.float32),
        "shape": np.array([1, 6, 2]),
        "fixed": rng.uniform(0.2, 0.8, (1, 6, 4)).astype(np.float32),
    }
    path = save(folder / "boxes.onnx", nodes, spec, weights)
    preprocessing = ImagePreprocessing(size=(16, 24), fit="crop-resize", antialias=False, mean=(0.5,), std=(0.5,))
    after = DetectionPostprocessing(
        boxes="boxes", scores="scores", format="cxcywh", coordinates="relative", iou_threshold=0.4
    )
    raws = [rng.integers(0, 256, (40, 31, 3), dtype=np.uint8) for _ in range(2)]
    about = {"labels": ("cat", "dog"), "postprocessing": after}
    return write(folder, "boxes", path, spec, raws, preprocessing=preprocessing, **about, **changes), raws
