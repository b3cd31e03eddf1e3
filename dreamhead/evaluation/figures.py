"""The figures that are reported: their names, what they mean, how they are written."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One figure of one condition of one clip."""

    label: str
    digits: int
    meaning: str
    percent: bool = False

    def text(self, value: float | None) -> str:
        """How the value is written; a dash where there is none."""
        if value is None:
            return "–"
        # Adding zero turns the zero below zero into plain zero.
        rounded = round(100 * value if self.percent else value, self.digits) + 0.0
        return f"{rounded:.{self.digits}f}{' %' if self.percent else ''}"


FIGURES: dict[str, Figure] = {
    "correlation": Figure(
        "correlation", 3, "Of our lip opening with the speaker's own in the same frame (Pearson); 1 is the same motion."
    ),
    "correlation_best": Figure("at best lag", 3, "The same where one curve is shifted by the time below."),
    "lag_ms": Figure(
        "lag, ms", 0, "By which our lips are later than the speaker's own where that is best, in whole frames."
    ),
    "speech_correlation": Figure(
        "with its speech",
        2,
        "Of our lip opening with what real lips did when this speech was recorded, at the best lag: for shuffled "
        "speech the speaker's own opening moved with it, for another clip's speech that speaker's.",
    ),
    "speech_lag_ms": Figure(
        "lips late by, ms",
        0,
        "By which our lips are later than the speech in the file: the lag of the line above, less the delay of the "
        "file's sound against the speech that was given. Positive: lips late.",
    ),
    "concordance": Figure(
        "concordance",
        3,
        "The same agreement where width and height count too (Lin 1989), in the same frame: opening too wide, or too "
        "far on the whole, lowers it.",
    ),
    "articulation": Figure(
        "articulation", 2, "Spread (standard deviation) of our lip opening relative to the speaker's own."
    ),
    "shut": Figure(
        "mouth shut",
        0,
        "Share of frames whose lip opening is small for this speaker: below the stated share of the way from the 5th "
        "to the 95th percentile of the speaker's own.",
        percent=True,
    ),
    "closure": Figure(
        "closures met",
        0,
        "Share of the moments in which the speaker's lips are shut (in the sense of the line above) in which ours are "
        "shut too, for at least half of the moment, 40 ms early or late allowed. All closures count: no recogniser of "
        "phonemes is at hand to tell p, b and m from the rest.",
        percent=True,
    ),
    "closure_false": Figure(
        "false closures",
        0,
        "Share of the moments in which our lips are shut in which the speaker's are open.",
        percent=True,
    ),
    "jitter": Figure(
        "jitter",
        2,
        "Mean second difference over time of the lips' landmarks in the canonical pose, relative to the source's.",
    ),
    "mouth_lmd": Figure(
        "mouth distance",
        3,
        "Mean distance of the lips' landmarks from the source's, both in the canonical pose (rigid points aligned), in "
        "units of eye distance.",
    ),
    "mouth_lmd_px": Figure("in pixels", 1, "The same in pixels of a 256-pixel crop."),
    "face_lmd": Figure("face distance", 3, "The same for all 478 landmarks."),
    "face_lmd_px": Figure("in pixels", 1, "The same in pixels of a 256-pixel crop."),
    "mouth_psnr_db": Figure(
        "mouth PSNR", 1, "dB against the source's frames in the aligned crop, weighted by the true lips' region."
    ),
    "face_psnr_db": Figure("face PSNR", 1, "dB, weighted by the dubbed region, which the head's pose decides."),
    "mouth_ssim": Figure("mouth SSIM", 3, "Structural similarity (Wang et al. 2004) of luma, weighted likewise."),
    "face_ssim": Figure("face SSIM", 3, "The same over the dubbed region."),
    "colour_step": Figure(
        "colour step",
        1,
        "Levels of 255 by which the change of colour across the edge of the dubbed region differs from the source's.",
    ),
    "seam": Figure("seam", 2, "Mean change of colour across that edge, relative to the source's; 1 is no seam."),
    "perceptual": Figure(
        "perceptual distance",
        4,
        "How differently the first three blocks of VGG16 see the mouth of ours and of the source (the idea of LPIPS, "
        "but other weights and no learned heads: it isn't LPIPS, and compares with itself only). In the aligned crop, "
        "half of its side around the lips: there every face has the same size, which such a network sees as part of "
        "the picture.",
    ),
    "sharpness": Figure(
        "sharpness",
        2,
        "Variance of what a Gaussian of one pixel takes from the mouth, in the frame's own pixels, relative to the "
        "source's in the same frames: crops would hide what a large face loses. Below 1 is softer.",
    ),
    "flicker": Figure(
        "flicker",
        2,
        "Mean change of the mouth's luma from frame to frame that no motion explains (optical flow taken out), "
        "relative to the source's. A soft mouth has less that could flicker: read it beside sharpness.",
    ),
    "faces_found": Figure("faces found", 0, "Share of judged frames in which the detector still finds the face.", True),
    "identity": Figure(
        "identity",
        2,
        "Distance of the recognition network's embeddings of our face and the source's in the same frame, relative to "
        "that of two real moments of the clip; 1 is as far apart as the speaker is from themself.",
    ),
    "identity_distance": Figure("identity distance", 3, "The same distance as the network has it."),
    "lpips": Figure("LPIPS", 3, "Learned distance (Zhang et al. 2018, AlexNet) of the aligned crops; 0 is the same."),
    "lse_c": Figure("LSE-C", 2, "SyncNet's confidence: median less least distance over the offsets; more is better."),
    "lse_d": Figure("LSE-D", 2, "SyncNet's least distance over the offsets; less is better."),
    "av_offset_frames": Figure("AV offset", 0, "Frames, at 25 a second, of that offset; positive: lips late."),
}
"""In the order of the tables."""

FID = Figure("FID", 1, "Distance of Inception features of all clips' crops from the sources' (Heusel et al. 2017).")

SYNC = (
    *("correlation", "correlation_best", "lag_ms", "speech_correlation", "speech_lag_ms"),
    *("concordance", "articulation", "shut", "closure", "closure_false", "jitter"),
    *("mouth_lmd", "mouth_lmd_px", "face_lmd", "face_lmd_px"),
    *("lse_c", "lse_d", "av_offset_frames"),
)
"""Figures of motion and sound."""
PICTURE = tuple(name for name in FIGURES if name not in SYNC)
"""Figures of pixels."""
