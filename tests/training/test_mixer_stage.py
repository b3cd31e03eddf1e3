"""The mixer's examples are what a warp makes, in a mirror too; its loss falls; its critic comes with the checkpoint."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dreamhead.faces import topology
from dreamhead.faces.crop import match_colour
from dreamhead.faces.mesh_index import mesh
from dreamhead.faces.warp import displacement, warp
from dreamhead.models.reference_mixer import ReferenceMixer
from dreamhead.pipelines.moving import Drawn, Examples, FaceStore, Made, encoded, make_examples
from dreamhead.training.dataset import Clip, list_clips, read_clip
from dreamhead.training.face_store import build_store, join, measure_clip
from dreamhead.training.image_stage import face_of
from dreamhead.training.mixer_stage import MixerTask, colour_matrix
from dreamhead.training.settings import MixerStage
from dreamhead.training.task import Figures
from tests.perceptual_weights import write_weights
from tests.training.conftest import SIZE
from tests.training.test_stages import batch_of, losses

WINDOW = 48
FRAME, REFERENCE = 3, 30


@pytest.fixture(scope="module")
def clip(toy_clips: list[Clip]) -> Clip:
    return next(clip for clip in toy_clips if clip.clip_id == "first")


@pytest.fixture(scope="module")
def store(clip: Clip) -> FaceStore:
    return join([measure_clip(clip, WINDOW)])


@pytest.fixture(scope="module")
def task(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> MixerTask:
    settings = MixerStage.model_validate(
        {"references": 2, "every": 2, "model": {"window": WINDOW, "channels": [16, 16, 32], "kept": 8}}
    )
    torch.manual_seed(0)
    made = MixerTask(
        ReferenceMixer(**settings.model.model_dump()), settings, write_weights(tmp_path_factory.mktemp("vgg"))
    )
    made.prepare([info for info in list_clips(str(shards), "train") if made.usable(info)])
    return made


def drawn(*, mirrored: bool = False, own: bool = False, colour: np.ndarray | None = None) -> Drawn:
    return Drawn(
        frames=torch.tensor([FRAME]),
        references=torch.tensor([[REFERENCE]]),
        present=torch.tensor([[True]]),
        own=torch.tensor([[own]]),
        distance=torch.zeros(1, 1),
        mirrored=torch.tensor([mirrored]),
        colour=torch.from_numpy(np.eye(3, dtype=np.float32) if colour is None else colour)[None],
    )


def example(store: FaceStore, which: Drawn) -> Examples:
    torch.manual_seed(0)
    model = ReferenceMixer(WINDOW, (16, 16, 32), 8)
    with torch.no_grad():
        return make_examples(encoded(model.encode), store, torch.from_numpy(mesh()), which)


def window(picture: np.ndarray, store: FaceStore) -> np.ndarray:
    x, y = store.corners[FRAME].tolist()
    return picture[y : y + WINDOW, x : x + WINDOW]


def usable(clips: list[Clip]) -> list[Clip]:
    return [clip for clip in clips if clip.clip_id != "second"]


def step_on(task: MixerTask, batch: dict[str, torch.Tensor], steps: int) -> dict[str, float]:
    """Some steps on the same examples; the parts of the last loss."""
    optimizer = torch.optim.AdamW(task.model.parameters(), 1e-3)
    parts: Figures = {}
    for step in range(steps):
        loss, parts = task.loss(batch, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: float(part) for name, part in parts.items()}


def halved(picture: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.resize(picture, (WINDOW // 2, WINDOW // 2), interpolation=cv2.INTER_AREA))


def pixels(picture: torch.Tensor) -> np.ndarray:
    return ((picture + 1) * 127.5).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("own", [True, False])
def test_a_reference_is_moved_and_matched_as_the_warp_does_it(clip: Clip, store: FaceStore, own: bool) -> None:
    face = face_of(clip)
    frame = cv2.GaussianBlur(clip.crop(FRAME), (0, 0), 3)
    # The reference was taken in another light.
    reference = np.clip(cv2.GaussianBlur(clip.crop(REFERENCE), (0, 0), 3) * 0.7 + [10.0, 0, 30], 0, 255).astype(
        np.uint8
    )
    pictures = store.pictures.clone()
    pictures[FRAME], pictures[REFERENCE] = torch.from_numpy(frame), torch.from_numpy(reference)
    field = displacement(face.landmarks[REFERENCE], face.landmarks[FRAME], SIZE)
    wanted = warp(reference, field).astype(np.float32)
    if not own:
        wanted = match_colour(wanted, frame, face.mask(FRAME))
    made = example(dataclasses.replace(store, pictures=pictures), drawn(own=own))
    apart = np.abs(pixels(made.pixels[0, 0]) - window(wanted, store)).max(axis=-1)
    shown = made.mask[0, 0].numpy() > 0.5
    assert np.quantile(apart[shown], 0.9) < (4 if not own else 1)
    unmatched = np.abs(window(warp(reference, field), store) - window(wanted, store))[shown]
    assert own == (unmatched.max() == 0)
    halves = np.abs(pixels(made.moved.pictures[0, 0]) - halved(window(wanted, store))).max(axis=-1)
    inner = halved(shown.astype(np.float32)) == 1
    assert np.quantile(halves[inner], 0.9) < 4
    stretch = np.abs(made.moved.stretch[0, 0, 0].numpy() - halved(window(field.stretch, store)))
    assert np.quantile(stretch[inner], 0.9) < 0.01


def test_target_and_guides_are_the_frames_own(clip: Clip, store: FaceStore) -> None:
    made = example(store, drawn())
    np.testing.assert_allclose(pixels(made.target[0]), window(clip.crop(FRAME), store), atol=0.01)
    hidden = made.mask[0, 0] > 0
    assert hidden.any()
    assert not made.guides[0, 3:6][:, hidden].any()
    torch.testing.assert_close(made.guides[0, 3:6][:, ~hidden], made.target[0][:, ~hidden])


def test_a_mirrored_example_is_the_mirror_image(store: FaceStore) -> None:
    plain, mirrored = example(store, drawn()), example(store, drawn(mirrored=True))
    for name in ("guides", "target", "mask", "mouth", "drawn"):
        torch.testing.assert_close(getattr(mirrored, name), getattr(plain, name).flip(-1))
    for ours, theirs in ((mirrored.pixels, plain.pixels), (mirrored.moved.pictures, plain.moved.pictures)):
        torch.testing.assert_close(ours, theirs.flip(-1), atol=2e-3, rtol=0)
    torch.testing.assert_close(mirrored.moved.stretch, plain.moved.stretch.flip(-1))


def test_colours_of_target_and_references_change_alike(store: FaceStore) -> None:
    red = np.diag([0.5, 1, 1]).astype(np.float32)
    plain, changed = example(store, drawn()), example(store, drawn(colour=red))
    for before, after in ((plain.target, changed.target), (plain.pixels, changed.pixels)):
        torch.testing.assert_close(after[..., 0, :, :] + 1, (before[..., 0, :, :] + 1) / 2)
        torch.testing.assert_close(after[..., 1:, :, :], before[..., 1:, :, :])


def test_a_change_of_colour_leaves_greys_grey() -> None:
    for seed in range(5):
        changed = colour_matrix(np.random.default_rng(seed), 1.0) @ np.ones(3)
        assert np.ptp(changed) < 1e-5
        assert 0.7 < changed[0] < 1.25
    np.testing.assert_allclose(colour_matrix(np.random.default_rng(0), 0.0), np.eye(3), atol=1e-6)


def test_processes_measure_the_same(shards: Path, clip: Clip, store: FaceStore) -> None:
    infos = [info for info in list_clips(str(shards), "train") if info.clip_id in ("first", "third")]
    built = build_store(infos, WINDOW, torch.device("cpu"), processes=2)
    assert len(built) == sum(info.frames for info in infos)
    first = [info.clip_id for info in infos].index("first") * infos[0].frames
    assert torch.equal(built.index[first : first + len(store)], store.index)
    assert torch.equal(built.pictures[first : first + len(store)], store.pictures)
    some = build_store(infos[:1], WINDOW, torch.device("cpu"), frames=[np.array([4, 5])])
    assert torch.equal(some.pictures, built.pictures[4:6])


def frames_of(task: MixerTask, clip: Clip, places: np.ndarray) -> np.ndarray:
    """Numbers, in the clip, of frames of the store."""
    kept = task._kept[clip.clip_id]
    return kept.frames[places - kept.first]


def with_changes(task: MixerTask, **augmentation: float) -> MixerStage:
    return MixerStage.model_validate({**task._settings.model_dump(), "augmentation": augmentation})


def test_every_second_pair_of_neighbours_is_kept(task: MixerTask, clip: Clip) -> None:
    kept = task._kept[clip.clip_id].frames
    assert kept[:6].tolist() == [0, 1, 4, 5, 8, 9]
    assert kept[-1] < len(clip.landmarks)


def test_references_are_of_the_same_clip_and_not_the_frame(
    task: MixerTask, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "_settings", with_changes(task, made_share=0))
    for seed in range(20):
        made = task.example(clip, np.random.default_rng(seed))
        frames, references = frames_of(task, clip, made["frames"]), frames_of(task, clip, made["references"])
        assert frames[1] - frames[0] == 1
        apart = np.abs(references[0] - frames[0])
        assert (apart[:-1] >= 10).all()
        assert 3 <= apart[-1] <= 13
        assert made["present"][:, 0].all()
        assert not made["made_used"].any()
        # Both have the same references, seen alike; the frame's stand-in moves on with it.
        np.testing.assert_array_equal(references[0, :-1], references[1, :-1])
        assert references[1, -1] > references[0, -1] or references[0, -1] == task._kept[clip.clip_id].frames[-1]
        for name in ("present", "mirrored", "colour", "errors"):
            np.testing.assert_array_equal(made[name][0], made[name][1])


def test_a_frame_is_given_another_ones_mouth_and_keeps_its_skin(
    task: MixerTask, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "_settings", with_changes(task, made_share=1, own_share=1))
    face = face_of(clip)
    moved = []
    for seed in range(10):
        made = task.example(clip, np.random.default_rng(seed))
        assert made["made_used"].all()
        np.testing.assert_array_equal(made["references"][:, -1], made["frames"])
        for step, frame in enumerate(frames_of(task, clip, made["frames"])):
            picture, truth = made["made_pictures"][step].astype(int), clip.crop(int(frame))
            assert np.abs(picture[: SIZE // 4] - truth[: SIZE // 4]).max() == 0
            points = made["made_vertices"][step][:478] - face.landmarks[frame, :, :2]
            assert np.abs(points[list(topology.RIGID)]).max() < 0.5
            moved.append(np.abs(points[list(topology.OUTER_LOWER_LIP)]).max())
    assert max(moved) > 1


def test_made_frames_take_the_place_of_the_last_reference(task: MixerTask, store: FaceStore) -> None:
    plain = example(store, drawn(own=True))
    picture = torch.full((1, SIZE, SIZE, 3), 200, dtype=torch.uint8)
    vertices = store.vertices[REFERENCE][None]
    image = torch.zeros(1, WINDOW, WINDOW, 3, dtype=torch.uint8)
    for used in (False, True):
        made = Made(picture, vertices, image, torch.tensor([used]))
        found = example(store, drawn(own=True)._replace(made=made))
        assert torch.equal(found.sources, plain.sources)
        assert torch.equal(found.moved.fine, plain.moved.fine) != used
        if used:
            torch.testing.assert_close(found.pixels, torch.full_like(found.pixels, 200 / 127.5 - 1))
        else:
            assert torch.equal(found.pixels, plain.pixels)


def test_pairs_are_encoded_once(store: FaceStore) -> None:
    torch.manual_seed(0)
    model = ReferenceMixer(WINDOW, (16, 16, 32), 8).eval()
    both = Drawn(
        frames=torch.tensor([3, 4, 8, 9]),
        references=torch.tensor([[20, 30, 6], [20, 30, 7], [25, 15, 1], [25, 15, 2]]),
        present=torch.ones(4, 3, dtype=torch.bool),
        own=torch.tensor([[False, False, True]]).expand(4, 3),
        distance=torch.zeros(4, 3),
        mirrored=torch.tensor([True, True, False, False]),
        colour=torch.eye(3).expand(4, 3, 3),
    )
    with torch.no_grad():
        alone, together = (encoded(model.encode, paired=paired)(store, both) for paired in (False, True))
    for ours, theirs in zip(alone, together, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_shut_references_are_those_of_the_most_shut_quarter(
    task: MixerTask, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    face = face_of(clip)
    gaps = np.linalg.norm(face.landmarks[:, 13, :2] - face.landmarks[:, 14, :2], axis=1)
    monkeypatch.setattr(task, "_settings", with_changes(task, shut_share=1))
    found = [task.example(clip, np.random.default_rng(seed))["references"][0, :-1] for seed in range(10)]
    assert gaps[frames_of(task, clip, np.concatenate(found))].max() <= np.quantile(gaps, 0.4)


def test_the_loss_falls(task: MixerTask, toy_clips: list[Clip]) -> None:
    batch = batch_of(task, usable(toy_clips), size=2)
    before = losses(task, batch)
    step_on(task, batch, steps=24)
    after = losses(task, batch)
    assert after["pixel"] + after["perceptual"] < 0.95 * (before["pixel"] + before["perceptual"])


def test_the_critic_speaks_and_learns_once_it_is_time(task: MixerTask, toy_clips: list[Clip]) -> None:
    batch = batch_of(task, usable(toy_clips), size=2)
    before = {name: part.clone() for name, part in task.state()["critic"].items()}
    assert not {"adversary", "matching"} & set(step_on(task, batch, steps=1))
    assert all(torch.equal(part, task.state()["critic"][name]) for name, part in before.items())
    task.progress = 0.5
    parts = step_on(task, batch, steps=1)
    task.progress = 0.0
    assert parts["matching"] > 0
    assert any(not torch.equal(part, task.state()["critic"][name]) for name, part in before.items())
    assert not any(parameter.grad is None for parameter in task.model.parameters() if parameter.requires_grad)


def test_the_critic_is_part_of_the_checkpoint(task: MixerTask, toy_clips: list[Clip], tmp_path: Path) -> None:
    settings = task._settings
    other = MixerTask(ReferenceMixer(**settings.model.model_dump()), settings, write_weights(tmp_path))
    other.load_state(task.state())
    mine, its = (each.state()["critic"] for each in (task, other))
    assert all(torch.equal(part, its[name]) for name, part in mine.items())


def test_validation_judges_warps_and_mixture_alike(task: MixerTask, shards: Path) -> None:
    clips = [read_clip(info) for info in list_clips(str(shards), "validation")]
    with torch.no_grad():
        judgement = task.validate(clips)
        again = task.validate(clips)
    names = {f"{who}{what}" for who in ("", "own_", "nearest_", "merged_") for what in ("psnr", "distance", "detail")}
    assert set(judgement.figures) == names | {"quality"}
    assert judgement.figures == again.figures
    assert judgement.figures["psnr"] > 10
    (picture,) = judgement.pictures.values()
    assert picture.shape[1] == 3 * WINDOW
    assert cv2.imencode(".png", picture)[0]
