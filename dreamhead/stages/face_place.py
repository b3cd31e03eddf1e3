"""Hold the place and the time of a job's chosen face against its video, before any work is done for it."""

from dreamhead.errors import InputError
from dreamhead.faces.tracking import FaceChoice
from dreamhead.records import Job
from dreamhead.stages.source import Source


def check_face(job: Job, source: Source) -> None:
    """Raise InputError, which says what is allowed, where `face` lies outside the picture or after its end."""
    choice = FaceChoice.parse(job.face)
    if choice.place is None:
        return
    width, height = source.video.shown_size
    left, top, right, bottom = choice.box or (*choice.place, *choice.place)
    if max(left, right) > width or max(top, bottom) > height:
        raise InputError(
            f"face: {job.face} lies outside the picture of {job.video_uri}; "
            f"allowed: x from 0 to {width:g}, y from 0 to {height:g}, in pixels as shown"
        )
    # A picture is shown as long as the output lasts; what is added to a video shows frames that it has.
    end_s = source.timeline.duration_s if source.video.is_still else source.video.duration_s
    if choice.time_s >= end_s:
        raise InputError(
            f"face: {job.face} is at {choice.time_s:g} s, and {job.video_uri} ends at {end_s:.2f} s; "
            "allowed: from 0 to before the end"
        )
