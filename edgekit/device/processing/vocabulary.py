"""A model's tokens, from a file with one a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from edgekit.errors import DataError

VOCABULARY_FILE = "edgekit/vocabulary.txt"
MAX_TOKENS = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Vocabulary:
    """Tokens by id, and ids by token."""

    tokens: tuple[str, ...]
    index: Mapping[str, int]

    @classmethod
    def parse(cls, data: bytes, where: str = VOCABULARY_FILE) -> Self:
        r"""The vocabulary in a file: UTF-8, one token a line, the line's number its id.

        Only a line feed ends a line (a carriage return before it is dropped): tokens may hold any other separator.

        Raises:
            DataError: the bytes are no UTF-8, or a token comes twice.

        >>> Vocabulary.parse(b"[PAD]\nhello\n##s\n").index["##s"]
        2
        """
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"no UTF-8: {error}", where=where, rule="one token a line in UTF-8") from error
        tokens = tuple(line.removesuffix("\r") for line in text.removesuffix("\n").split("\n"))
        index = {token: number for number, token in reversed(list(enumerate(tokens)))}
        if len(index) < len(tokens) or len(tokens) > MAX_TOKENS:
            again = next((number for number, token in enumerate(tokens) if index[token] != number), None)
            raise DataError(
                f"{len(tokens)} tokens" if again is None else f"{tokens[again]!r} stands there twice",
                where=where if again is None else f"{where}, line {again + 1}",
                rule=f"each token once, at most {MAX_TOKENS}",
            )
        return cls(tokens=tokens, index=index)
