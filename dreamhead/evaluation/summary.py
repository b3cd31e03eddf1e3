"""All verdicts together: means and spreads by condition, targets met or not, the worst clip first."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev

import numpy as np

from dreamhead.evaluation.figures import FIGURES
from dreamhead.evaluation.metrics import frechet_distance
from dreamhead.evaluation.records import Verdict
from dreamhead.evaluation.settings import CONDITIONS, ConditionName, TargetSettings
from dreamhead.stages.artefacts import load_arrays

ByCondition = dict[ConditionName, Verdict]


@dataclass(frozen=True)
class Spread:
    """One figure over the clips."""

    mean: float
    sd: float
    """Standard deviation."""
    least: float
    most: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of one value or more."""
        return cls(fmean(values), pstdev(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Target:
    """Something to reach: what is compared, and how."""

    label: str
    limit: str
    """As people read it."""
    figure: str
    """Name in FIGURES that says how the value is written."""
    condition: ConditionName
    """Whose pictures show it."""
    value: Callable[[ByCondition], float | None]
    """Of one clip; None where it wasn't measured."""
    is_met: Callable[[float], bool]
    badness: Callable[[float], float]
    """More is worse."""


@dataclass(frozen=True)
class Check:
    """One target, judged."""

    target: Target
    value: float | None
    met: bool | None
    """None where nothing was measured."""

    @property
    def text(self) -> str:
        """The value as it is written."""
        return FIGURES[self.target.figure].text(self.value)


@dataclass(frozen=True)
class OverallCheck:
    """One target over all clips."""

    target: Target
    spread: Spread | None
    met: bool | None
    """By the mean over the clips; None where nothing was measured."""
    clips_met: int


@dataclass(frozen=True)
class ClipSummary:
    """One clip."""

    clip_id: str
    speaker: str
    verdicts: ByCondition
    checks: list[Check]

    @property
    def speech_lag_s(self) -> float:
        """Seconds by which the recording's sound came late, and was moved."""
        return max((verdict.speech_lag_s for verdict in self.verdicts.values()), key=abs, default=0.0)

    @property
    def errors(self) -> list[tuple[str, list[ConditionName]]]:
        """What failed and in which conditions."""
        found: dict[str, list[ConditionName]] = {}
        for condition, verdict in self.verdicts.items():
            if verdict.error:
                found.setdefault(verdict.error, []).append(condition)
        return list(found.items())

    @property
    def badness(self) -> tuple[int, int, float]:
        """What clips are sorted by: failures, then targets missed, then how little our lips go with the true ones."""
        own = self.verdicts.get("self")
        correlation = own.figures.get("correlation_best", -1.0) if own else -1.0
        failures = sum(bool(verdict.error) for verdict in self.verdicts.values())
        return failures, sum(check.met is False for check in self.checks), -correlation


@dataclass(frozen=True)
class WorstCase:
    """One condition of one clip that misses a target further than any other clip, and every target so missed."""

    clip_id: str
    condition: ConditionName
    checks: list[Check]


@dataclass(frozen=True)
class Summary:
    """Everything that a report tells."""

    clips: list[ClipSummary]
    """The worst first."""
    spreads: dict[ConditionName, dict[str, Spread]]
    checks: list[OverallCheck]
    fid: dict[ConditionName, float] = field(default_factory=dict)
    not_given: dict[str, str] = field(default_factory=dict)
    """Figures that no clip has, since the weights that judge them weren't given."""

    @property
    def worst(self) -> list[WorstCase]:
        """Where targets are missed most, the one that misses most targets first; none where all are met."""
        found: dict[tuple[str, ConditionName], list[Check]] = {}
        for number, overall in enumerate(self.checks):
            missed = [(clip, clip.checks[number]) for clip in self.clips if clip.checks[number].met is False]
            if missed:
                clip, check = max(missed, key=lambda one: overall.target.badness(one[1].value or 0.0))
                found.setdefault((clip.clip_id, overall.target.condition), []).append(check)
        cases = [WorstCase(*place, checks) for place, checks in found.items()]
        return sorted(cases, key=lambda case: -len(case.checks))


def summarise(verdicts: Iterable[Verdict], targets: TargetSettings, not_given: dict[str, str]) -> Summary:
    """Put the verdicts of all clips together."""
    by_clip: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_clip.setdefault(verdict.clip_id, []).append(verdict)
    wanted = targets_of(targets)
    clips = [_clip(found, wanted) for found in by_clip.values()]
    spreads = {condition: _spreads(clips, condition) for condition in CONDITIONS}
    return Summary(
        clips=sorted(clips, key=lambda clip: (clip.badness, clip.clip_id), reverse=True),
        spreads={condition: found for condition, found in spreads.items() if found},
        checks=[_overall(clips, number, target) for number, target in enumerate(wanted)],
        fid={} if "fid" in not_given else _fid(clips),
        not_given=not_given,
    )


def targets_of(settings: TargetSettings) -> list[Target]:
    """The targets in the order of the report."""
    return [
        _at_least("own speech: correlation at the best lag", settings.correlation, "self", "correlation_best"),
        Target(
            "own speech: ms between lips and speech",
            f"at most {settings.lag_ms:g}",
            "speech_lag_ms",
            "self",
            _size(_figure("self", "speech_lag_ms")),
            lambda value: value <= settings.lag_ms,
            abs,
        ),
        _at_least("own speech: concordance", settings.concordance, "self", "concordance"),
        _between(
            "own speech: articulation", settings.articulation_least, settings.articulation_most, "self", "articulation"
        ),
        _between(
            "own speech: jitter against the real mouth", settings.jitter_least, settings.jitter_most, "self", "jitter"
        ),
        _at_most("own speech: seam", settings.seam, "self", "seam"),
        _at_most("shuffled speech: correlation left", settings.shuffled, "shuffled", "correlation"),
        _at_least("silence: mouth shut", settings.shut, "silent", "shut"),
        _gain("true landmarks: mouth above three merged warps, dB", settings.gain_over_merged_db, "merged"),
        _gain("true landmarks: mouth above one warp, dB", settings.gain_over_warp_db, "warp"),
        _between(
            "true landmarks: sharpness", settings.sharpness_least, settings.sharpness_most, "painted", "sharpness"
        ),
        Target(
            "true landmarks: perceptual distance relative to the better warp's",
            f"below {settings.perceptual:g}",
            "concordance",
            "painted",
            _relative_perceptual,
            lambda value: value < settings.perceptual,
            float,
        ),
        _at_most("true landmarks: identity against two real moments", settings.identity, "painted", "identity"),
    ]


def _at_least(label: str, limit: float, condition: ConditionName, name: str) -> Target:
    text = FIGURES[name].text(limit) if FIGURES[name].percent else f"{limit:g}"
    value = _figure(condition, name)
    return Target(label, f"at least {text}", name, condition, value, lambda found: found >= limit, lambda found: -found)


def _at_most(label: str, limit: float, condition: ConditionName, name: str) -> Target:
    value = _figure(condition, name)
    return Target(label, f"at most {limit:g}", name, condition, value, lambda found: found <= limit, float)


def _between(label: str, least: float, most: float, condition: ConditionName, name: str) -> Target:
    value, middle = _figure(condition, name), (least + most) / 2
    return Target(
        label,
        f"{least:g} to {most:g}",
        name,
        condition,
        value,
        lambda found: least <= found <= most,
        lambda found: abs(found - middle),
    )


def _gain(label: str, limit: float, over: ConditionName) -> Target:
    """Gain of the painted mouth's PSNR over another condition's."""

    def value(verdicts: ByCondition) -> float | None:
        painted, warped = (_figure(condition, "mouth_psnr_db")(verdicts) for condition in ("painted", over))
        return None if painted is None or warped is None else painted - warped

    return Target(
        label,
        f"at least {limit:g}",
        "mouth_psnr_db",
        "painted",
        value,
        lambda found: found >= limit,
        lambda found: -found,
    )


def _relative_perceptual(verdicts: ByCondition) -> float | None:
    """Perceptual distance of the painted mouth, relative to the lesser one of the warps."""
    painted = _figure("painted", "perceptual")(verdicts)
    warped = [_figure(condition, "perceptual")(verdicts) for condition in ("merged", "warp")]
    known = [value for value in warped if value]
    return painted / min(known) if painted is not None and known else None


def _clip(verdicts: Sequence[Verdict], targets: Sequence[Target]) -> ClipSummary:
    order = {condition: number for number, condition in enumerate(CONDITIONS)}
    found = {verdict.condition: verdict for verdict in sorted(verdicts, key=lambda one: order[one.condition])}
    values = [target.value(found) for target in targets]
    checks = [
        Check(target, value, None if value is None else target.is_met(value))
        for target, value in zip(targets, values, strict=True)
    ]
    return ClipSummary(verdicts[0].clip_id, verdicts[0].speaker, found, checks)


def _spreads(clips: Sequence[ClipSummary], condition: ConditionName) -> dict[str, Spread]:
    figures = [clip.verdicts[condition].figures for clip in clips if condition in clip.verdicts]
    values = {name: [found[name] for found in figures if name in found] for name in FIGURES}
    return {name: Spread.of(known) for name, known in values.items() if known}


def _overall(clips: Sequence[ClipSummary], number: int, target: Target) -> OverallCheck:
    checks = [clip.checks[number] for clip in clips]
    values = [check.value for check in checks if check.value is not None]
    if not values:
        return OverallCheck(target, None, None, 0)
    spread = Spread.of(values)
    return OverallCheck(target, spread, target.is_met(spread.mean), sum(check.met is True for check in checks))


def _fid(clips: Sequence[ClipSummary]) -> dict[ConditionName, float]:
    """Of all clips' frames together: one clip's are too few for the features' covariance."""
    found: dict[ConditionName, float] = {}
    for condition in CONDITIONS:
        verdicts = [clip.verdicts[condition] for clip in clips if condition in clip.verdicts]
        pairs = [load_arrays(verdict.arrays_uri, "ours", "truth") for verdict in verdicts if not verdict.error]
        if pairs:
            ours, truth = (np.concatenate(parts).astype(np.float64) for parts in zip(*pairs, strict=True))
            found[condition] = frechet_distance(ours, truth)
    return found


def _figure(condition: ConditionName, name: str) -> Callable[[ByCondition], float | None]:
    def value(verdicts: ByCondition) -> float | None:
        return verdicts[condition].figures.get(name) if condition in verdicts else None

    return value


def _size(value: Callable[[ByCondition], float | None]) -> Callable[[ByCondition], float | None]:
    def size(verdicts: ByCondition) -> float | None:
        found = value(verdicts)
        return None if found is None else abs(found)

    return size
