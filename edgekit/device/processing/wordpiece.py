"""From text to token ids, as BERT and its relatives were trained."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from edgekit.device.processing import fields
from edgekit.device.processing.vocabulary import VOCABULARY_FILE, Vocabulary
from edgekit.errors import DataError

MAX_CHARACTERS = 1_000_000
MAX_LENGTH = 1_000_000
LONGEST_WORD = 100
"""A longer word becomes the unknown token at once, as in BERT."""
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
"""Code points that BERT takes for words of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenInputs:
    """What the model's inputs are called.

    Attributes:
        ids: the one that takes the ids.
        mask: of what is no padding; None where the model takes none.
        types: all zero, since there is one sentence; None where the model takes none.
    """

    ids: str
    mask: str | None = None
    types: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs that there are."""
        return tuple(name for name in (self.ids, self.mask, self.types) if name is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class WordpiecePreprocessing:
    """How text becomes token ids: cleaned, split into words, then the longest piece first (greedy), as BERT does.

    Control characters go; every kind of space separates words; each ideograph and each punctuation mark is a word of
    its own. `lowercase` also takes accents away (canonical decomposition without its marks), and lowers each character
    by itself. A word that has no pieces, or over 100 characters, is the unknown token. Cut to `length`, the ids keep
    the first and last token. Devlin et al., BERT (2019); Wu et al., Google's Neural Machine Translation System (2016),
    4.1.

    Attributes:
        vocabulary: the file in the bundle, one token a line, whose number is its id.
        lowercase: for uncased models.
        length: ids are cut or padded to so many; None takes as many as there are.
        unknown, first, last, padding: special tokens; None where the model has none.
        inputs: names of the model's inputs, each int64 [1, length].

    Raises:
        DataError: a field is out of range; the text names it.
    """

    kind: ClassVar[str] = "wordpiece"
    side: ClassVar[str] = "preprocessing"

    vocabulary: str = VOCABULARY_FILE
    lowercase: bool = True
    length: int | None = None
    unknown: str = "[UNK]"
    first: str | None = "[CLS]"
    last: str | None = "[SEP]"
    padding: str | None = "[PAD]"
    inputs: TokenInputs

    def __post_init__(self) -> None:
        fields.check_text(self, "vocabulary")
        fields.check_flag(self, "lowercase")
        around = (self.first is not None) + (self.last is not None)
        fields.check_whole(self, "length", max(around, 1), MAX_LENGTH, optional=True)
        fields.check_text(self, "unknown")
        for name in ("first", "last", "padding"):
            fields.check_text(self, name, optional=True)
        if self.length is not None and self.padding is None:
            fields.refuse(self, "padding", "a token, since ids are padded to `length`")
        if not isinstance(self.inputs, TokenInputs):
            fields.refuse(self, "inputs", "names of the inputs")
        names: tuple[Any, ...] = self.inputs.names
        if (
            self.inputs.ids is None
            or not all(isinstance(name, str) and name for name in names)
            or len(set(names)) < len(names)
        ):
            fields.refuse(self, "inputs", "the name of an input for `ids`, and others or null for `mask` and `types`")

    def apply(self, text: str, vocabulary: Vocabulary) -> dict[str, np.ndarray]:
        """The model's inputs int64 [1, length] by name.

        Raises:
            DataError: the text is over a million characters, or the vocabulary lacks a special token.
        """
        self.check_vocabulary(vocabulary)
        if len(text) > MAX_CHARACTERS:
            raise DataError(f"{len(text)} characters", where="text", rule=f"at most {MAX_CHARACTERS}")
        around = [[] if token is None else [vocabulary.index[token]] for token in (self.first, self.last)]
        pieces = [piece for word in words(text, lowercase=self.lowercase) for piece in self._pieces(word, vocabulary)]
        if self.length is not None:
            pieces = pieces[: self.length - sum(map(len, around))]
        ids = [*around[0], *pieces, *around[1]]
        filling = 0 if self.length is None else self.length - len(ids)
        row = np.array([*ids, *[vocabulary.index[self.padding or self.unknown]] * filling], np.int64)[None]
        mask = np.array([1] * len(ids) + [0] * filling, np.int64)[None]
        made = {self.inputs.ids: row, self.inputs.mask: mask, self.inputs.types: np.zeros_like(row)}
        return {name: value for name, value in made.items() if name is not None}

    def check_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Refuse a vocabulary that lacks one of the special tokens.

        Raises:
            DataError: it does; the text names the token.
        """
        for name in ("unknown", "first", "last", "padding"):
            token = getattr(self, name)
            if token is not None and token not in vocabulary.index:
                fields.refuse(self, name, f"a token of {self.vocabulary}")

    def _pieces(self, word: str, vocabulary: Vocabulary) -> Sequence[int]:
        unknown = [vocabulary.index[self.unknown]]
        if len(word) > LONGEST_WORD:
            return unknown
        found: list[int] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if prefix + word[start:end] in vocabulary.index), None)
            if end is None:
                return unknown
            found.append(vocabulary.index[prefix + word[start:end]])
            start = end
        return found

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` takes it back."""
        return fields.write(self)

    @classmethod
    def from_dict(cls, data: object, where: str = "preprocessing", *, complete: bool = True) -> Self:
        """Read what `to_dict` wrote; without `complete`, keys that are missing have their defaults.

        Raises:
            DataError: a key is missing, unknown or of another type, or a value is out of range; the text says which.
        """
        if not isinstance(data, Mapping) or "inputs" not in data:
            return fields.read(cls, data, where, complete=complete)
        inputs, keys = data["inputs"], {"ids", "mask", "types"}
        if not isinstance(inputs, Mapping) or not set(inputs) <= keys or not (complete <= (set(inputs) == keys)):
            raise DataError(f"got {inputs!r}", where=f"{where}.inputs", rule="an object with ids, mask and types")
        if "ids" not in inputs:
            raise DataError("missing", where=f"{where}.inputs.ids", rule="the name of the input that takes the ids")
        return fields.read(cls, {**data, "inputs": TokenInputs(**inputs)}, where, complete=complete)


def words(text: str, *, lowercase: bool) -> Iterator[str]:
    """The words of `text`, as BERT's basic tokenizer splits it.

    >>> list(words("Crème brûlée, 東京!", lowercase=True))
    ['creme', 'brulee', ',', '東', '京', '!']
    """
    spaced = "".join(map(_spaced, text))
    if lowercase:
        bare = (each for each in unicodedata.normalize("NFD", spaced) if unicodedata.category(each) != "Mn")
        # Each character by itself: a sigma at the end of a word stays the same letter as anywhere else.
        spaced = "".join(each.lower() for each in bare)
    for chunk in spaced.split(" "):
        word = ""
        for each in chunk:
            if not _is_punctuation(each):
                word += each
                continue
            if word:
                yield word
            yield each
            word = ""
        if word:
            yield word


def _spaced(character: str) -> str:
    """The character as it goes on: nothing, a space, itself, or an ideograph between spaces."""
    if character in "\t\n\r":
        return " "
    category = unicodedata.category(character)
    if category in {"Cc", "Cf", "Co", "Cs"} or character == "\ufffd":
        return ""
    if category.startswith("Z"):
        return " "
    code = ord(character)
    return f" {character} " if any(low <= code <= high for low, high in _IDEOGRAPHS) else character


def _is_punctuation(character: str) -> bool:
    """ASCII signs count, currency and mathematics among them; elsewhere what Unicode calls punctuation."""
    if character.isascii():
        return not character.isalnum() and character.isprintable() and character != " "
    return unicodedata.category(character).startswith("P")
