"""One source of training data: a video, or a stretch of one, whose speaker is known."""

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass

from typing_extensions import Self

DIGEST_CHARS = 8
STEM_CHARS = 80


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is prepared as a whole: its clips share one shard and one lag between sound and lips."""

    uri: str
    """Absolute."""
    speaker: str
    split: str
    """One of `training.dataset.SPLITS`."""
    start_s: float = 0.0
    """Nothing before this time is used, in seconds from the first frame."""
    end_s: float | None = None
    """Nothing from this time on is used; None is the end."""
    spoken: bool = True
    """Whether the sound may be the speaker's own speech; if not, it isn't looked at."""
    digest: str = ""
    """Of the video's content; set once the source is checked."""

    @property
    def stem(self) -> str:
        """The file's name without folder and suffix."""
        return stem_of(self.uri)

    @property
    def name(self) -> str:
        """The name of its shard: fit for a path, and the same in every run."""
        identity = json.dumps([self.uri, self.start_s, self.end_s])
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", self.stem)[:STEM_CHARS].lstrip(".-") or "source"
        return f"{plain}-{hashlib.sha256(identity.encode()).hexdigest()[:DIGEST_CHARS]}"

    def to_json(self) -> str:
        """One line that `from_json` reads back."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))


def stem_of(uri: str) -> str:
    """A file's name without folder and suffix."""
    name = uri.rstrip("/").rpartition("/")[2]
    return name.rpartition(".")[0] or name


def falls_into_validation(speaker: str, share: float) -> bool:
    """Whether a speaker is one of the `share` kept for validation: by a hash of the name, the same in every run."""
    number = int(hashlib.sha256(speaker.encode()).hexdigest()[:13], 16)
    return number < share * 16**13
