"""Arrays of an npz, read row by row."""

from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.data.formats import npz
from diffusion_policy.errors import DataError


@pytest.mark.parametrize("shape", [(7,), (7, 1), (7, 3), (7, 2, 5, 3)])
def test_rows_are_those_of_numpy_in_either_order(shape: tuple[int, ...], tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    np.savez(tmp_path / "a.npz", c=values, fortran=np.asfortranarray(values))
    with npz.opened(str(tmp_path / "a.npz")) as columns:
        for name in ("c", "fortran"):
            blocks = [columns[name].rows(count) for count in (0, 2, 1, 4)]
            assert [len(block) for block in blocks] == [0, 2, 1, 4]
            assert all(block.flags.c_contiguous and block.flags.writeable for block in blocks)
            np.testing.assert_array_equal(np.concatenate(blocks), values)


def test_fortran_order_that_breaks_off_is_refused(tmp_path: Path) -> None:
    column = np.asfortranarray(np.zeros((400, 3)))
    np.save(tmp_path / "a.npy", column)
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[:-8])
    with (tmp_path / "a.npy").open("rb") as stream, pytest.raises(DataError, match="'a' breaks off"):
        npz.Column(stream, "a", "a.npz").rows(1)


@pytest.mark.parametrize(
    "value", [np.array(30), np.array("pick"), np.array([{}], object)], ids=["0-d", "text", "object"]
)
def test_what_is_no_steps_is_refused_only_where_it_is_asked_for(value: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", action=np.zeros((2, 1)), other=value)
    with npz.opened(str(tmp_path / "a.npz"), ("action",)) as columns:
        assert list(columns) == ["action"]
    with pytest.raises(DataError, match="'other' must hold steps of numbers, but has"):  # noqa: SIM117
        with npz.opened(str(tmp_path / "a.npz")):
            pass
