"""A checkpoint of the real classes at toy size, with random weights: for tests of everything around the networks."""

from pathlib import Path

import torch

from dreamhead import checkpoint
from dreamhead.checkpoint import CheckpointConfig
from dreamhead.models.autoencoder import FaceAutoencoder
from dreamhead.models.landmark_denoiser import LandmarkDenoiser
from dreamhead.models.latent_denoiser import LatentDenoiser
from dreamhead.models.reference_mixer import ReferenceMixer

CROP_SIZE = 64
SPEECH_SIZE = 160
"""Two log-mel features of 80 bands a tick."""


def landmark_denoiser() -> LandmarkDenoiser:
    """First stage whose random output moves the mouth by some hundredths of the eyes' distance."""
    torch.manual_seed(0)
    model = LandmarkDenoiser(coefficients=4, speech_size=SPEECH_SIZE, hidden_size=16, blocks=1)
    rows = torch.linalg.qr(torch.randn(model.basis.shape[1], 4))[0].T
    model.basis.copy_(rows * 0.3)
    return model.eval()


def latent_denoiser(seed: int = 0) -> LatentDenoiser:
    """Second stage that paints noise, and trusts it by about a tenth."""
    torch.manual_seed(seed)
    model = LatentDenoiser(latent_channels=4, guide_channels=8, block_out_channels=(32, 32))
    torch.nn.init.normal_(model.unet.conv_out.weight, std=0.02)
    return model.eval()


def autoencoder() -> FaceAutoencoder:
    """Autoencoder with four latent channels."""
    torch.manual_seed(0)
    return FaceAutoencoder(latent_channels=4, channels=(8, 16), blocks=(1, 1)).eval()


def reference_mixer() -> ReferenceMixer:
    """Mixes moved references, and adds a little noise."""
    torch.manual_seed(0)
    model = ReferenceMixer(48, (16, 16, 32), 8)
    torch.nn.init.normal_(model.key.weight, std=0.2)
    torch.nn.init.normal_(model.add[1].weight, std=0.02)
    return model.eval()


def tiny_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Write the checkpoint, whose frames depend on the seed, and return its folder."""
    config = CheckpointConfig(speech_encoder="log_mel", crop_size=CROP_SIZE)
    checkpoint.save(
        folder, config, landmark_denoiser(), latent_denoiser(seed), autoencoder(), "Random weights, for tests."
    )
    return folder
