"""Settings of an evaluation: what is judged, how it is measured, and what is good enough."""

from typing import Literal

from pydantic import Field

from dreamhead.config import DubSettings, PoolSettings, Section

ConditionName = Literal["real", "reencoded", "self", "shuffled", "silent", "cross", "painted", "merged", "warp", "copy"]

CONDITIONS: tuple[ConditionName, ...] = (
    *("real", "reencoded", "self", "shuffled", "silent", "cross"),
    *("painted", "merged", "warp", "copy"),
)


class TargetSettings(Section):
    """What is good enough. Each is judged clip by clip, and by the mean over the clips."""

    correlation: float = 0.85
    """Least correlation, at the best lag, of our lip opening with the speaker's own, from the same speech."""
    lag_ms: float = Field(default=60.0, ge=0)
    """Furthest, in milliseconds, that our lips may be from our speech, either way; a frame takes 40 at 25 a second."""
    concordance: float = 0.75
    """Least concordance of our lip opening with the speaker's own in the same frame, from the same speech."""
    articulation_least: float = Field(default=0.9, ge=0)
    """Least spread of our lip opening, relative to the speaker's own."""
    articulation_most: float = Field(default=1.1, ge=0)
    """Most spread, likewise."""
    shuffled: float = 0.1
    """Most correlation left, at no lag, when the speech is shifted by half its length."""
    shut: float = Field(default=0.95, ge=0, le=1)
    """Least share of frames with the mouth shut when nothing is said."""
    jitter_least: float = Field(default=0.8, ge=0)
    """Least jitter of our mouth's landmarks, relative to the real ones."""
    jitter_most: float = Field(default=1.2, ge=0)
    """Most jitter, likewise."""
    seam: float = Field(default=1.1, ge=0)
    """Most change of colour across the mask's edge, relative to the source's: no seam."""
    gain_over_merged_db: float = 1.0
    """Least gain, in PSNR of the mouth painted from true landmarks, over three merged warps."""
    gain_over_warp_db: float = 2.0
    """Least gain over one warped reference."""
    sharpness_least: float = Field(default=0.8, ge=0)
    """Least detail of that mouth, relative to the source's."""
    sharpness_most: float = Field(default=1.1, ge=0)
    """Most detail, likewise."""
    perceptual: float = Field(default=1.0, ge=0)
    """Its perceptual distance from the source is below this share of the better warp's."""
    identity: float = Field(default=1.0, ge=0)
    """Most distance from the source's face, relative to that of two real moments of the clip."""


class JudgeSettings(Section):
    """Paths to others' weights that judge pictures and sound; what needs one that isn't given isn't measured."""

    recognition: str = ""
    """Face recognition on 112x112 ArcFace crops, `.onnx` or TorchScript: identity. Empty: dlib's network."""
    dlib: str = ""
    """`dlib_face_recognition_resnet_model_v1.dat`; empty: installed with the `identity` extra, else downloaded."""
    perceptual: str = ""
    """File that `scripts/make_perceptual` wrote: perceptual distance; empty: where it writes by itself."""
    alexnet: str = ""
    """torchvision's `alexnet-owt-7be5be79.pth`: LPIPS, together with `lpips`."""
    lpips: str = ""
    """`weights/v0.1/alex.pth` of the package lpips."""
    inception: str = ""
    """Inception as TorchScript, (N, 3, 299, 299) in -1..1 to (N, features): FID."""
    syncnet: str = ""
    """`syncnet_v2.model`: LSE-C, LSE-D and the offset of sound and picture."""


class EvaluationSettings(Section):
    """Everything that shapes an evaluation."""

    dub: DubSettings = DubSettings()
    """How the clips are dubbed."""
    conditions: tuple[ConditionName, ...] = CONDITIONS
    """What is made of each clip and judged; `real` and `reencoded` are the source itself."""
    start_s: float = Field(default=0.0, ge=0)
    """Where in each clip the judged stretch begins."""
    seconds: float = Field(default=8.0, gt=0)
    """Longest stretch of a clip that is judged."""
    apart_s: float = Field(default=2.0, ge=0)
    """Least distance in time of a reference from its frame where true landmarks are given."""
    most_lag_s: float = Field(default=0.2, ge=0, le=2)
    """Seconds by which curves are shifted, either way and by whole frames, to find the best correlation."""
    shut_share: float = Field(default=0.2, gt=0, lt=1)
    """A mouth counts as shut below this share of the way from the 5th to the 95th percentile of its own opening."""
    network_every: int = Field(default=10, ge=1)
    """Frames from one to the next that others' networks judge."""
    seed: int = Field(default=0, ge=0)
    """Of the dubs."""
    moments: int = Field(default=5, ge=1)
    """Pictures of each condition, spread evenly."""
    worst_moments: int = Field(default=3, ge=0)
    """Pictures of each condition where the mouth's landmarks are furthest off; its pixels, where landmarks are true."""
    picture_px: int = Field(default=160, ge=32)
    """Side of a picture in the report."""
    targets: TargetSettings = TargetSettings()
    judges: JudgeSettings = JudgeSettings()
    pool: PoolSettings | None = None
    """Actors that make and judge conditions; sized from the cluster unless given."""
    max_attempts: int = Field(default=2, ge=1)
    """Tries of one condition before it is given up."""
    no_progress_timeout_s: float = Field(default=1800.0, gt=0)
    """The run is ended with an error when nothing was judged for this long."""
