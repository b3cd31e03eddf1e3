"""A critic that learns beside the network, and what it has to say of its pictures: hinge loss and feature matching."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from dreamhead.models.patch_discriminator import PatchDiscriminator


class Adversary:
    """The critic, its optimizer, and the losses of both sides.

    Args:
        learning_rate: of the critic.
        device: where the network is.
    """

    def __init__(self, learning_rate: float, device: torch.device) -> None:
        self._device = device
        self._critic = PatchDiscriminator().to(device)
        self._optimizer = torch.optim.AdamW(self._critic.parameters(), learning_rate, betas=(0.5, 0.9))

    def judge(self, painted: Tensor, real: Tensor, beside: Tensor) -> tuple[Tensor, Tensor]:
        """How far painted pictures fail to pass for real ones, and how their features differ. Gradients flow to them.

        Args:
            painted: (B, 3, H, W).
            real: (B, 3, H, W).
            beside: (B, C, H, W) shown with both.
        """
        self._critic.requires_grad_(False)
        with self._full_precision():
            score, features = self._critic(torch.cat([painted.float(), beside], dim=1))
            with torch.no_grad():
                _, wanted = self._critic(torch.cat([real, beside], dim=1))
        pairs = zip(features, wanted, strict=True)
        matching = torch.stack([nn.functional.l1_loss(ours, theirs) for ours, theirs in pairs]).mean()
        return -score.mean(), matching

    def learn(self, painted: Tensor, real: Tensor, beside: Tensor) -> Tensor:
        """One step of the critic; its loss."""
        self._critic.requires_grad_(True)
        both = torch.cat([torch.cat([real, painted.detach().float()]), torch.cat([beside, beside])], dim=1)
        with self._full_precision():
            good, bad = self._critic(both)[0].chunk(2)
        loss = nn.functional.relu(1 - good).mean() + nn.functional.relu(1 + bad).mean()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return loss.detach()

    def _full_precision(self) -> AbstractContextManager[None]:
        # The spectral norms are found by iteration, which bfloat16 is too coarse for.
        return torch.autocast(self._device.type, enabled=False)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"critic": self._critic.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take what `state` gave."""
        self._critic.load_state_dict(state["critic"])
        self._optimizer.load_state_dict(state["optimizer"])
