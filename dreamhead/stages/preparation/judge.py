"""Which clips are fit for training: each rule is a figure, a limit from the settings, and a reason."""

from dreamhead.config import PreparationSettings
from dreamhead.stages.preparation.offset import ClipFit
from dreamhead.stages.preparation.pictures import Pictures
from dreamhead.stages.preparation.sound import Sound
from dreamhead.stages.preparation.tracks import Candidate

MOST_UNEVEN = 0.75
"""Frames that a frame may be off from where an even rate puts it; a clip has one rate."""


def refused(clip: Candidate, settings: PreparationSettings) -> list[str]:
    """Why a clip can't be used whatever it looks and sounds like; none when nothing speaks against it."""
    reasons = [clip.reason] if clip.reason else []
    if clip.seconds < settings.min_clip_s:
        reasons.append("too short")
    if clip.track.detected_share < settings.filters.min_detected_share:
        reasons.append("face seldom found")
    if clip.unevenness() > MOST_UNEVEN:
        reasons.append("uneven frame times")
    return reasons


def unfit(pictures: Pictures, settings: PreparationSettings) -> list[str]:
    """Why a clip's pictures can't be used."""
    filters, reasons = settings.filters, []
    if pictures.sharpness < filters.min_sharpness:
        reasons.append("blurred")
    if pictures.brightness < filters.min_brightness:
        reasons.append("too dark")
    if pictures.brightness > filters.max_brightness:
        reasons.append("too bright")
    return reasons


def unheard(
    clip: Candidate, pictures: Pictures, sound: Sound | None, fit: ClipFit | None, settings: PreparationSettings
) -> list[str]:
    """Why a clip's sound isn't taken for its face's speech."""
    reasons = []
    if pictures.second_face > settings.filters.max_second_face:
        reasons.append("several faces")
    if sound is not None and is_silent(clip, sound, settings):
        reasons.append("silent")
    if fit is not None and not fit.follows:
        reasons.append("lips don't follow the sound")
    return reasons


def is_silent(clip: Candidate, sound: Sound, settings: PreparationSettings) -> bool:
    """Whether nobody is taken to speak."""
    return sound.level_db(clip.start_s, clip.start_s + clip.seconds) < settings.filters.min_level_db
