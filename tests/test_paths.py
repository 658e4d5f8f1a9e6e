"""Where results may go."""

from pathlib import Path

import pytest

from diffusion_policy.errors import StorageError
from diffusion_policy.paths import results_in


def test_results_in_leaves_what_it_made_only_if_something_came_of_it(tmp_path: Path) -> None:
    with results_in(tmp_path / "a" / "b"):
        pass
    assert not list(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError), results_in(tmp_path / "a" / "b"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with results_in(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "policy.pt").touch()
    assert (tmp_path / "a" / "b" / "policy.pt").exists()


def test_results_in_leaves_a_folder_that_was_there(tmp_path: Path) -> None:
    with results_in(tmp_path):
        pass
    assert tmp_path.is_dir()


def test_results_in_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="choose another out="), results_in(tmp_path / "file" / "run"):
        pass
