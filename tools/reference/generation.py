r"""Pictures as a user's project: an autoencoder, a VAE, a GAN's generator and a diffusion model's denoiser.

    python tools/reference/generation.py train vae
    edgekit compress tools/reference/generation.py:vae --train tools/reference/generation.py:train_data \
        --test tools/reference/generation.py:test_data --task reconstruction

scikit-learn's digits, enlarged to 16x16, in 0..1; the first 1,400 to learn from. The autoencoder learns the digits 0 to
7 alone: 8 and 9 are what it should find odd (`odd_data`). Each network has its own data: `images_*` (picture, picture),
`latent_*` (vector, what the trained generator makes of it) and `noisy_*` (noisy picture, step, noise).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from networks.generative import LATENT, VAE, Autoencoder, Denoiser, Encoder, Generator
from segments import digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from training import Recipe, Run, command_line, trained

from edgekit.tasks import Task, custom, outputs_of

ORDINARY = 8
"""Digits below this one are what the autoencoder knows."""
GAN_BATCH = 64
STEPS = 200
"""Of diffusion; noise rises with the cosine schedule of A. Nichol and P. Dhariwal, 2021."""


def pictures(split: str, *, odd: bool | None = None) -> Tensor:
    """Float32 [n, 1, 16, 16] in 0..1: all, or only the digits that the autoencoder knows, or only the others."""
    ink, labels = digits(split)
    chosen = torch.ones_like(labels, dtype=torch.bool) if odd is None else (labels >= ORDINARY) == odd
    return ink[chosen][:, None].contiguous()


def shares() -> Tensor:
    """How much of the picture is left in its square, float32 [STEPS]."""
    angle = (torch.arange(1, STEPS + 1) / STEPS + 0.008) / 1.008 * torch.pi / 2
    return (torch.cos(angle) ** 2).clamp(1e-4, 0.9999)


class Noisy(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Items are (float32 [1, 16, 16], int64, float32 [1, 16, 16]): a noisy picture, its step, and its noise."""

    def __init__(self, split: str, *, times: int, fresh: bool = False) -> None:
        self.pictures, self.times, self.fresh = 2 * pictures(split) - 1, times, fresh
        self.shares = shares()

    def __len__(self) -> int:
        return self.times * len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.default_generator if self.fresh else torch.Generator().manual_seed(index)
        picture = self.pictures[index % len(self.pictures)]
        step = torch.randint(0, STEPS, (), generator=generator)
        noise = torch.randn(picture.shape, generator=generator)
        share = self.shares[step]
        return share.sqrt() * picture + (1 - share).sqrt() * noise, step, noise


def _pairs(split: str, *, odd: bool | None = None) -> TensorDataset:
    images = pictures(split, odd=odd)
    return TensorDataset(images, images)


def images_train_data() -> TensorDataset:
    """Pictures to learn from, each its own answer."""
    return _pairs("train")


def images_test_data() -> TensorDataset:
    """Pictures that training never sees."""
    return _pairs("test")


def ordinary_train_data() -> TensorDataset:
    """The digits 0 to 7, each its own answer."""
    return _pairs("train", odd=False)


def ordinary_test_data() -> TensorDataset:
    """The digits 0 to 7 that training never sees."""
    return _pairs("test", odd=False)


def odd_data() -> TensorDataset:
    """The digits 8 and 9 of both splits: anomalies."""
    images = torch.cat([pictures("train", odd=True), pictures("test", odd=True)])
    return TensorDataset(images, images)


