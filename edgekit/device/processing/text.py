"""From a model's token ids to text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from edgekit.device.processing import fields
from edgekit.device.processing.vocabulary import VOCABULARY_FILE, Vocabulary
from edgekit.errors import BundleError


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPostprocessing:
    """How ids, or the likeliest of scores, become text.

    Attributes:
        output: the model's output: ids (any integers) [1, n], or scores [1, n, vocabulary] whose largest decides.
        vocabulary: the file in the bundle, one token a line, whose number is its id.
        stop: the token that ends the text; None reads all ids.
        skip: tokens that leave no trace, such as padding.
        joiner: a token that begins with this is glued to the one before, without it; others follow after a space.

    Raises:
        DataError: a field is out of range; the text names it.
    """

    kind: ClassVar[str] = "text"
    side: ClassVar[str] = "postprocessing"

    output: str
    vocabulary: str = VOCABULARY_FILE
    stop: str | None = None
    skip: tuple[str, ...] = ()
    joiner: str = "##"

    def __post_init__(self) -> None:
        fields.check_text(self, "output")
        fields.check_text(self, "vocabulary")
        fields.check_text(self, "stop", optional=True)
        if not isinstance(self.skip, tuple) or not all(isinstance(token, str) for token in self.skip):
            fields.refuse(self, "skip", "a list of tokens")
        fields.check_text(self, "joiner", empty=True)

    def apply(self, outputs: Mapping[str, np.ndarray], vocabulary: Vocabulary) -> str:
        """The text of one sample.

        Raises:
            BundleError: the output is none of ids or scores of one sample, or an id is not in the vocabulary.
        """
        value = outputs[self.output]
        if value.ndim == 3 and value.shape[2]:
            value = value.argmax(axis=2)
        if value.ndim != 2 or len(value) != 1 or value.dtype.kind not in "iu":
            raise BundleError(
                f"got {value.dtype} {list(outputs[self.output].shape)}",
                where=f"output {self.output!r}",
                rule="ids [1, n], or scores [1, n, vocabulary]",
                way_out="use `run` for the raw outputs",
            )
        text = ""
        for number in value[0].tolist():
            if not 0 <= number < len(vocabulary.tokens):
                raise BundleError(
                    f"id {number}", where=f"output {self.output!r}", rule=f"0 to {len(vocabulary.tokens) - 1}"
                )
            token = vocabulary.tokens[number]
            if token == self.stop:
                break
            if token in self.skip:
                continue
            glued = token.startswith(self.joiner)
            text += token.removeprefix(self.joiner) if glued else f" {token}" if text else token
        return text

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` takes it back."""
        return fields.write(self)

    @classmethod
    def from_dict(cls, data: object, where: str = "postprocessing", *, complete: bool = True) -> Self:
        """Read what `to_dict` wrote; without `complete`, keys that are missing have their defaults.

        Raises:
            DataError: a key is missing, unknown or of another type, or a value is out of range; the text says which.
        """
        return fields.read(cls, data, where, complete=complete)
