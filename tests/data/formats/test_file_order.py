"""The order of numbered files."""

from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.data.formats.file_order import in_order
from diffusion_policy.errors import DataError

FOLDER = Path("recordings")


def _ordered(names: list[str]) -> list[str]:
    shuffled = np.random.default_rng(0).permutation(names).tolist()
    return [file.relative_to(FOLDER).as_posix() for file in in_order((FOLDER / n for n in shuffled), FOLDER, "here")]


@pytest.mark.parametrize(
    "pattern", ["{}.csv", "front_{}.png", "{}/left.png", "run2_{}_a.png", "front_{:05}.png", "{:.2f}.png"]
)
def test_numbered_files_are_in_the_order_of_their_numbers(pattern: str) -> None:
    names = [pattern.format(i) for i in range(120)]
    assert _ordered(names) == names


def test_names_without_numbers_and_of_equal_length_keep_the_order_of_their_letters() -> None:
    names = sorted(["ab.csv", "a.csv", "img.png", "img1.png", "2024-01-15_10-30.csv", "2024-01-15_11-02.csv"])
    assert _ordered(names) == names


@pytest.mark.parametrize(
    ("one", "other"),
    [("front_01.png", "front_1.png"), ("1.5.png", "1.25.png"), ("2.05.png", "2.5.png"), ("2.csv", "2.npz")],
)
def test_names_that_tell_no_order_are_refused_by_name(one: str, other: str) -> None:
    with pytest.raises(DataError, match="here: expected names that tell which is first, but got ") as raised:
        _ordered(["0.png", one, other, "20.png"])
    assert one in str(raised.value)
    assert other in str(raised.value)
    assert "number them with leading zeros" in str(raised.value)


def test_times_are_decimals_of_as_many_digits_as_python_prints(tmp_path: Path) -> None:
    for times in ([1700000000 + i / 30 for i in range(60)], [i / 30 for i in range(60)]):
        names = [tmp_path / f"cam_{round(time, 6)}.png" for time in times]
        assert in_order(reversed(names), tmp_path, "pictures") == names
