"""Networks that make pictures [n, 1, 16, 16]: autoencoder, VAE, a GAN's generator, and a diffusion model's denoiser."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

LATENT = 16


def _down(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2))


def _up(inputs: int, outputs: int) -> nn.Sequential:
    up = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    return nn.Sequential(up, nn.BatchNorm2d(outputs), nn.ReLU())


class Generator(nn.Module):
    """Pictures in 0..1 of latent vectors, by transposed convolutions (A. Radford et al., *DCGAN*, 2016)."""

    def __init__(self, *, width: int = 32) -> None:
        super().__init__()
        self.begin = nn.Linear(LATENT, 4 * width * 4 * 4)
        self.stages = nn.Sequential(_up(4 * width, 2 * width), _up(2 * width, width))
        self.end = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        """Pictures [n, 1, 16, 16] of vectors [n, 16]."""
        x = self.begin(latent)
        return torch.sigmoid(self.end(self.stages(x.view(x.shape[0], -1, 4, 4))))


class Encoder(nn.Module):
    """Strided convolutions and a vector."""

    def __init__(self, outputs: int, *, width: int = 32) -> None:
        super().__init__()
        self.stages = nn.Sequential(_down(1, width), _down(width, 2 * width))
        self.end = nn.Linear(2 * width * 4 * 4, outputs)

    def forward(self, image: Tensor) -> Tensor:
        """Vectors [n, outputs] of pictures [n, 1, 16, 16]."""
        return self.end(self.stages(image).flatten(1))


class Autoencoder(nn.Module):
    """A picture through a narrow vector and back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(LATENT), Generator()

    def forward(self, image: Tensor) -> Tensor:
        """Pictures like `image` [n, 1, 16, 16]."""
        return self.decoder(self.encoder(image))


class VAE(nn.Module):
    """D. Kingma and M. Welling, *Auto-Encoding Variational Bayes*, 2014. At inference the mean is decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(2 * LATENT), Generator()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(pictures [n, 1, 16, 16], means, logarithms of the variances [n, 16])."""
        mean, log_variance = self.encoder(image).chunk(2, dim=1)
        noise = torch.randn_like(mean) * torch.exp(log_variance / 2) if self.training else 0.0
        return self.decoder(mean + noise), mean, log_variance


class Residual(nn.Module):
    """Two convolutions with the time between them, as in J. Ho, A. Jain and P. Abbeel, *DDPM*, 2020."""

    def __init__(self, inputs: int, outputs: int, time_width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.time = nn.Linear(time_width, outputs)
        self.second = nn.Sequential(nn.GroupNorm(8, outputs), nn.SiLU(), nn.Conv2d(outputs, outputs, 3, padding=1))
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """A tensor [n, outputs, h, w] of `x` [n, inputs, h, w] and `time` [n, time width]."""
        y = self.first(x) + self.time(time)[:, :, None, None]
        return self.second(y) + self.shortcut(x)


class Denoiser(nn.Module):
    """The noise in a picture of a certain noisiness: a small U-Net that is told the time."""

    def __init__(self, *, width: int = 32, time_width: int = 64) -> None:
        super().__init__()
        half = time_width // 2
        self.register_buffer("rates", torch.exp(-math.log(1000) * torch.arange(half) / half), persistent=False)
        self.time = nn.Sequential(nn.Linear(time_width, time_width), nn.SiLU(), nn.Linear(time_width, time_width))
        self.begin = nn.Conv2d(1, width, 3, padding=1)
        self.down_1, self.down_2 = Residual(width, width, time_width), Residual(width, 2 * width, time_width)
        self.pool = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.middle = Residual(2 * width, 2 * width, time_width)
        self.unpool = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.up = Residual(2 * width, width, time_width)
        self.end = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, noisy: Tensor, step: Tensor) -> Tensor:
        """Noise [n, 1, 16, 16] in pictures [n, 1, 16, 16] at steps int64 [n]."""
        angles = step[:, None].float() * self.rates[None]
        time = self.time(torch.cat([torch.sin(angles), torch.cos(angles)], 1))
        high = self.down_1(self.begin(noisy), time)
        low = self.middle(self.down_2(self.pool(high), time), time)
        return self.end(self.up(torch.cat([self.unpool(low), high], 1), time))
