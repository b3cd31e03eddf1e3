"""Read files through and through, under a limit of memory, and say of each, before and after, in a line of JSON.

`python -m tests.media.damage_worker FILE ...`; whoever reads the lines knows which file the process died of.
"""

import hashlib
import json
import resource
import sys
from collections.abc import Callable, Iterator

import numpy as np

from dreamhead.errors import DreamheadError
from dreamhead.media.audio import AudioInfo, probe_audio, read_speech
from dreamhead.media.video import probe, read_frames
from dreamhead.records import VideoInfo

MEMORY_BYTES = 3 * 10**9
RATE = 16_000
WINDOW_S, MOST_S = 10.0, 60.0
"""Speech is read in windows, as the product does, and no more of it: a file may claim to last for years."""


def main(*paths: str) -> None:
    """Look at every file, one after the other."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for path in paths:
        _say({"begin": path})
        _say({"end": path, "video": _result(_look, path), "audio": _result(_listen, path)})


def _say(line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _result(read: Callable[[str], dict[str, object]], path: str) -> dict[str, object]:
    """What reading found, how it was refused, or what is wrong with the product."""
    try:
        return read(path)
    except DreamheadError as error:
        return {"refused": f"{type(error).__name__}: {error}"}
    except BaseException as error:  # noqa: BLE001 - whatever else is raised is what is looked for.
        return {"fault": f"{type(error).__name__}: {error}"}


def _look(path: str) -> dict[str, object]:
    info = probe(path)
    faults = list(_faults_of_times(info))
    digests = []
    try:
        for frame in read_frames(info, range(info.frame_count)):
            turned = info.rotation % 180 != 0
            shape = (info.width, info.height, 3) if turned else (info.height, info.width, 3)
            if frame.shape != shape or frame.dtype != np.uint8:
                faults.append(f"frame {len(digests)} is {frame.dtype} {frame.shape}; probed as {shape}")
            digests.append(hashlib.sha256(frame.tobytes()).hexdigest())
        if len(digests) != info.frame_count:
            faults.append(f"{len(digests)} frames were read of {info.frame_count}")
        faults += _faults_of_seeking(info, digests)
    except DreamheadError as error:
        return {"refused": f"{type(error).__name__}: {error}", **_fault(faults)}
    return {"frames": len(digests), "warnings": info.warnings, **_fault(faults)}


def _faults_of_times(info: VideoInfo) -> Iterator[str]:
    if info.frame_count < 1:
        yield "no frame"
    if not (np.diff(info.pts) > 0).all() or info.end_pts <= info.pts[-1]:
        yield f"times don't ascend: {info.pts[:5]} to {info.end_pts}"
    if not (np.isfinite(info.times_s).all() and 0 < info.duration_s < float("inf") and info.average_rate > 0):
        yield f"lasts {info.duration_s} s at {info.average_rate} Hz"


def _faults_of_seeking(info: VideoInfo, digests: list[str]) -> Iterator[str]:
    """Frames read in another order are the same frames."""
    last = info.frame_count - 1
    for index in (last, last // 2, 0):
        (frame,) = read_frames(info, [index])
        if hashlib.sha256(frame.tobytes()).hexdigest() != digests[index]:
            yield f"frame {index} read alone is another than when all are read"


def _listen(path: str) -> dict[str, object]:
    info = probe_audio(path)
    faults = [] if 0 < info.duration_s < float("inf") else [f"lasts {info.duration_s} s"]
    if not faults:
        faults = list(_faults_of_samples(info))
    return {"seconds": info.duration_s, "warnings": info.warnings, **_fault(faults)}


def _faults_of_samples(info: AudioInfo) -> Iterator[str]:
    stop_s = min(info.duration_s, MOST_S)
    for start_s in (*np.arange(0.0, stop_s, WINDOW_S), max(0.0, info.duration_s - 0.5)):
        end_s = min(float(start_s) + WINDOW_S, info.duration_s)
        samples = read_speech(info.uri, float(start_s), end_s, RATE)
        if samples.shape != (round((end_s - float(start_s)) * RATE),) or samples.dtype != np.float32:
            yield f"{samples.dtype} {samples.shape} from {start_s:g} to {end_s:g} s"
        if not np.isfinite(samples).all():
            yield f"samples from {start_s:g} to {end_s:g} s aren't numbers"


def _fault(faults: list[str]) -> dict[str, object]:
    return {"fault": "; ".join(faults)} if faults else {}


if __name__ == "__main__":
    main(*sys.argv[1:])
