"""What is judged, and what came out: one clip, and one condition of one clip, each as a line of JSON."""

import dataclasses
import json
from dataclasses import dataclass, field

from typing_extensions import Self

from dreamhead.evaluation.settings import ConditionName


@dataclass(frozen=True, kw_only=True)
class JudgedClip:
    """One row of the list; every uri is absolute."""

    clip_id: str
    video_uri: str
    audio_uri: str
    """The speech; the video's own sound unless the list names another file."""
    speaker: str
    speech_lag_s: float = 0.0
    """Seconds by which the sound comes late in the recording; it is moved by that before it is used."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One condition of one clip."""

    clip: JudgedClip
    condition: ConditionName
    other: JudgedClip | None = None
    """Whose speech `cross` takes."""

    def to_json(self) -> str:
        """One line that `from_json` reads back."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        values = json.loads(text)
        values["clip"] = JudgedClip(**values["clip"])
        values["other"] = JudgedClip(**values["other"]) if values["other"] else None
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was found of one condition of one clip."""

    clip_id: str
    speaker: str
    condition: ConditionName
    speech_lag_s: float = 0.0
    """Seconds by which the recording's sound came late, and was moved before it was used."""
    error: str = ""
    """Empty when all went well, else `ErrorType: message`."""
    figures: dict[str, float] = field(default_factory=dict)
    """By the names of `figures.FIGURES`; what couldn't be had is in `missing`."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why a figure isn't there."""
    curves: dict[str, list[float | None]] = field(default_factory=dict)
    """Of the T frames: `times_s`, the lip opening `ours` and `truth`, in units of eye distance."""
    frames: int = 0
    frames_judged: int = 0
    """Frames that are dubbed in full and whose face was found in the source."""
    moments: list[int] = field(default_factory=list)
    """Frames shown in the picture, left to right."""
    worst: list[int] = field(default_factory=list)
    """Which of them are the worst."""
    video_uri: str = ""
    picture_uri: str = ""
    """JPEG: the source above, this condition below."""
    arrays_uri: str = ""
    """The measured landmarks, as .npz."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds by step."""

    def to_json(self) -> str:
        """One line that `from_json` reads back."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))
