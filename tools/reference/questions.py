r"""Questions about pictures as a user's project: two handwritten digits, four kinds of questions, two inputs.

    python tools/reference/questions.py train questioner
    edgekit compress tools/reference/questions.py:questioner --train tools/reference/questions.py:train_data \
        --test tools/reference/questions.py:test_data

A picture has two of scikit-learn's digits, one left and one right, at some height. The questions: which digit is on the
left, which on the right, what is their sum, is the left one larger. Answers: the numbers 0 to 18, yes and no.
"""

from __future__ import annotations

import torch
from networks.multimodal import Questioner
from segments import DIGIT, SIDE, digits
from torch import Tensor, nn
from torch.utils.data import Dataset
from training import Recipe, command_line, trained

WORDS = ("[ASK]", "left", "right", "sum", "larger", "digit", "?", "is", "what")
QUESTIONS = ("what left digit ?", "what right digit ?", "what sum digit ?", "is left larger ?")
ANSWERS = (*map(str, range(19)), "yes", "no")
TRAIN, TEST = 24_000, 4_000


class Questions(Dataset[tuple[Tensor, Tensor, int]]):
    """Items are (float32 [1, 32, 32], int64 [4], int): a picture, the words of a question, the answer.

    `augment` draws anew each time; without it an item is always the same.
    """

    def __init__(self, split: str, *, augment: bool = False) -> None:
        self.ink, self.digits = digits(split)
        self.count = TRAIN if split == "train" else TEST
        self.augment = augment
        self.asked = torch.tensor([[WORDS.index(word) for word in question.split()] for question in QUESTIONS])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        generator = torch.default_generator if self.augment else torch.Generator().manual_seed(index)
        picture = 0.15 * torch.rand(1, SIDE, SIDE, generator=generator)
        which = torch.randint(0, len(self.ink), (2,), generator=generator)
        for side, place in enumerate(which.tolist()):
            top = int(torch.randint(0, SIDE - DIGIT + 1, (), generator=generator))
            ink, left = self.ink[place], side * DIGIT
            area = picture[0, top : top + DIGIT, left : left + DIGIT]
            area += ink * (1 - area)
        left_digit, right_digit = self.digits[which].tolist()
        kind = int(torch.randint(0, len(QUESTIONS), (), generator=generator))
        yes = ANSWERS.index("yes" if left_digit > right_digit else "no")
        return picture, self.asked[kind], (left_digit, right_digit, left_digit + right_digit, yes)[kind]


RECIPES = {
    "questioner": Recipe(
        network=lambda: Questioner(len(WORDS), len(ANSWERS)),
        epochs=12,
        settings={
            "optimizer": "adamw",
            "learning_rate": 2e-3,
            "weight_decay": 0.05,
            "batch_size": 128,
            "clip_norm": 1.0,
        },
    )
}


def questioner() -> nn.Module:
    """The trained network."""
    return trained("questioner", "questions.py", RECIPES)


def train_data() -> Questions:
    """Pictures and questions to learn from, others each time."""
    return Questions("train", augment=True)


def test_data() -> Questions:
    """Pictures of digits that training never sees."""
    return Questions("test")


if __name__ == "__main__":
    command_line(__doc__, RECIPES, train_data, test_data)
