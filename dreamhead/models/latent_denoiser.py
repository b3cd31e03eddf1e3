"""Landmarks to image: the denoiser of the second stage, a diffusers UNet over latents and what it shall match.

Shapes: B batch, C latent channels, S side of the crop in pixels, s = S / 8 side of a latent.
"""

import torch
from diffusers import UNet2DModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

FACTOR = 8
GUIDE_CHANNELS = 8
"""Pictures that guide: target landmark image (3), reference landmark image (3), stretch of the warp (1), mask (1)."""


class LatentDenoiser(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Predicts how the clean latent differs from the warped reference's, and where to trust its own painting.

    Conditions are joined to the noisy latent channel by channel, as in latent diffusion (Rombach et al. 2022); the
    self-attention of the lower resolutions compares what lies far apart.

    Args:
        latent_channels: C.
        guide_channels: kept of the guides' 512 pixel-unshuffled channels.
        block_out_channels: of the UNet, from fine to coarse.
        layers_per_block: of the UNet.
    """

    @register_to_config  # type: ignore[untyped-decorator]  # diffusers has no types
    def __init__(
        self,
        latent_channels: int = 16,
        guide_channels: int = 32,
        block_out_channels: tuple[int, ...] = (96, 160, 224),
        layers_per_block: int = 1,
    ) -> None:
        super().__init__()
        self.guide = nn.Sequential(nn.PixelUnshuffle(FACTOR), nn.Conv2d(GUIDE_CHANNELS * FACTOR**2, guide_channels, 1))
        self.unet = UNet2DModel(
            in_channels=3 * latent_channels + guide_channels,
            out_channels=latent_channels + 1,
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            down_block_types=("DownBlock2D", *["AttnDownBlock2D"] * (len(block_out_channels) - 1)),
            up_block_types=(*["AttnUpBlock2D"] * (len(block_out_channels) - 1), "UpBlock2D"),
            norm_num_groups=16,
            attention_head_dim=32,
        )
        # A fresh network predicts no difference to the reference, and no trust in itself.
        nn.init.zeros_(self.unet.conv_out.weight)
        nn.init.zeros_(self.unet.conv_out.bias)

    def forward(
        self, noisy: Tensor, timestep: Tensor, reference: Tensor, masked: Tensor, guides: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Clean latent, and the logit of how far the painting is better than the warped reference's own pixels.

        Args:
            noisy: (B, C, s, s).
            timestep: (B,).
            reference: (B, C, s, s) latent of the warped reference.
            masked: (B, C, s, s) latent of the target with its lower face hidden.
            guides: (B, 8, S, S) in -1..1.

        Returns:
            (B, C, s, s) and (B, 1, s, s).
        """
        joined = torch.cat([noisy, reference, masked, self.guide(guides)], dim=1)
        output = self.unet(joined, timestep).sample
        return reference + output[:, :-1], output[:, -1:]
