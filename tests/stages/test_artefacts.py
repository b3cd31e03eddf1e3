"""A shot's analysis comes back as it was written, its references' pixels to the bit and in less room."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from dreamhead.errors import StorageError
from dreamhead.faces.reference import reference_arrays
from dreamhead.records import ShotAnalysis
from dreamhead.stages.artefacts import load_arrays, load_shot, save_arrays, save_shot, shot_arrays
from tests.toy_faces import toy_shot


def assert_equal(ours: ShotAnalysis, theirs: ShotAnalysis) -> None:
    for field in fields(ShotAnalysis):
        found, wanted = getattr(ours, field.name), getattr(theirs, field.name)
        np.testing.assert_array_equal(found, wanted, err_msg=field.name)
        if isinstance(wanted, np.ndarray):
            assert found.dtype == wanted.dtype, field.name


def test_a_shot_comes_back_as_it_was(tmp_path: Path) -> None:
    shot = replace(toy_shot(start=7)[1], pixel_aspect=0.75)
    uri = str(tmp_path / "shot.npz")
    save_shot(uri, shot)
    found = load_shot(uri)
    assert_equal(found, replace(shot, crops=shot.crops, articulation=found.articulation))
    assert np.isnan(found.articulation) == np.isnan(shot.articulation)
    # Smooth pictures of one colour less than noise; never more than raw ones.
    (files,) = load_arrays(uri, "reference_files")
    assert files.nbytes < 0.8 * shot.reference_pixels.nbytes
    assert shot_arrays(shot).keys() == shot_arrays(found).keys()


def test_a_shot_without_a_face_comes_back(tmp_path: Path) -> None:
    shot = replace(toy_shot()[1], **reference_arrays([], 64))
    uri = str(tmp_path / "shot.npz")
    save_shot(uri, shot)
    assert_equal(load_shot(uri), replace(shot, articulation=load_shot(uri).articulation))


def test_a_damaged_reference_is_named(tmp_path: Path) -> None:
    arrays = shot_arrays(toy_shot()[1])
    arrays["reference_files"] = arrays["reference_files"].copy()
    arrays["reference_files"][:200] = 0
    uri = str(tmp_path / "shot.npz")
    save_arrays(uri, **arrays)
    with pytest.raises(StorageError, match=r"shot\.npz: a reference in it can't be decoded"):
        load_shot(uri)
