"""Audio to landmarks: the denoiser of the first stage, from temporal units and mapping units.

Shapes: B batch, T frames at 25 a second, D shape coefficients, C speech features a frame, H hidden channels.
"""

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


class LandmarkDenoiser(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Predicts clean shape coefficients from noisy ones, speech and the speaker's resting face.

    The coefficients are those of a principal component basis of lower-face residuals (Blanz and Vetter 1999 call such
    a thing a morphable model): dense landmarks move together, and few numbers say how.

    Args:
        points: K, landmarks of the lower face.
        coefficients: D, components kept.
        speech_size: C, speech features a frame.
        hidden_size: H.
        blocks: pairs of a temporal and a mapping unit.
        dilations: of the temporal units, in turn.
        dropout: share of hidden values dropped while training.
    """

    @register_to_config  # type: ignore[untyped-decorator]  # diffusers has no types
    def __init__(
        self,
        points: int = 187,
        coefficients: int = 32,
        speech_size: int = 1024,
        hidden_size: int = 192,
        blocks: int = 6,
        dilations: tuple[int, ...] = (1, 2, 4),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.noisy = nn.Linear(coefficients, hidden_size)
        self.speech_norm = nn.LayerNorm(speech_size)
        self.speech = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(speech_size, hidden_size),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_size, hidden_size),
        )
        self.no_speech = nn.Parameter(torch.zeros(hidden_size))
        self.neutral = nn.Linear(coefficients, hidden_size)
        self.timesteps = Timesteps(hidden_size, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time = TimestepEmbedding(hidden_size, hidden_size)
        self.units = nn.ModuleList()
        for number in range(blocks):
            self.units.append(TemporalUnit(hidden_size, dilations[number % len(dilations)], dropout))
            self.units.append(MappingUnit(hidden_size, dropout))
        self.out = nn.Sequential(nn.LayerNorm(hidden_size), nn.Linear(hidden_size, coefficients))
        self.register_buffer("mean", torch.zeros(points * 3))
        self.register_buffer("basis", torch.zeros(coefficients, points * 3))
        self.register_buffer("neutral_mean", torch.zeros(points * 3))

    def forward(self, noisy: Tensor, timestep: Tensor, speech: Tensor, neutral: Tensor, keep: Tensor) -> Tensor:
        """Clean coefficients.

        Args:
            noisy: (B, T, D).
            timestep: (B,) steps of the schedule.
            speech: (B, T, C).
            neutral: (B, K, 3) resting lower face in canonical units.
            keep: (B,) 1 where the speech is heard, 0 where it is dropped for guidance.

        Returns:
            (B, T, D).
        """
        heard = self.speech(self.speech_norm(speech))
        heard = torch.where(keep[:, None, None] > 0, heard, self.no_speech)
        identity = self.neutral(self.project(neutral - self.neutral_mean.view(-1, 3)))
        time = self.time(self.timesteps(timestep).to(noisy.dtype))
        hidden = self.noisy(noisy) + heard + identity[:, None]
        for block in self.units:
            hidden = block(hidden, time, heard)
        clean: Tensor = self.out(hidden)
        return clean

    def project(self, shapes: Tensor) -> Tensor:
        """(..., K, 3) displacements to (..., D) coefficients; the basis holds orthogonal rows."""
        flat = shapes.flatten(-2)
        coefficients: Tensor = flat @ self.basis.T / self.basis.square().sum(dim=1)
        return coefficients

    def encode(self, residual: Tensor) -> Tensor:
        """(..., K, 3) residuals to the resting face -> (..., D) coefficients of unit variance."""
        return self.project(residual - self.mean.view(-1, 3))

    def decode(self, coefficients: Tensor) -> Tensor:
        """(..., D) coefficients -> (..., K, 3) residuals, canonical units."""
        flat: Tensor = coefficients @ self.basis + self.mean
        return flat.view(*flat.shape[:-1], -1, 3)


class TemporalUnit(nn.Module):
    """Gated dilated convolution over time; the diffusion time scales and shifts it."""

    def __init__(self, hidden_size: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.modulation = nn.Linear(hidden_size, 2 * hidden_size)
        self.convolution = nn.Conv1d(hidden_size, 2 * hidden_size, 3, padding=dilation, dilation=dilation)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden: Tensor, time: Tensor, heard: Tensor) -> Tensor:
        """(B, T, H) hidden, (B, H) time, (B, T, H) heard speech -> (B, T, H)."""
        scale, shift = self.modulation(time)[:, None].chunk(2, dim=-1)
        modulated = self.norm(hidden) * (1 + scale) + shift + heard
        value, gate = self.convolution(modulated.transpose(1, 2)).transpose(1, 2).chunk(2, dim=-1)
        result: Tensor = hidden + self.out(self.dropout(value * gate.sigmoid()))
        return result


class MappingUnit(nn.Module):
    """Fully connected layers on each frame alone: from what is heard to how the mouth looks."""

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.layers = nn.Sequential(
            nn.Linear(hidden_size, 2 * hidden_size),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * hidden_size, hidden_size),
        )

    def forward(self, hidden: Tensor, time: Tensor, heard: Tensor) -> Tensor:
        """(B, T, H) hidden -> (B, T, H); frame by frame, so neither time nor the neighbours matter."""
        result: Tensor = hidden + self.layers(self.norm(hidden))
        return result


def fit_basis(model: LandmarkDenoiser, residuals: Tensor, neutrals: Tensor) -> dict[str, Any]:
    """Set the model's shape basis from data.

    Args:
        residuals: (N, K, 3) of all training frames, with frames and speakers weighted as they come.
        neutrals: (S, K, 3) resting faces of the speakers.

    Returns:
        `explained`: share of the residuals' variance that the basis holds.
    """
    flat = residuals.flatten(1).double()
    mean = flat.mean(dim=0)
    _, singular, rows = torch.linalg.svd(flat - mean, full_matrices=False)
    count = model.config["coefficients"]
    deviation = singular[:count] / len(flat) ** 0.5
    model.mean.copy_(mean)
    model.basis.copy_(rows[:count] * deviation[:, None])
    model.neutral_mean.copy_(neutrals.flatten(1).mean(dim=0))
    return {"explained": float(singular[:count].square().sum() / singular.square().sum())}
