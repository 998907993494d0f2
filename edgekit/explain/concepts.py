"""How much concepts that people name matter for a class: testing with concept activation vectors (TCAV).

B. Kim et al., *Interpretability Beyond Feature Attribution* (2018). A concept is a set of examples. A linear classifier
tells a layer's activations for them from those for as many random counter-examples; its normal is the concept
activation vector (section 3.2). The TCAV score of a class is the share of its samples whose logit rises along it
(3.3). Repeated with other counter-examples, the scores are held against those of random sets in the concept's place by
a two-sided t-test (3.4). The concept's own examples are the same in every repetition: what chance gave them beside the
concept is not told apart from it, so give many, as varied as the data. Captum's `captum.concept` does the computing.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from edgekit import stats
from edgekit.device import ImagePreprocessing
from edgekit.errors import DataError
from edgekit.explain.gradients import score_of
from edgekit.explain.layers import layer_of
from edgekit.progress import Progress, Step, silent
from edgekit.stats import Estimate
from edgekit.workload import Batch, load_data, loader

LEVEL = 0.05
"""Of significance, before it is divided by the number of tests (Bonferroni)."""
EXAMPLES_AT_LEAST = 8
PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptScore:
    """One concept, one class, one module.

    Args:
        concept: its name.
        module: `original` or `compressed`.
        layer: where activations were taken.
        output: the class.
        samples: of the class.
        score: TCAV score, mean over repetitions.
        random: the same with random examples in the concept's place.
        p: of the two-sided t-test between them.
        significant: whether p is below 5 % divided by the number of tests.
    """

    concept: str
    module: str
    layer: str
    output: int
    samples: int
    score: Estimate
    random: Estimate
    p: float
    significant: bool

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name not in {"score", "random"}}
        return {**plain, "score": self.score.to_dict(), "random": self.random.to_dict()}


def concept_data(reference: str, preprocessing: ImagePreprocessing | None = None) -> Dataset[Any]:
    """Examples of a concept: a folder of images, an .npz, or a function that returns a Dataset.

    Raises:
        WorkloadError: the function is missing or raises.
        DataError: there are no examples, or images come without preprocessing.
    """
    folder = Path(reference).expanduser()
    if not folder.is_dir():
        return load_data(reference)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    if preprocessing is None or not files:
        raise DataError(
            f"{len(files)} images" + ("" if preprocessing else ", and nothing says how the model takes them"),
            where=f"--concept {reference}",
            rule="a folder of images, and --image-size, --mean and --std as in training",
            way_out="check the folder, or name a function: file.py:function",
        )
    examples: Any = [torch.from_numpy(preprocessing.apply(path)[0]) for path in files]
    return examples  # type: ignore[no-any-return]  # a sequence is map-style data


def inputs_of(data: Dataset[Any], model: nn.Module, limit: int | None = None, *, seed: int = 0) -> Tensor:
    """The one input of so many samples, evenly spaced, in one tensor [n, ...].

    Raises:
        DataError: the model takes several inputs.
    """
    parts = []
    for batch in loader(data, 64, model=model, seed=seed, limit=limit):
        leaves = batch.leaves()
        if len(leaves) != 1:
            raise DataError(f"{len(leaves)} inputs", where="--concept", rule="concepts need a model of one input")
        parts.append(leaves[0])
    return torch.cat(parts)


def tcav(
    modules: Mapping[str, nn.Module],
    layers: Mapping[str, str],
    concepts: Mapping[str, Tensor],
    pool: Tensor,
    by_class: Mapping[int, Tensor],
    *,
    repetitions: int = 20,
    seed: int = 0,
    progress: Progress = silent,
) -> list[ConceptScore]:
    """TCAV scores of each concept for each class and module.

    Args:
        modules: `original`, and `compressed` where there is one; in evaluation mode, of one input.
        layers: for each module the layer whose activations are taken.
        concepts: examples by name, [n, ...].
        pool: where random counter-examples are drawn from, [n, ...].
        by_class: samples of each class, [n, ...].
        repetitions: sets of counter-examples; each has as many as the concept has examples.
        seed: of the draws.
        progress: told after each concept of each module.

    Raises:
        DataError: too few examples, or a pool too small to draw from.
        EdgekitError: a module has no such layer.
    """
    for name, examples in concepts.items():
        if len(examples) < EXAMPLES_AT_LEAST or len(pool) < 2 * len(examples) or repetitions < 2:
            raise DataError(
                f"{len(examples)} examples, {len(pool)} samples to draw from, {repetitions} repetitions",
                where=f"--concept {name}",
                rule=f"{EXAMPLES_AT_LEAST} examples, twice as many samples as examples, 2 repetitions at least",
                way_out="give more examples or more data",
            )
    tests = len(modules) * len(concepts) * len(by_class)
    found: list[ConceptScore] = []
    for module, model in modules.items():
        layer_of(model, layers[module])
        for name, examples in concepts.items():
            generator = np.random.default_rng(seed)
            sets = [pool[generator.choice(len(pool), len(examples), replace=False)] for _ in range(repetitions)]
            scores = _scores(model, layers[module], examples, sets, by_class)
            for output, (of_concept, of_random) in scores.items():
                p = _p_value(of_concept, of_random)
                found.append(
                    ConceptScore(
                        concept=name,
                        module=module,
                        layer=layers[module],
                        output=output,
                        samples=len(by_class[output]),
                        score=stats.mean(of_concept, seed=seed),
                        random=stats.mean(of_random, seed=seed),
                        p=p,
                        significant=p < LEVEL / tests,
                    )
                )
            progress(Step("concepts", len(found), tests))
    return found


class _Scores(nn.Module):
    """A module as Captum wants it: one tensor in, logits out; the user's modules below `model`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, outputs]."""
        return score_of(self.model, Batch((x,), {}, None), centred=False)(x)


