"""A critic of small patches, for training only: does this piece of a mouth look like a photograph of these landmarks?

The patch critic of Isola et al. 2017 with spectral norms (Miyato et al. 2018).
"""

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class PatchDiscriminator(nn.Module):
    """Convolutions whose outputs each see a patch.

    Args:
        channels_in: of the pictures and whatever is shown beside them.
        channels: of the first layer; each further one has twice as many.
        layers: that halve the picture.
    """

    def __init__(self, channels_in: int = 6, channels: int = 48, layers: int = 3) -> None:
        super().__init__()
        built, before = [], channels_in
        for number in range(layers):
            after = channels * 2**number
            built.append(nn.Sequential(spectral_norm(nn.Conv2d(before, after, 4, 2, 1)), nn.LeakyReLU(0.2)))
            before = after
        self.layers = nn.ModuleList(built)
        self.out = spectral_norm(nn.Conv2d(before, 1, 3, padding=1))

    def forward(self, pictures: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, C, H, W) -> (B, 1, H / 2^layers, W / 2^layers) more where it looks real, and each layer's features."""
        features = []
        hidden = pictures
        for layer in self.layers:
            hidden = layer(hidden)
            features.append(hidden)
        return self.out(hidden), features