@torch.no_grad()
def _latents(seed: int, count: int) -> TensorDataset:
    vectors = torch.randn(count, LATENT, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(vectors, gan_generator()(vectors))


def latent_vectors() -> TensorDataset:
    """Vectors [n, 16] alone, each twice."""
    vectors = torch.randn(1000, LATENT, generator=torch.Generator().manual_seed(2))
    return TensorDataset(vectors, vectors)


def latent_train_data() -> TensorDataset:
    """Vectors and what the trained generator makes of them."""
    return _latents(0, 8000)


def latent_test_data() -> TensorDataset:
    """Other vectors and what the trained generator makes of them."""
    return _latents(1, 2000)


def noisy_train_data() -> Noisy:
    """Noisy pictures, with other noise each time."""
    return Noisy("train", times=10, fresh=True)


def noisy_test_data() -> Noisy:
    """Noisy pictures of digits that training never sees."""
    return Noisy("test", times=5)


def denoising() -> Task:
    """The mean squared error of the noise; a guess of none at all has 1."""
    return custom(
        name="denoising",
        metric="error of the noise",
        unit="units",
        higher_is_better=False,
        loss=lambda output, target: F.mse_loss(outputs_of(output)[0].float(), target),
        per_sample=lambda outputs, target: ((outputs[0] - target) ** 2).mean(axis=(1, 2, 3)),
    )


def sample(denoise: Callable[[np.ndarray, np.ndarray], np.ndarray], count: int, *, steps: int = 50) -> np.ndarray:
    """Pictures float32 [count, 1, 16, 16] in 0..1 out of noise, by DDIM (J. Song et al., 2021) without randomness.

    `denoise` takes (noisy pictures float32 [n, 1, 16, 16], steps int64 [n]) and gives the noise.
    """
    left, x = shares().numpy(), np.random.default_rng(0).standard_normal((count, 1, 16, 16)).astype(np.float32)
    places = np.linspace(STEPS - 1, 0, steps).round().astype(np.int64)
    for index, place in enumerate(places):
        noise = denoise(x, np.full(count, place, np.int64))
        clean = np.clip((x - np.sqrt(1 - left[place]) * noise) / np.sqrt(left[place]), -1, 1)
        following = left[places[index + 1]] if index + 1 < steps else 1.0
        x = (np.sqrt(following) * clean + np.sqrt(1 - following) * noise).astype(np.float32)
    return ((x + 1) / 2).astype(np.float32)


@torch.no_grad()
def features(images: np.ndarray) -> np.ndarray:
    """What the digit classifier's last hidden layer, float32 [n, 32], makes of pictures [n, 1, 16, 16]."""
    network = trained("digit_features", "generation.py", RECIPES)
    assert isinstance(network, DigitFeatures)
    return network.hidden(torch.from_numpy(images)).numpy()


def frechet_distance(images: np.ndarray, others: np.ndarray) -> float:
    """Distance between normal distributions fitted to `features` (M. Heusel et al., 2017, with another network)."""
    from scipy.linalg import sqrtm

    a, b = features(images).astype(np.float64), features(others).astype(np.float64)
    # Features that are always zero would leave the product of the covariances without a root.
    first, second = (np.cov(each.T) + 1e-6 * np.eye(each.shape[1]) for each in (a, b))
    root = np.real(sqrtm(first @ second))
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root))


class DigitFeatures(nn.Module):
    """A digit classifier whose last hidden layer measures the distance between sets of pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = Encoder(32), nn.Linear(32, 10)

    def hidden(self, image: Tensor) -> Tensor:
        """Features [n, 32] of pictures [n, 1, 16, 16]."""
        return torch.relu(self.encoder(image))

    def forward(self, image: Tensor) -> Tensor:
        """Logits [n, 10]."""
        return self.head(self.hidden(image))


class _Adversaries(nn.Module):
    """A generator and who judges it, trained together; the generator is what is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.critic = Generator(), Encoder(1)

    def forward(self, latent: Tensor) -> Tensor:
        return self.generator(latent)


def train_gan(epochs: float) -> nn.Module:
    """A DCGAN with the non-saturating loss: two optimizers in turn, which `edgekit.training.fit` is not for."""
    both = _Adversaries().train()
    optimizers = [torch.optim.Adam(part.parameters(), 2e-4, (0.5, 0.999)) for part in (both.generator, both.critic)]
    images = pictures("train")
    for _ in range(int(epochs * len(images) / GAN_BATCH)):
        real = images[torch.randint(0, len(images), (GAN_BATCH,))]
        made = both.generator(torch.randn(GAN_BATCH, LATENT))
        loss = F.softplus(-both.critic(real)).mean() + F.softplus(both.critic(made.detach())).mean()
        for step, value in ((1, loss), (0, None)):
            optimizers[step].zero_grad()
            (F.softplus(-both.critic(made)).mean() if value is None else value).backward()
            optimizers[step].step()
    return both.generator.eval()


