"""Hold a review's figures against the limits: reasons for a person to look, and one score to sort jobs by."""

from typing import NamedTuple

from dreamhead.config import ReviewSettings
from dreamhead.stages.review.figures import FIGURES

MOST = 10.0
"""Largest score."""
SAME_DB = 60.0
"""PSNR at which an encoded picture shows no difference at all."""


class Limit(NamedTuple):
    """What one figure is held against."""

    figure: str
    perfect: float
    limit: float
    worse: int
    """1 where more than perfect is worse, -1 where less is."""
    setting: str
    """Name of the limit's setting."""
    says: str
    """The reason where it is beyond the limit; `{value}` and `{limit}` are filled in."""

    def distance(self, value: float) -> float:
        """0 for perfect, or better; 1 at the limit, more beyond it."""
        excess, allowed = self.worse * (value - self.perfect), self.worse * (self.limit - self.perfect)
        if excess <= 0:
            return 0.0
        return min(MOST, excess / allowed) if allowed > 0 else MOST


class Breach(NamedTuple):
    """A figure beyond its limit."""

    limit: Limit
    value: float

    @property
    def reason(self) -> str:
        """A plain sentence."""
        figure = FIGURES[self.limit.figure]
        return self.limit.says.format(value=figure.text(self.value), limit=figure.text(self.limit.limit))

    @property
    def terse(self) -> str:
        """Figure, value and limit by their names."""
        name, bound = self.limit.figure, "at most" if self.limit.worse > 0 else "at least"
        return f"{name} is {self.value:.4g}; {bound} {self.limit.limit:g} is allowed by review.{self.limit.setting}"


def limits(settings: ReviewSettings) -> list[Limit]:
    """All limits, in the order in which they are told."""
    return [
        Limit("faces_found", 1, settings.min_faces_found, -1, "min_faces_found",
              "the face is found again in only {value} of the frames; expected {limit}"),
        Limit("lip_correlation", 1, settings.min_correlation, -1, "min_correlation",
              "the lips hardly follow the wanted motion: correlation {value}; expected {limit}"),
        Limit("lip_lag_s", 0, settings.max_lag_s, 1, "max_lag_s",
              "the lips are late by {value}; at most {limit}"),
        Limit("lip_lag_s", 0, -settings.max_lag_s, -1, "max_lag_s",
              "the lips are early: a lag of {value}; at least {limit}"),
        Limit("lip_spread", 1, settings.min_spread, -1, "min_spread",
              "the lips move too little: {value} of what was wanted; at least {limit}"),
        Limit("lip_spread", 1, settings.max_spread, 1, "max_spread",
              "the lips move too much: {value} of what was wanted; at most {limit}"),
        Limit("lip_error", 0, settings.max_lip_error, 1, "max_lip_error",
              "the lip opening is off by {value} eye distances; at most {limit}"),
        Limit("sharpness", 1, settings.min_sharpness, -1, "min_sharpness",
              "the mouth is softer than the source's: {value}; at least {limit}"),
        Limit("seam", 1, settings.max_seam, 1, "max_seam",
              "the mask's edge shows: {value} of the source's change of colour there; at most {limit}"),
        Limit("colour_step", 0, settings.max_colour_step, 1, "max_colour_step",
              "the colour changes at the mask's edge by {value} levels; at most {limit}"),
        Limit("jitter", 1, settings.max_jitter, 1, "max_jitter",
              "the lips tremble: {value} of the natural jitter; at most {limit}"),
        Limit("untouched_db", SAME_DB, settings.min_untouched_db, -1, "min_untouched_db",
              "pixels that weren't painted differ from the source's: {value}; at least {limit}"),
        Limit("passed_through", 0, settings.max_passed_through, 1, "max_passed_through",
              "{value} of the frames to be dubbed passed through; at most {limit}"),
    ]  # fmt: skip


def breaches(figures: dict[str, float], settings: ReviewSettings) -> list[Breach]:
    """The figures that are beyond a limit."""
    return [
        Breach(limit, figures[limit.figure])
        for limit in limits(settings)
        if limit.figure in figures and limit.distance(figures[limit.figure]) > 1
    ]


def score(figures: dict[str, float], settings: ReviewSettings) -> float:
    """How far the worst figure is on its way from perfect (0) to its limit (1), and beyond; at most 10."""
    known = (limit for limit in limits(settings) if limit.figure in figures)
    return round(max((limit.distance(figures[limit.figure]) for limit in known), default=0.0), 4)
