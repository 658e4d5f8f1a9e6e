"""Where results may go, and what a data set's place is."""

from pathlib import Path

import pytest

from diffusion_policy.errors import ConfigError, StorageError
from diffusion_policy.paths import absolute_dataset, is_remote, local_path, one_dataset, results_in


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


@pytest.mark.parametrize(
    ("text", "remote"),
    [
        ("http://host/demos.zarr", True),
        ("s3://bucket/demos.zarr", True),
        ("simplecache::s3://bucket/demos.zip", True),
        ("package://pusht", False),
        ("runs/a:b/demos.zarr", False),
        ("C:/demos.zarr", False),
        ("demos.zarr", False),
    ],
)
def test_addresses_are_told_from_paths(text: str, remote: bool) -> None:
    assert is_remote(text) is remote
    kept = absolute_dataset(text) == text
    assert kept is (remote or text.startswith("package://"))


@pytest.mark.parametrize("path", ["s3://bucket/out", Path("s3://bucket/out"), "zip::out", "package://pusht"])
def test_place_to_write_to_is_no_address(path: str | Path) -> None:
    with pytest.raises(ConfigError, match=r"out=.*: expected a local path to write to"):
        local_path(path)
    assert local_path("C:/runs/a:b/demos.zarr") == Path("C:/runs/a:b/demos.zarr")


def test_list_of_data_sets_is_refused_where_one_is_expected() -> None:
    assert one_dataset("a.zarr") == "a.zarr"
    with pytest.raises(ConfigError, match=r"expected one path, but got \['a.zarr', 'b.zarr'\]; only dp-train takes"):
        one_dataset(["a.zarr", "b.zarr"])