def _elbo(network: nn.Module, batch: Any) -> Tensor:
    made, mean, log_variance = network(*batch.args)
    divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)
    likelihood = F.binary_cross_entropy(made.float(), batch.target.float(), reduction="none").flatten(1).sum(1)
    return (likelihood + divergence).mean() / 256


def autoencoder_figures(run: Run) -> dict[str, float]:
    """How well the error of a picture tells 8 and 9 from the digits it knows: the area under the ROC curve."""
    known, odd = (data.tensors[0].numpy() for data in (ordinary_test_data(), odd_data()))
    errors = [((run({"image": images})[0] - images) ** 2).mean(axis=(1, 2, 3)) for images in (known, odd)]
    above = (errors[1][:, None] > errors[0][None]).mean() + 0.5 * (errors[1][:, None] == errors[0][None]).mean()
    return {"AUC of anomalies (%)": 100 * float(above)}


def generator_figures(run: Run) -> dict[str, float]:
    """Fréchet distance of 1,000 made pictures to the test digits."""
    made = run({"latent": latent_vectors().tensors[0].numpy()})[0]
    return {"Fréchet distance": frechet_distance(made, pictures("test").numpy())}


def denoiser_figures(run: Run) -> dict[str, float]:
    """Fréchet distance of 500 pictures out of noise, in 50 steps, to the test digits."""
    made = sample(lambda noisy, step: run({"noisy": noisy, "step": step})[0], 500)
    return {"Fréchet distance of samples": frechet_distance(made, pictures("test").numpy())}


@torch.no_grad()
def _psnr(network: nn.Module, data: Dataset[Any]) -> str:
    from edgekit.tasks import reconstruction

    x, y = next(iter(DataLoader(data, batch_size=2000)))
    return f"PSNR {reconstruction().value((outputs_of(network.eval()(x))[0].numpy(),), y.numpy()):.2f} dB"


@torch.no_grad()
def _denoised(network: nn.Module, data: Dataset[Any]) -> str:
    x, step, noise = next(iter(DataLoader(data, batch_size=2000)))
    return f"error of the noise {float(((network.eval()(x, step) - noise) ** 2).mean()):.4f}"


class _Labelled(TensorDataset):
    """Pictures with their digits."""

    def __init__(self, split: str) -> None:
        super().__init__(pictures(split), digits(split)[1])


@torch.no_grad()
def _distance(network: nn.Module) -> float:
    return frechet_distance(network.eval()(latent_vectors().tensors[0]).numpy(), pictures("test").numpy())


_ADAM: dict[str, Any] = {"optimizer": "adamw", "learning_rate": 3e-3, "batch_size": 64, "clip_norm": 5.0}
RECIPES = {
    "autoencoder": Recipe(
        network=Autoencoder,
        epochs=40,
        settings=_ADAM,
        objective=lambda network, batch: F.mse_loss(network(*batch.args), batch.target),
        score=_psnr,
        data=(ordinary_train_data, ordinary_test_data),
    ),
    "vae": Recipe(network=VAE, epochs=60, settings=_ADAM, objective=_elbo, score=_psnr),
    "denoiser": Recipe(
        network=Denoiser,
        epochs=8,
        settings=_ADAM,
        objective=lambda network, batch: F.mse_loss(network(*batch.args), batch.target),
        score=_denoised,
        data=(noisy_train_data, noisy_test_data),
    ),
    "digit_features": Recipe(
        network=DigitFeatures,
        epochs=12,
        settings=_ADAM,
        data=(lambda: _Labelled("train"), lambda: _Labelled("test")),
    ),
    "gan_generator": Recipe(
        network=Generator,
        epochs=120,
        by_hand=train_gan,
        score=lambda network, _data: f"Frechet distance {_distance(network):.3f}",
        data=(latent_vectors, latent_vectors),
    ),
}


def autoencoder() -> nn.Module:
    """The trained autoencoder."""
    return trained("autoencoder", "generation.py", RECIPES)


def vae() -> nn.Module:
    """The trained VAE."""
    return trained("vae", "generation.py", RECIPES)


def gan_generator() -> nn.Module:
    """The trained generator."""
    return trained("gan_generator", "generation.py", RECIPES)


def denoiser() -> nn.Module:
    """The trained denoiser."""
    return trained("denoiser", "generation.py", RECIPES)


if __name__ == "__main__":
    command_line(__doc__, RECIPES, images_train_data, images_test_data)
