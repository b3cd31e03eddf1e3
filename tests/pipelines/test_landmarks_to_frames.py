"""Frames out are frames in, painted inside the mask and nowhere else."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dreamhead.config import RenderSettings
from dreamhead.faces import topology
from dreamhead.faces.crop import apply_transform, extract, pose_mask
from dreamhead.faces.geometry import fit_pose
from dreamhead.faces.reference import patch, reference_arrays
from dreamhead.pipelines.landmarks_to_frames import LandmarksToFrames, mix, trust, use_bfloat16
from dreamhead.pipelines.placing import with_bare_references
from dreamhead.records import ShotAnalysis
from tests import tiny
from tests.toy_faces import canonical_face, toy_shot

SIZE = tiny.CROP_SIZE
Picture = NDArray[np.uint8]


def pipeline(**settings: object) -> LandmarksToFrames:
    values = {"precision": "float32", **settings}
    mixer = tiny.reference_mixer() if values.get("renderer") == "mixer" else None
    networks = tiny.latent_denoiser(), tiny.autoencoder()
    return LandmarksToFrames(*networks, RenderSettings.model_validate(values), SIZE, mixer=mixer)


def targets_of(openings: list[float]) -> NDArray[np.float32]:
    return np.stack([canonical_face(gap)[topology.lower_face()] for gap in openings]).astype(np.float32)


@pytest.fixture(scope="module")
def shot() -> tuple[list[Picture], ShotAnalysis]:
    return toy_shot((0.0, 0.1, 0.2, 0.3, 0.1), SIZE, start=40)


TARGETS = targets_of([0.3, 0.0, 0.1, 0.2, 0.3])
FULL = np.ones(5, np.float32)


def render(
    shot: tuple[list[Picture], ShotAnalysis], strength: NDArray[np.float32] = FULL, seed: int = 0, **settings: object
) -> list[Picture]:
    frames, analysis = shot
    return list(pipeline(**settings)(frames, range(40, 45), strength, analysis, TARGETS, seed))


def opacities(shot: tuple[list[Picture], ShotAnalysis]) -> Iterator[tuple[Picture, NDArray[np.bool_]]]:
    """Each frame, and where in it something may be painted."""
    frames, analysis = shot
    for frame, points, transform in zip(frames, analysis.landmarks, analysis.crops, strict=True):
        mask = pose_mask(analysis.neutral, fit_pose(points[None]), transform, SIZE, 0.06)
        rows, columns = np.mgrid[: frame.shape[0], : frame.shape[1]]
        place = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float32)
        x, y = np.floor(apply_transform(transform, place)).astype(int).T
        around = np.zeros(len(place), bool)
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            inside = (x + i >= 0) & (x + i < SIZE) & (y + j >= 0) & (y + j < SIZE)
            around[inside] |= mask[y[inside] + j, x[inside] + i] > 0
        # OpenCV interpolates at places rounded to 1/32 of a pixel.
        yield frame, cv2_grow(around.reshape(rows.shape))


def cv2_grow(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(flags, 1)
    near = [np.roll(padded, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    grown: NDArray[np.bool_] = np.any(near, axis=0)[1:-1, 1:-1]
    return grown


@pytest.mark.parametrize("renderer", ["diffusion", "warp", "mixer"])
@pytest.mark.parametrize("skin", ["frame", "reference"])
def test_only_the_lower_face_changes(shot: tuple[list[Picture], ShotAnalysis], renderer: str, skin: str) -> None:
    painted = render(shot, renderer=renderer, skin=skin)
    assert len(painted) == 5
    for picture, (frame, inside) in zip(painted, opacities(shot), strict=True):
        assert picture.dtype == np.uint8
        assert picture.shape == frame.shape
        np.testing.assert_array_equal(picture[~inside], frame[~inside])
        assert (picture[inside] != frame[inside]).mean() > 0.3


@pytest.mark.parametrize("renderer", ["warp", "mixer"])
def test_what_is_burnt_in_stays_as_it_is(shot: tuple[list[Picture], ShotAnalysis], renderer: str) -> None:
    frames, analysis = shot
    rows, columns = np.mgrid[108:114, 84:120]
    pixels = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.uint16)
    spans = np.array([[41, 44, len(pixels)]], np.int64)
    captioned = replace(analysis, overlay_spans=spans, overlay_pixels=pixels)
    lettered = [frame.copy() for frame in frames]
    for frame in lettered[1:4]:
        frame[rows, columns] = (255, 255, 0)
    painted, plain = render((lettered, captioned), renderer=renderer), render((frames, analysis), renderer=renderer)
    for number in (1, 2, 3):
        np.testing.assert_array_equal(painted[number][rows, columns], lettered[number][rows, columns])
        # Beside the letters the face is painted as it is without them, and nothing of them is smeared there.
        around = np.zeros(frames[0].shape[:2], bool)
        around[98:124, 74:130] = True
        around[102:120, 78:126] = False
        assert np.abs(painted[number][around].astype(int) - plain[number][around]).mean() < 4
    # Where no text is, the references are without it, too.
    for number in (0, 4):
        assert np.abs(painted[number].astype(int) - plain[number]).mean() < 0.5


def test_references_are_rid_of_what_is_burnt_in(shot: tuple[list[Picture], ShotAnalysis]) -> None:
    frames, analysis = shot
    rows, columns = np.mgrid[104:110, 94:108]
    pixels = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.uint16)
    spans = np.array([[42, 43, len(pixels)]], np.int64)
    lettered = frames[2].copy()
    lettered[rows, columns] = (255, 255, 0)
    crops, whole = analysis.reference_crops.copy(), analysis.reference_pixels.copy()
    plain, crops[2] = crops[2].astype(int), extract(lettered, analysis.reference_crop_transforms[2], SIZE)
    assert np.abs(crops[2] - plain).max() > 100
    shown = replace(analysis, reference_crops=crops, reference_pixels=whole)
    patch(shown, 2).pixels[:] = lettered
    captioned = replace(shown, overlay_spans=spans, overlay_pixels=pixels)
    bare = with_bare_references(captioned)
    assert np.abs(bare.reference_crops[2] - plain).max() < 60
    np.testing.assert_array_equal(bare.reference_crops[[0, 1, 3, 4]], crops[[0, 1, 3, 4]])
    assert np.abs(patch(bare, 2).pixels[104:110, 94:108].astype(int) - frames[2][104:110, 94:108]).max() < 60
    beside = np.s_[:100]
    np.testing.assert_array_equal(patch(bare, 2).pixels[beside], lettered[beside])
    for number in (0, 1, 3, 4):
        np.testing.assert_array_equal(patch(bare, number).pixels, frames[number])
    np.testing.assert_array_equal(patch(captioned, 2).pixels, lettered)
    assert with_bare_references(analysis) is analysis


def test_frames_that_are_not_dubbed_are_the_very_same(shot: tuple[list[Picture], ShotAnalysis]) -> None:
    strength = np.array([0, 1, 0, 0.5, 0], np.float32)
    painted = render(shot, strength)
    assert [picture is frame for picture, frame in zip(painted, shot[0], strict=True)] == [
        True,
        False,
        True,
        False,
        True,
    ]


def test_a_frame_does_not_depend_on_which_others_are_dubbed(shot: tuple[list[Picture], ShotAnalysis]) -> None:
    some = render(shot, np.array([0, 1, 0, 1, 0], np.float32), renderer="warp")
    every = render(shot, renderer="warp")
    np.testing.assert_array_equal(some[1], every[1])
    np.testing.assert_array_equal(some[3], every[3])


def test_nothing_to_dub_needs_no_face(shot: tuple[list[Picture], ShotAnalysis]) -> None:
    frames, analysis = shot
    lost = ShotAnalysis(
        start=40,
        stop=45,
        landmarks=np.full_like(analysis.landmarks, np.nan),
        routes=np.ones(5, np.uint8),
        neutral=np.full((478, 3), np.nan, np.float32),
        articulation=math.nan,
        crops=np.full_like(analysis.crops, np.nan),
        **reference_arrays([], SIZE),
    )
    out = list(pipeline()(frames, range(40, 45), 0 * FULL, lost, TARGETS, 0))
    assert all(picture is frame for picture, frame in zip(out, frames, strict=True))


def test_strength_fades_the_mouth_in(shot: tuple[list[Picture], ShotAnalysis]) -> None:
    change = [
        np.abs(render(shot, FULL * np.float32(share), renderer="warp")[0].astype(int) - shot[0][0]).sum()
        for share in (0.1, 0.4, 1.0)
    ]
    assert 0 < change[0] < change[1] < change[2]


def test_the_network_paints_only_where_it_is_trusted(shot: tuple[list[Picture], ShotAnalysis]) -> None:
    warped, painted = render(shot, renderer="warp"), render(shot, renderer="diffusion")
    for first, second, (_, inside) in zip(warped, painted, opacities(shot), strict=True):
        np.testing.assert_array_equal(first[~inside], second[~inside])
        assert (first != second).any()
        # This toy network's trust is sigmoid(-2) at first.
        assert np.abs(first.astype(int) - second).max() < 0.3 * 255


@pytest.mark.parametrize("renderer", ["diffusion", "warp", "mixer"])
def test_batches_do_not_matter(shot: tuple[list[Picture], ShotAnalysis], renderer: str) -> None:
    alone, together = (render(shot, renderer=renderer, batch_size=size) for size in (1, 8))
    for first, second in zip(alone, together, strict=True):
        # Kernels differ with the size of a batch by less than half a level.
        assert np.abs(first.astype(int) - second).max() <= (0 if renderer == "warp" else 1)


def test_the_same_seed_gives_the_same_bits_and_another_others(shot: tuple[list[Picture], ShotAnalysis]) -> None:
    first, again, other = (render(shot, seed=seed) for seed in (5, 5, 6))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


def test_at_most_a_batch_is_held(shot: tuple[list[Picture], ShotAnalysis]) -> None:
    frames, analysis = shot
    taken = 0

    def counted() -> Iterator[Picture]:
        nonlocal taken
        for frame in frames:
            taken += 1
            yield frame

    given = pipeline(batch_size=2, renderer="warp")(counted(), range(40, 45), FULL, analysis, TARGETS, 0)
    for number, _ in enumerate(given):
        assert taken <= number + 2


def test_too_few_frames_are_noticed(shot: tuple[list[Picture], ShotAnalysis]) -> None:
    frames, analysis = shot
    with pytest.raises(ValueError, match="longer than argument 1"):
        list(pipeline(renderer="warp")(frames[:3], range(40, 45), FULL, analysis, TARGETS, 0))


def test_a_target_that_is_the_source_warps_the_frame_to_itself(shot: tuple[list[Picture], ShotAnalysis]) -> None:
    frames, analysis = shot
    canonical = fit_pose(analysis.landmarks).to_canonical(analysis.landmarks)
    targets = canonical[:, topology.lower_face()].astype(np.float32)
    out = pipeline(renderer="warp")(frames, range(40, 45), FULL, analysis, targets, 0)
    for picture, frame in zip(out, frames, strict=True):
        assert np.abs(picture.astype(int) - frame).mean() < 1.0


def test_trust_is_careful_smooth_and_full_size() -> None:
    assert trust(torch.zeros(1, 1, 3, 4)).shape == (1, 1, 24, 32)
    assert float(trust(torch.zeros(1, 1, 3, 4)).mean()) == pytest.approx(0.119, abs=1e-3)
    edge = trust(torch.tensor([[[[-20.0, 20.0]]]]))[0, 0, 0]
    assert (edge.diff() >= 0).all()
    assert edge.diff().max() < 0.2


def test_precision_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert use_bfloat16("bfloat16", cpu)
    assert not use_bfloat16("float32", cpu)
    for able, expected in (({"avx512_bf16": True}, True), ({"amx_bf16": False, "avx2": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert use_bfloat16("auto", cpu) is expected


def test_half_precision_paints_nearly_the_same(shot: tuple[list[Picture], ShotAnalysis]) -> None:
    full, half = (render(shot, precision=precision) for precision in ("float32", "bfloat16"))
    for first, second in zip(full, half, strict=True):
        assert np.abs(first.astype(int) - second).mean() < 0.5
        assert np.abs(first.astype(int) - second).max() < 12


def mixed(share: float, stretch: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noise as warped pixels, a flat painting, and what becomes of them."""
    warped = torch.rand(1, 3, 192, 256, generator=torch.Generator().manual_seed(0)) - 0.5
    painted = torch.full_like(warped, 0.3)
    guides = torch.zeros(1, 8, 192, 256)
    guides[:, 6] = stretch / 3
    return warped, painted, mix(warped, painted, torch.full((1, 1, 192, 256), share), guides)


def test_a_painting_that_is_not_trusted_changes_nothing() -> None:
    warped, _, found = mixed(share=0, stretch=2)
    torch.testing.assert_close(found, warped)


def test_the_painting_gives_what_is_coarse_and_the_warp_the_details() -> None:
    warped, _, found = mixed(share=1, stretch=0.2)
    assert float(found.mean()) == pytest.approx(0.3, abs=0.01)
    assert float(found.std()) > 0.9 * float(warped.std())
    assert np.corrcoef(found.flatten(), warped.flatten())[0, 1] > 0.98


@pytest.mark.parametrize("stretch", [2.0, -2.0])
def test_where_the_warp_is_torn_the_painting_is_taken_whole(stretch: float) -> None:
    _, painted, found = mixed(share=1, stretch=stretch)
    torch.testing.assert_close(found, painted)
