"""CSV files of numbers."""

from pathlib import Path

import pytest

from diffusion_policy.data.formats.csv_file import read_csv
from diffusion_policy.errors import DataError


def test_two_columns_of_one_name_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x, u ,u,x\n1,2,3,4\n")
    with pytest.raises(DataError, match=r"a\.csv: expected one column 'u', but got 2; rename or remove"):
        read_csv(tmp_path / "a.csv", ["u"])
    with pytest.raises(DataError, match="expected one column 'x'"):
        read_csv(tmp_path / "a.csv")


def test_columns_that_nobody_names_may_stand_there_twice(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,u,,\n1,2,,\n")  # as spreadsheets write it
    assert read_csv(tmp_path / "a.csv", ["x", "u"])["u"].rows(1).tolist() == [2]