def _scores(
    model: nn.Module, layer: str, examples: Tensor, sets: Sequence[Tensor], by_class: Mapping[int, Tensor]
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """For each class, TCAV scores of the concept and of random examples, [repetitions] each."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="edgekit-cav-") as folder:
        # Captum reads its own files back through a name that numpy has moved.
        warnings.simplefilter("ignore", DeprecationWarning)
        from captum.concept import TCAV, Concept

        concept = Concept(0, "concept", [examples])
        random = [Concept(number, f"random{number}", [each]) for number, each in enumerate(sets, 1)]
        real = [[concept, each] for each in random]
        null = [[each, random[(number + 1) % len(random)]] for number, each in enumerate(random)]
        test = TCAV(_Scores(model), f"model.{layer}", classifier=_linear_classifier(), save_path=folder)
        answers = {}
        for output, samples in by_class.items():
            given = test.interpret(samples, [*real, *null], target=output)
            answers[output] = tuple(
                np.array([_share(given, pair, f"model.{layer}") for pair in pairs]) for pairs in (real, null)
            )
    return {output: (pair[0], pair[1]) for output, pair in answers.items()}


def _share(given: Any, pair: Sequence[Any], layer: str) -> float:
    """Share of samples whose logit rises towards the first of the pair."""
    key = "-".join(str(each.id) for each in pair)
    return float(given[key][layer]["sign_count"][0])


def _linear_classifier() -> Any:
    """Ridge regression of the label: in closed form, so that the same examples always give the same vector."""
    from captum.concept import Classifier
    from sklearn.linear_model import RidgeClassifier

    class Linear(Classifier):  # type: ignore[misc]  # Captum ships no types
        def __init__(self) -> None:
            self.fitted = RidgeClassifier()

        def train_and_eval(self, dataloader: Any, **_: Any) -> None:
            inputs, labels = (torch.cat(part).numpy() for part in zip(*dataloader, strict=True))
            # A tenth of the mean variance along a direction: activations have any scale.
            penalty = 0.1 * float(inputs.var(axis=0).sum()) * len(inputs) / min(inputs.shape)
            self.fitted = RidgeClassifier(alpha=max(penalty, 1e-12)).fit(inputs, labels)

        def weights(self) -> Tensor:
            normal = torch.from_numpy(np.reshape(self.fitted.coef_, -1)).float()
            return torch.stack([-normal, normal])

        def classes(self) -> list[int]:
            return [int(each) for each in self.fitted.classes_]

    return Linear()


def _p_value(of_concept: np.ndarray, of_random: np.ndarray) -> float:
    """Of Welch's two-sided t-test; where neither varies, 1 for equal means and 0 for others."""
    from scipy.stats import t

    # By hand, since scipy's own test warns where one side does not vary, and a concept that matters gives just that.
    parts = [each.var(ddof=1) / len(each) for each in (of_concept, of_random)]
    difference, error = float(of_concept.mean() - of_random.mean()), float(sum(parts)) ** 0.5
    if not error:
        return float(difference == 0)
    freedom = error**4 / sum(
        part**2 / (len(each) - 1) for part, each in zip(parts, (of_concept, of_random), strict=True)
    )
    return float(2 * t.sf(abs(difference) / error, freedom))
