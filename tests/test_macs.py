"""Multiply-accumulates of operators, against closed formulas, PyTorch's counter, and brute force."""

import itertools

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgekit.export import mac_count
from edgekit.macs import computes, is_known, macs
from edgekit.workload import Batch


def counted(call):
    """By PyTorch's own tables; two operations each."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        ((3,), {}),
        ((3,), {"stride": 2, "dilation": 2, "padding": 1}),
        ((3, 5), {"padding": (1, 2)}),
        ((3, 3), {"stride": (2, 1), "groups": 4}),
        ((3, 3), {"groups": 8, "padding": 1}),
        ((1, 1), {}),
        ((2, 3, 3), {"dilation": (1, 2, 1)}),
    ],
)
def test_convolution(kernel, options):
    rank = len(kernel)
    groups = options.get("groups", 1)
    x = torch.zeros(2, 8, *(9, 8, 7)[:rank])
    weight = torch.zeros(16, 8 // groups, *kernel)
    convolve = (torch.conv1d, torch.conv2d, torch.conv3d)[rank - 1]
    y = convolve(x, weight, **options)
    formula = y.numel() * (8 // groups) * int(np.prod(kernel))
    assert counted(lambda: convolve(x, weight, **options)) == formula
    for operator, place in (("Conv", 1), ("ConvInteger", 1), ("FusedConv", 1), ("QLinearConv", 3)):
        inputs = [tuple(x.shape), *[None] * (place - 1), tuple(weight.shape)]
        assert macs(operator, inputs, [tuple(y.shape)]) == formula


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2, "padding": 1, "output_padding": 1}, {"groups": 4, "dilation": 2}]
)
def test_transposed_convolution_meets_each_weight_with_each_input(options):
    x, weight = torch.zeros(2, 8, 5, 6), torch.zeros(8, 3, 3, 4)
    y = torch.conv_transpose2d(x, weight, **options)
    formula = 2 * 8 * 5 * 6 * 3 * 3 * 4
    assert macs("ConvTranspose", [tuple(x.shape), tuple(weight.shape)], [tuple(y.shape)]) == formula


@pytest.mark.parametrize(
    ("left", "right"),
    [((4, 5), (5, 6)), ((5,), (5, 6)), ((4, 5), (5,)), ((5,), (5,)), ((3, 4, 5), (5, 6)), ((2, 1, 4, 5), (3, 5, 6))],
)
def test_matrix_product_is_a_sum_over_the_inner_size_for_each_number(left, right):
    y = np.matmul(np.zeros(left), np.zeros(right)).shape
    brute = sum(1 for _ in itertools.product(*map(range, y)) for _ in range(left[-1]))
    for operator in ("MatMul", "MatMulInteger", "DynamicQuantizeMatMul", "FusedMatMul"):
        assert macs(operator, [left, right], [y]) == brute
    assert macs("QLinearMatMul", [left, (), (), right, (), (), (), ()], [y]) == brute


@pytest.mark.parametrize(("turned", "left"), [(0, (4, 7)), (1, (7, 4))])
def test_gemm(turned, left):
    assert macs("Gemm", [left, (7, 6), (6,)], [(4, 6)], {"transA": turned}) == 4 * 7 * 6
    assert macs("FusedMatMul", [left, (7, 6)], [(4, 6)], {"transA": turned}) == 4 * 7 * 6


def test_weights_of_few_bits_count_as_many_as_they_stand_for():
    packed = (64, 2, 16)  # 64 columns, two blocks of 32 rows, 4 bits each
    assert macs("MatMulNBits", [(3, 10, 64), packed, (128,)], [None], {"K": 64, "N": 64, "bits": 4}) == 30 * 64 * 64


@pytest.mark.parametrize(("operator", "gates", "cell"), [("LSTM", 4, "LSTM"), ("GRU", 3, "GRU"), ("RNN", 1, "RNN")])
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent_layers(operator, gates, cell, directions):
    steps, samples, width, hidden = 7, 2, 5, 6
    inputs = [
        (steps, samples, width),
        (directions, gates * hidden, width),
        (directions, gates * hidden, hidden),
        (directions, 2 * gates * hidden),
    ]
    formula = steps * samples * directions * gates * hidden * (width + hidden)
    assert macs(operator, inputs, [None]) == formula
    layer = getattr(torch.nn, cell)(width, hidden, bidirectional=directions == 2)
    assert steps * mac_count(layer, Batch((torch.zeros(steps, samples, width),), {}, None)) == formula
    if operator == "LSTM":
        turned = [inputs[0], (directions, width, gates * hidden), (directions, hidden, gates * hidden)]
        assert macs("DynamicQuantizeLSTM", turned, [None]) == formula


def attention(samples, heads, asks, keys, width, value_width):  # noqa: PLR0917 - sizes, in attention's own order
    """Each query with each key over its width, then each answer with each value."""
    return samples * heads * asks * keys * width + samples * heads * asks * keys * value_width


def test_attention_of_onnx():
    formula = attention(2, 4, 5, 9, 8, 6)
    assert macs("Attention", [(2, 4, 5, 8), (2, 4, 9, 8), (2, 4, 9, 6)], [None]) == formula
    flat = [(2, 5, 32), (2, 9, 32), (2, 9, 24)]
    assert macs("Attention", flat, [None], {"q_num_heads": 4, "kv_num_heads": 4}) == formula
    # Two heads of keys and values for four of queries; three steps were there before.
    shared = [(2, 4, 5, 8), (2, 2, 6, 8), (2, 2, 6, 6), None, (2, 2, 3, 8), (2, 2, 3, 6)]
    assert macs("Attention", shared, [None]) == formula
    query, key, value = torch.zeros(2, 4, 5, 8), torch.zeros(2, 4, 9, 8), torch.zeros(2, 4, 9, 6)
    assert counted(lambda: (query @ key.transpose(2, 3)) @ value) == formula


def test_attention_of_onnx_runtime_has_its_projections():
    projections = 2 * 5 * 32 * 96
    inputs = [(2, 5, 32), (32, 96), (96,)]
    assert macs("Attention", inputs, [None], {"num_heads": 4}) == projections + attention(2, 4, 5, 5, 8, 8)
    assert macs("QAttention", [*inputs, (), ()], [None], {"num_heads": 4}) == projections + attention(2, 4, 5, 5, 8, 8)
    past = [*inputs, None, (2, 2, 4, 3, 8)]
    assert macs("Attention", past, [None], {"num_heads": 4}) == projections + attention(2, 4, 5, 8, 8, 8)
    uneven = [(2, 5, 32), (32, 32 + 32 + 16), (80,)]
    sizes = {"num_heads": 4, "qkv_hidden_sizes": [32, 32, 16]}
    assert macs("Attention", uneven, [None], sizes) == 2 * 5 * 32 * 80 + attention(2, 4, 5, 5, 8, 4)


@pytest.mark.parametrize(
    ("inputs", "formula"),
    [
        ([(2, 5, 32), (2, 9, 32), (2, 9, 24)], attention(2, 4, 5, 9, 8, 6)),
        ([(2, 5, 32), (2, 4, 9, 8), (2, 4, 9, 6)], attention(2, 4, 5, 9, 8, 6)),
        ([(2, 5, 32), (2, 9, 4, 2, 8)], attention(2, 4, 5, 9, 8, 8)),
        ([(2, 5, 4, 3, 8)], attention(2, 4, 5, 5, 8, 8)),
        ([(2, 5, 32), (2, 6, 32), (2, 6, 32), None, None, None, (2, 4, 3, 8)], attention(2, 4, 5, 9, 8, 8)),
    ],
)
def test_multi_head_attention_however_it_is_packed(inputs, formula):
    assert macs("MultiHeadAttention", inputs, [None], {"num_heads": 4}) == formula


def test_grouped_query_attention():
    inputs = [(2, 5, 32), (2, 5, 16), (2, 5, 16), (2, 2, 4, 8)]
    formula = attention(2, 4, 5, 9, 8, 8)
    assert macs("GroupQueryAttention", inputs, [None], {"num_heads": 4, "kv_num_heads": 2}) == formula


@pytest.mark.parametrize(
    ("equation", "left", "right", "count"),
    [
        ("ij,jk->ik", (2, 3), (3, 4), 24),
        ("bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 6, 5), 2 * 3 * 4 * 6 * 5),
        ("ij, jk", (2, 3), (3, 4), 24),
        ("i,j->ij", (2,), (3,), 0),
        ("bi,i->bi", (2, 3), (3,), 0),
        ("bi,i->b", (2, 3), (3,), 6),
        ("ik,jkl->ij", (2, 3), (4, 3, 5), 2 * 4 * 3),
    ],
)
def test_einsum_of_two(equation, left, right, count):
    made = np.einsum(equation, np.zeros(left), np.zeros(right)).shape
    assert macs("Einsum", [left, right], [made], {"equation": equation}) == count
    if count and equation != "ik,jkl->ij":
        assert counted(lambda: torch.einsum(equation, torch.zeros(left), torch.zeros(right))) == count


def test_einsum_of_one_moves_and_of_three_has_no_rule():
    assert macs("Einsum", [(2, 3)], [(3, 2)], {"equation": "ij->ji"}) == 0
    assert macs("Einsum", [(2,), (2,), (2,)], [()], {"equation": "i,i,i->"}) is None
    assert macs("Einsum", [(2, 2), (2,)], [(2,)], {"equation": "ii,i->i"}) is None
    assert macs("Einsum", [(5, 2, 3), (3, 4)], [(5, 2, 4)], {"equation": "...ij,jk->...ik"}) is None


def test_what_is_not_known_is_none_and_never_zero():
    assert macs("Loop", [], []) is None
    assert macs("TreeEnsemble", [(1, 4)], [(1, 2)]) is None
    assert macs("Conv", [(1, 3, 8, 8), None], [(1, 8, 8, 8)]) is None
    assert macs("Conv", [(1, 3, 8, 8), (8, 3, 1, 1)], [None]) is None
    assert macs("MatMul", [], []) is None
    assert macs("MatMulNBits", [(3, 64)], [None], {"K": 64}) is None
    assert (is_known("Loop"), is_known("Relu"), is_known("Conv")) == (False, True, True)
    assert (computes("Relu"), computes("Conv")) == (False, True)


def test_every_operator_of_onnx_that_has_no_rule_is_one_that_we_know_of():
    import onnx

    # Those of later operator sets have no rule, and are named by whoever counts.
    known = [each for each in onnx.defs.get_all_schemas() if each.domain == "" and each.since_version <= 26]
    without = {each.name for each in known if not is_known(each.name)}
    assert without <= {
        *("DFT", "Det", "If", "ImageDecoder", "Loop", "MelWeightMatrix", "NegativeLogLikelihoodLoss"),
        *("Optional", "OptionalGetElement", "OptionalHasElement", "RegexFullMatch", "STFT", "Scan", "Scatter"),
        *("SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength"),
        *("SequenceMap", "SoftmaxCrossEntropyLoss", "SplitToSequence", "ConcatFromSequence", "StringConcat"),
        *("StringNormalizer", "StringSplit", "TensorScatter", "TfIdfVectorizer", "BitCast", "CumProd"),
        *("CausalConvWithState", "LinearAttention"),
    }
