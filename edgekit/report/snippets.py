"""Code that runs a bundle, in several languages, with the names, shapes and labels of one bundle in it.

Python, C++ and JavaScript have edgekit's own libraries, which do all that the bundle records. The others are given a
prepared tensor and ONNX Runtime's API of their language: the packages onnxruntime-android and onnxruntime-objc,
Microsoft.ML.OnnxRuntime from 1.16, the crate ort from 2.0.0-rc.10.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OURS = ("Python", "C++", "JavaScript")
"""Languages that edgekit has a library for."""

SHOWN_LABELS = 20
"""So many labels are written out; of more, the index is printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """A piece of code: its language, Markdown's name of it, and whether it uses edgekit's own library."""

    language: str
    fence: str
    code: str
    ours: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input or output, with 1 for a size that is open."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def values(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


_TAKES = {"image": "image", "log_mel": "sound", "waveform": "sound", "wordpiece": "wordpiece"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What snippets need to know of a bundle.

    Attributes:
        folder: its folder's name.
        inputs, output: the model's inputs, and the output that answers.
        labels: names of the classes.
        takes: what `predict` takes: `image`, `sound`, `wordpiece`, or `tensors`.
        gives: what it answers: `classification`, `detection`, `text`, or `tensors`.
        sample_rate: of sound.
    """

    folder: str
    inputs: tuple[Tensor, ...]
    output: Tensor
    labels: tuple[str, ...]
    takes: str
    gives: str
    sample_rate: int | None = None

    @classmethod
    def of(cls, about: Mapping[str, Any], folder: str) -> Bundle:
        """From what `edgekit/bundle.json` holds."""
        before, after = about["preprocessing"] or {}, about["postprocessing"] or {}
        inputs, outputs = ([_tensor(row) for row in about["io"][side]] for side in ("inputs", "outputs"))
        name = after.get("output") or (after.get("scores") if after.get("kind") == "detection" else None)
        first = about["io"]["inputs"][0]
        # With the preprocessing in the graph, the input is the image itself.
        pixels = not before and len(inputs) == 1 and first["dtype"] == "uint8" and first["shape"][2:] == [3]
        return cls(
            folder=folder,
            inputs=tuple(inputs),
            output=next((each for each in outputs if each.name == name), outputs[0]),
            labels=tuple(about["labels"]),
            takes=_TAKES.get(before.get("kind", ""), "image" if pixels else "tensors"),
            gives=after.get("kind") or "tensors",
            sample_rate=before.get("sample_rate"),
        )

    @property
    def written_labels(self) -> bool:
        """Whether the labels are few enough to be written out."""
        return self.gives == "classification" and 0 < len(self.labels) <= SHOWN_LABELS


def snippets(about: Mapping[str, Any], folder: str) -> tuple[Snippet, ...]:
    """Code for each language; those whose API has no ready type for an input or output are left out."""
    bundle = Bundle.of(about, folder)
    makers: tuple[tuple[str, str, Callable[[Bundle], str], Collection[str]], ...] = (
        ("Python", "python", python, ()),
        ("C++", "cpp", cpp, _CPP),
        ("JavaScript", "js", javascript, _JS),
        ("Kotlin (Android)", "kotlin", kotlin, _KOTLIN),
        ("Swift (iOS)", "swift", swift, _SWIFT),
        ("C#", "csharp", csharp, _CSHARP),
        ("Rust", "rust", rust, _RUST),
    )
    dtypes = {each.dtype for each in (*bundle.inputs, bundle.output)}
    return tuple(
        Snippet(language=language, fence=fence, code=make(bundle), ours=language in OURS)
        for language, fence, make, known in makers
        if dtypes <= set(known) or make is python
    )


def python(bundle: Bundle) -> str:
    """edgekit.device: numpy and onnxruntime."""
    given = {
        "image": '"photo.jpg"',
        "sound": '"sound.wav"',
        "wordpiece": '"A text of yours."',
        "tensors": "inputs",
    }[bundle.takes]
    remark = {
        "image": "  # a file, or uint8 [height, width, 3] in RGB order",
        "sound": f"  # a file of {bundle.sample_rate} Hz, or samples [n] in [-1, 1]",
        "wordpiece": "",
        "tensors": "",
    }[bundle.takes]
    lines = ["from edgekit.device import load  # pip install 'edgekit[cpu,image]': numpy, onnxruntime and Pillow", ""]
    if bundle.takes == "tensors":
        lines = ["import numpy as np", *lines]
    lines.append(f"model = load({_text(bundle.folder, 'python')})  # every file is checked before it is used")
    if bundle.takes == "tensors":
        rows = [f'    {_text(each.name, "python")}: np.zeros({each.shape}, "{each.dtype}"),' for each in bundle.inputs]
        lines += ["inputs = {", *rows, "}"]
    answer = "for found in answer:\n    print(found)" if bundle.gives == "detection" else "print(answer)"
    return "\n".join([*lines, f"answer = model.predict({given}){remark}", answer])


def cpp(bundle: Bundle) -> str:
    """edgekit/edgekit.hpp: C++17, header-only, and ONNX Runtime's library."""
    given = {
        "image": "edgekit::ImageView{height, width, 3, pixels}",
        "sound": "edgekit::Sound{samples}",
        "wordpiece": '"A text of yours."',
        "tensors": "inputs",
    }[bundle.takes]
    made = {
        "image": [
            "const std::size_t height = 480, width = 640;",
            "const std::vector<std::uint8_t> bytes(height * width * 3);  // yours: RGB, row by row",
            "const std::uint8_t* pixels = bytes.data();",
        ],
        "sound": [f"const std::vector<float> samples({bundle.sample_rate});  // yours: mono, {bundle.sample_rate} Hz"],
        "wordpiece": [],
        "tensors": [
            "edgekit::Tensors inputs;",
            *[
                f"inputs[{_text(each.name, 'cpp')}] = edgekit::Tensor::of({{{_listed(each.shape)}}}, "
                f"std::vector<{_CPP[each.dtype]}>({each.values}));"
                for each in bundle.inputs
            ],
        ],
    }[bundle.takes]
    said = {
        "classification": ["std::puts(answer->predictions[0].label.c_str());"],
        "detection": ["for (const auto& found : answer->detections) std::puts(found.label.c_str());"],
        "text": ["std::puts(answer->text.c_str());"],
        "tensors": [f'std::printf("%zu\\n", answer->outputs.at({_text(bundle.output.name, "cpp")}).shape.size());'],
    }[bundle.gives]
    body = [
        f"auto model = edgekit::Model::load({_text(bundle.folder, 'cpp')});",
        "if (!model) return std::puts(model.error().text().c_str()), 4;",
        *made,
        f"auto answer = model->predict({given});",
        "if (!answer) return std::puts(answer.error().text().c_str()), 4;",
        *said,
    ]
    head = ["#include <cstdio>", "#include <vector>", "", '#include "edgekit/edgekit.hpp"', "", "int main() {"]
    return "\n".join([*head, *[f"  {line}" for line in body], "}"])


def javascript(bundle: Bundle) -> str:
    """The package edgekit, on onnxruntime-web or onnxruntime-node."""
    given = {
        "image": [
            "const raw = context.getImageData(0, 0, canvas.width, canvas.height);  // or { data, width, height }"
        ],
        "sound": [f"const raw = new Float32Array({bundle.sample_rate});  // yours: mono, {bundle.sample_rate} Hz"],
        "wordpiece": ["const raw = 'A text of yours.';"],
        "tensors": [
            "const raw = {",
            *[
                f"  {_text(each.name, 'js')}: {{ dtype: '{each.dtype}', shape: [{_listed(each.shape)}], "
                f"data: new {_JS[each.dtype]}({each.values}) }},"
                for each in bundle.inputs
            ],
            "};",
        ],
    }[bundle.takes]
    answer = "answer"
    if bundle.gives == "classification":
        answer = "answer.label, answer.confidence"
    elif bundle.gives == "tensors":
        answer = f"answer[{_text(bundle.output.name, 'js')}].data"
    zipped = _text(f"{bundle.folder}.zip", "js")
    return "\n".join(
        [
            "import { load } from 'edgekit';",
            "",
            f"const model = await load({zipped});  // the bundle as one file; in Node also its folder",
            *given,
            "const answer = await model.predict(raw);",
            f"console.log({answer});",
        ]
    )


def kotlin(bundle: Bundle) -> str:
    """ai.onnxruntime, from onnxruntime-android."""
    rows = []
    for each in bundle.inputs:
        array, buffer, more = _KOTLIN[each.dtype]
        rows.append(
            f"    {_text(each.name, 'kotlin')} to OnnxTensor.createTensor(environment, "
            f"{buffer}.wrap({array}({each.values})), longArrayOf({_listed(each.shape)}){more}),"
        )
    array, buffer, _ = _KOTLIN[bundle.output.dtype]
    getter = {"FloatBuffer": "floatBuffer", "LongBuffer": "longBuffer", "IntBuffer": "intBuffer"}.get(
        buffer, "byteBuffer"
    )
    imports = sorted({_KOTLIN[each.dtype][1] for each in bundle.inputs})
    typed = ["import ai.onnxruntime.OnnxJavaType"] if any(_KOTLIN[each.dtype][2] for each in bundle.inputs) else []
    return "\n".join(
        [
            *typed,
            "import ai.onnxruntime.OnnxTensor",
            "import ai.onnxruntime.OrtEnvironment",
            "import ai.onnxruntime.OrtSession",
            *[f"import java.nio.{each}" for each in imports],
            "",
            "val environment = OrtEnvironment.getEnvironment()",
            'val model = assets.open("model.onnx").use { it.readBytes() }',
            "val session = environment.createSession(model, OrtSession.SessionOptions())",
            "val inputs = mapOf(",
            *rows,
            ")",
            "session.run(inputs).use { result ->",
            f"    val output = result.get({_text(bundle.output.name, 'kotlin')}).get() as OnnxTensor",
            f"    val buffer = output.{getter}",
            f"    val scores = {array}(buffer.remaining()).also {{ buffer.get(it) }}",
            *_indented(_best(bundle, "kotlin"), 4),
            "}",
            "inputs.values.forEach { it.close() }",
        ]
    )


def swift(bundle: Bundle) -> str:
    """ORTSession, from onnxruntime-objc."""
    made = [
        f"var values{index} = [{_SWIFT[each.dtype][0]}](repeating: 0, count: {each.values})"
        for index, each in enumerate(bundle.inputs)
    ]
    rows = []
    for index, each in enumerate(bundle.inputs):
        kind, element = _SWIFT[each.dtype]
        size = f"values{index}.count * MemoryLayout<{kind}>.stride"
        rows += [
            f"    {_text(each.name, 'swift')}: try ORTValue(",
            f"        tensorData: NSMutableData(bytes: &values{index}, length: {size}),",
            f"        elementType: {element}, shape: [{_listed(each.shape)}]),",
        ]
    output = _text(bundle.output.name, "swift")
    kind = _SWIFT[bundle.output.dtype][0]
    return "\n".join(
        [
            "import Foundation",
            "import onnxruntime_objc  // the Swift package calls it OnnxRuntimeBindings",
            "",
            "let environment = try ORTEnv(loggingLevel: .warning)",
            'let path = Bundle.main.path(forResource: "model", ofType: "onnx")!',
            "let session = try ORTSession(env: environment, modelPath: path, sessionOptions: nil)",
            *made,
            "let inputs = [",
            *rows,
            "]",
            f"let outputs = try session.run(withInputs: inputs, outputNames: [{output}], runOptions: nil)",
            f"let scores: [{kind}] = try withExtendedLifetime(outputs) {{",
            f"    let data = try outputs[{output}]!.tensorData() as Data",
            f"    return data.withUnsafeBytes {{ Array($0.bindMemory(to: {kind}.self)) }}",
            "}",
            *_best(bundle, "swift"),
        ]
    )


def csharp(bundle: Bundle) -> str:
    """Microsoft.ML.OnnxRuntime, with its OrtValue API."""
    made, rows = [], []
    for index, each in enumerate(bundle.inputs):
        kind = _CSHARP[each.dtype]
        shape = f"new long[] {{ {_listed(each.shape)} }}"
        made += [
            f"var values{index} = new {kind}[{each.values}];",
            f"using var tensor{index} = OrtValue.CreateTensorValueFromMemory(values{index}, {shape});",
        ]
        rows.append(f"    [{_text(each.name, 'csharp')}] = tensor{index},")
    kind = _CSHARP[bundle.output.dtype]
    return "\n".join(
        [
            "using System;",
            "using System.Collections.Generic;",
            "using System.Linq;",
            "using Microsoft.ML.OnnxRuntime;",
            "",
            'using var session = new InferenceSession("model.onnx");',
            *made,
            "var inputs = new Dictionary<string, OrtValue>",
            "{",
            *rows,
            "};",
            "using var options = new RunOptions();",
            "using var outputs = session.Run(options, inputs, new[] { " + _text(bundle.output.name, "csharp") + " });",
            f"{kind}[] scores = outputs[0].GetTensorDataAsSpan<{kind}>().ToArray();",
            *_best(bundle, "csharp"),
        ]
    )


def rust(bundle: Bundle) -> str:
    """The crate ort, 2.0."""
    rows = []
    for each in bundle.inputs:
        shape = f"{each.shape[0]}_usize" + "".join(f", {size}" for size in each.shape[1:]) if each.shape else ""
        rows.append(
            f"        {_text(each.name, 'rust')} => Tensor::from_array(([{shape}], "
            f"vec![0_{_RUST[each.dtype]}; {each.values}]))?,"
        )
    kind = _RUST[bundle.output.dtype]
    return "\n".join(
        [
            "use ort::{session::Session, value::Tensor};",
            "",
            "fn main() -> ort::Result<()> {",
            '    let mut session = Session::builder()?.commit_from_file("model.onnx")?;',
            "    let outputs = session.run(ort::inputs![",
            *rows,
            "    ])?;",
            f"    let (_shape, scores) = outputs[{_text(bundle.output.name, 'rust')}].try_extract_tensor::<{kind}>()?;",
            *_indented(_best(bundle, "rust"), 4),
            "    Ok(())",
            "}",
        ]
    )


_CPP = {
    "float32": "float",
    "float64": "double",
    **{f"{sign}int{bits}": f"std::{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_JS = {
    "float32": "Float32Array",
    "float64": "Float64Array",
    **{
        f"{sign}int{bits}": f"{sign.upper()}Int{bits}Array".replace("UI", "Ui")
        for sign in ("", "u")
        for bits in (8, 16, 32)
    },
    "int64": "BigInt64Array",
    "uint64": "BigUint64Array",
}
_KOTLIN = {
    "float32": ("FloatArray", "FloatBuffer", ""),
    "int32": ("IntArray", "IntBuffer", ""),
    "int64": ("LongArray", "LongBuffer", ""),
    "uint8": ("ByteArray", "ByteBuffer", ", OnnxJavaType.UINT8"),
}
_SWIFT = {
    "float32": ("Float", ".float"),
    "int32": ("Int32", ".int32"),
    "int64": ("Int64", ".int64"),
    "uint8": ("UInt8", ".uInt8"),
}
_CSHARP = {"float32": "float", "int32": "int", "int64": "long", "uint8": "byte"}
_RUST = {"float32": "f32", "int32": "i32", "int64": "i64", "uint8": "u8"}

_BEST = {
    "kotlin": ("val best = scores.indices.maxBy { scores[it] }", "val labels = listOf(%s)", "println(%s)"),
    "swift": ("let best = scores.indices.max { scores[$0] < scores[$1] }!", "let labels = [%s]", "print(%s)"),
    "csharp": (
        "int best = Array.IndexOf(scores, scores.Max());",
        "var labels = new[] { %s };",
        "Console.WriteLine(%s);",
    ),
    "rust": (
        "let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap();",
        "let labels = [%s];",
        'println!("{}", %s);',
    ),
}
_ALL = {
    "kotlin": 'println(scores.joinToString(" "))',
    "swift": "print(scores)",
    "csharp": 'Console.WriteLine(string.Join(" ", scores));',
    "rust": 'println!("{scores:?}");',
}


def _best(bundle: Bundle, language: str) -> list[str]:
    """Lines that print the likeliest label; or all numbers, where there are no labels."""
    if bundle.gives != "classification" or bundle.output.dtype != "float32":
        return [_ALL[language]]
    best, labels, said = _BEST[language]
    if not bundle.written_labels:
        return [best, f'{said % "best"}  // an index into "labels" of edgekit/bundle.json']
    return [best, labels % ", ".join(_text(each, language) for each in bundle.labels), said % "labels[best]"]


def _indented(lines: Sequence[str], spaces: int) -> list[str]:
    return [" " * spaces + line for line in lines]


def _listed(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))


def _tensor(row: Mapping[str, Any]) -> Tensor:
    shape = tuple(1 if isinstance(size, str) else size for size in row["shape"])
    return Tensor(name=row["name"], dtype=row["dtype"], shape=shape)


def _text(text: str, language: str) -> str:
    """A literal of `text`: quotes, backslashes and control characters escaped, `$` where it would interpolate."""
    quoted = json.dumps(text, ensure_ascii=False)
    if language in ("swift", "rust"):
        # Short forms that JSON has and these languages have not, and code points, which they put in braces.
        quoted = re.sub(r'\\(u[0-9a-f]{4}|[bf\\"nrt])', _braced, quoted)
    return quoted.replace("$", "\\$").replace("\\f", "\\u000c") if language == "kotlin" else quoted


def _braced(found: re.Match[str]) -> str:
    code = {"b": "u{8}", "f": "u{c}"}.get(found[1], found[1])
    return "\\" + (f"u{{{int(code[1:], 16):x}}}" if re.fullmatch("u[0-9a-f]{4}", code) else code)
