"""Pictures of an episode: their order, their depth, and that a film is one."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import DTypeLike
from PIL import Image

from diffusion_policy.data.formats.convert import convert
from diffusion_policy.data.formats.pictures import read_pictures
from diffusion_policy.errors import DataError
from diffusion_policy.film.video import save_video


def _saved(folder: Path, values: list[float], dtype: DTypeLike, name: str = "{}.tiff") -> None:
    for i, value in enumerate(values):
        Image.fromarray(np.full((9, 8), value, dtype)).save(folder / name.format(i))


def test_pictures_without_leading_zeros_stand_beside_their_steps(tmp_path: Path) -> None:
    _saved(tmp_path, list(range(12)), np.uint8, "front_{}.png")
    assert read_pictures(tmp_path, "front_*.png", 12, "'front'")[:, 0, 0, 0].tolist() == list(range(12))


def test_pictures_of_one_number_are_refused_by_name(tmp_path: Path) -> None:
    _saved(tmp_path, [0, 1], np.uint8, "front_{}.png")
    _saved(tmp_path, [0, 1], np.uint8, "front_{:02}.png")
    with pytest.raises(DataError, match=r"but got front_0\.png and front_00\.png"):
        read_pictures(tmp_path, "front_*.png", 4, "'front'")


def test_pictures_of_floats_stay_float32(tmp_path: Path) -> None:
    metres = [0.25, 1.5, 70000.5]
    _saved(tmp_path, metres, np.float32, "images_{}.tiff")
    (tmp_path / "a.csv").write_text("u\n1\n2\n3\n")
    (tmp_path / "mapping.yaml").write_text("{episodes: '*.csv', keys: {action: u}, images: {depth: '*.tiff'}}")
    with convert(str(tmp_path), tmp_path / "a.zarr") as buffer:
        assert (buffer.dtype("depth"), buffer.shape("depth")) == (np.float32, (9, 8, 1))
        np.testing.assert_array_equal(buffer["depth"][:, 4, 4, 0], np.float32(metres))


def test_pictures_of_32_bit_that_fit_16_become_uint16(tmp_path: Path) -> None:
    _saved(tmp_path, [0, 1, 65535], np.int32)
    pictures = read_pictures(tmp_path, "*.tiff", 3, "'depth'")
    assert pictures.dtype == np.uint16
    assert pictures[:, 0, 0, 0].tolist() == [0, 1, 65535]


@pytest.mark.parametrize("value", [65536, 70000, -1])
def test_pictures_beyond_16_bit_are_refused(value: int, tmp_path: Path) -> None:
    _saved(tmp_path, [1, value], np.int32)
    with pytest.raises(DataError, match=rf"expected numbers in \[0, 65535\], but 1\.tiff has some in \[{value}, "):
        read_pictures(tmp_path, "*.tiff", 2, "'depth'")


def test_several_films_of_an_episode_are_refused_by_name(tmp_path: Path) -> None:
    for episode in (1, 2, 10):
        save_video((np.zeros((32, 48, 3), np.uint8) for _ in range(3)), tmp_path / f"{episode}_front.mp4", fps=10)
    with pytest.raises(DataError, match=r"but 1\*\.mp4 matches 10_front\.mp4 and 1_front\.mp4; correct the mapping"):
        read_pictures(tmp_path, "1*.mp4", 3, "'front'")
    assert read_pictures(tmp_path, "1_*.mp4", 3, "'front'").shape == (3, 32, 48, 3)


def test_a_film_beside_pictures_is_refused_by_name(tmp_path: Path) -> None:
    _saved(tmp_path, [0, 1], np.uint8, "front_{}.png")
    save_video((np.zeros((32, 48, 3), np.uint8) for _ in range(3)), tmp_path / "film.mp4", fps=10)
    with pytest.raises(DataError, match=r"but f\* matches film\.mp4 and front_0\.png"):
        read_pictures(tmp_path, "f*", 3, "'front'")
