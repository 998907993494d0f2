from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from edgekit.device import TokenInputs, Vocabulary, WordpiecePreprocessing
from edgekit.errors import DataError

SPECIAL, PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], [f"##{each}" for each in "abcdeéfßσ"]
TOKENS = [*SPECIAL, *"abcdeéèfßσ東京,.!?'$—", *PIECES, "ab", "##cd", "fed"]
VOCABULARY = Vocabulary.parse("\n".join(TOKENS).encode())
INPUTS = TokenInputs(ids="ids", mask="mask", types="types")
# Letters and marks in both forms, spaces of all kinds, ideographs, controls, and characters without a token.
ALPHABET = "abcdefABCDÉéè\u0301\u0308ßΣσς東京,.!?'$—~ \t\n\r\u00a0\u2003\u2028\u3000\x00\x07\x85\u200d\ufffdxyžŽİ"
texts = st.text(ALPHABET, max_size=60)


def hugging_face(*, lowercase):
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(dict(VOCABULARY.index), unk_token="[UNK]"))  # noqa: S106
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return made


@given(texts, st.booleans())
def test_ids_are_those_of_hugging_face(text, lowercase):
    prepare = WordpiecePreprocessing(lowercase=lowercase, first=None, last=None, inputs=INPUTS)
    expected = hugging_face(lowercase=lowercase).encode(text).ids
    assert prepare.apply(text, VOCABULARY)["ids"][0].tolist() == expected


@cache
def onnxruntime_extensions_tokenizer():
    import onnxruntime
    import onnxruntime_extensions
    from onnx import TensorProto, helper

    node = helper.make_node(
        "BertTokenizer",
        ["text"],
        ["ids", "types", "mask"],
        domain="ai.onnx.contrib",
        vocab_file="\n".join(TOKENS),
        do_lower_case=1,
        strip_accents=1,
    )
    value = helper.make_tensor_value_info
    outputs = [value(name, TensorProto.INT64, [None]) for name in ("ids", "types", "mask")]
    graph = helper.make_graph([node], "g", [value("text", TensorProto.STRING, [None])], outputs)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.contrib", 1)]
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


# Of a word that has no pieces, these extensions keep the beginning, against BERT: so no letters without a token here.
@given(st.text("abcdefABCD,.!?'$ \t\n", min_size=1, max_size=60))
def test_ids_are_those_of_onnxruntime_extensions(text):
    ids, types, mask = onnxruntime_extensions_tokenizer().run(None, {"text": np.array([text])})
    made = WordpiecePreprocessing(inputs=INPUTS).apply(text, VOCABULARY)
    assert made["ids"][0].tolist() == ids.tolist()
    assert made["types"][0].tolist() == types.tolist()
    assert made["mask"][0].tolist() == mask.tolist()


@given(texts, st.integers(2, 12))
def test_cut_and_padded_to_a_length(text, length):
    whole = WordpiecePreprocessing(inputs=INPUTS).apply(text, VOCABULARY)["ids"][0].tolist()
    made = WordpiecePreprocessing(inputs=INPUTS, length=length).apply(text, VOCABULARY)
    ids, mask = made["ids"][0].tolist(), made["mask"][0].tolist()
    assert len(ids) == len(mask) == length == made["types"].size
    used = sum(mask)
    assert mask == [1] * used + [0] * (length - used)
    assert used == min(length, len(whole))
    assert ids[used:] == [0] * (length - used)
    # The first and the last token stay, what lies between is cut at its end.
    assert ids[:used] == [*whole[: used - 1], 3]
    assert made["ids"].dtype == made["mask"].dtype == made["types"].dtype == np.int64


def test_only_the_inputs_that_there_are():
    one = WordpiecePreprocessing(inputs=TokenInputs(ids="x"))
    assert set(one.apply("ab", VOCABULARY)) == {"x"}
    assert one.inputs.names == ("x",)


def test_long_words_and_long_texts():
    prepare = WordpiecePreprocessing(inputs=INPUTS, first=None, last=None)
    assert prepare.apply("a" * 101, VOCABULARY)["ids"].tolist() == [[1]]
    assert prepare.apply("a" * 100, VOCABULARY)["ids"].shape == (1, 100)
    with pytest.raises(DataError, match="1000001 characters"):
        prepare.apply("a" * 1_000_001, VOCABULARY)


def test_vocabularies():
    assert Vocabulary.parse(b"a\r\nb\n\xe2\x80\xa8\n").tokens == ("a", "b", "\u2028")
    with pytest.raises(DataError, match=r"'a' stands there twice\n  where: v\.txt, line 3"):
        Vocabulary.parse(b"a\nb\na\n", "v.txt")
    with pytest.raises(DataError, match="no UTF-8"):
        Vocabulary.parse(b"\xff")
    lacking = WordpiecePreprocessing(inputs=INPUTS, last="[END]")
    with pytest.raises(DataError, match=r"got '\[END\]'\n  where: preprocessing.last"):
        lacking.apply("a", VOCABULARY)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"vocabulary": ""}, "b.pre.vocabulary"),
        ({"lowercase": "yes"}, "b.pre.lowercase"),
        ({"length": 1}, "b.pre.length\n  rule: null or an integer from 2"),
        ({"unknown": None}, "b.pre.unknown"),
        ({"first": 7}, "b.pre.first\n  rule: null or a text"),
        ({"length": 9, "padding": None}, "b.pre.padding"),
        ({"inputs": ["ids"]}, "b.pre.inputs\n  rule: an object with ids, mask and types"),
        ({"inputs": {"ids": "a"}}, "b.pre.inputs\n  rule: an object with ids, mask and types"),
        ({"inputs": {"ids": "a", "mask": "a", "types": None}}, "b.pre.inputs"),
        ({"inputs": {"ids": [], "mask": None, "types": None}}, "b.pre.inputs"),
        ({"inputs": {"ids": None, "mask": "m", "types": None}}, "b.pre.inputs"),
        ({"stem": True}, "unknown key 'stem'"),
    ],
)
def test_refuses_fields_out_of_range(change, text):
    whole = WordpiecePreprocessing(inputs=INPUTS).to_dict()
    assert WordpiecePreprocessing.from_dict(json.loads(json.dumps(whole))) == WordpiecePreprocessing(inputs=INPUTS)
    with pytest.raises(DataError) as caught:
        WordpiecePreprocessing.from_dict({**whole, **change}, "b.pre")
    assert text in str(caught.value)
    short = WordpiecePreprocessing.from_dict({"kind": "wordpiece", "inputs": {"ids": "x"}}, complete=False)
    assert short == WordpiecePreprocessing(inputs=TokenInputs(ids="x"))
