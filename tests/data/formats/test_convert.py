"""The frame of all conversions, whatever the format."""

import errno
from pathlib import Path

import numpy as np
import pytest
from zarr.storage import LocalStore

from diffusion_policy import ReplayBuffer
from diffusion_policy.data.formats.convert import convert, prepare, translate
from diffusion_policy.data.formats.preview import preview
from diffusion_policy.data.formats.reading import FORMATS, Column, Format, Reading
from diffusion_policy.data.formats.writing import TARGETS
from diffusion_policy.errors import ConfigError, DataError, OutputExistsError, StorageError
from tests.data.formats.toys import LENGTHS, episodes, same, store


def stream(monkeypatch: pytest.MonkeyPatch, made, *, steps: int = 3, facts=None, columns=()) -> None:
    """Makes `made` readable as --format stream."""
    read = Format("a stream", lambda source: False, lambda source: Reading(iter(made), steps, facts or {}, columns))
    monkeypatch.setitem(FORMATS._entries, "stream", read)


@pytest.mark.parametrize("name", ["copy.zarr", "copy.zip", "deep/down/copy.zarr"])
def test_our_own_data_are_copied_as_they_are(name: str, tmp_path: Path) -> None:
    source = store(tmp_path / "a.zarr", episodes(), env_id="Toy-v0", kwargs={"control_hz": 20})
    told = []
    written = translate(str(source), tmp_path / name, on_start=told.append, on_steps=told.append)
    same(source, tmp_path / name)
    assert (written.format, written.num_episodes, written.num_steps) == ("zarr", 3, sum(LENGTHS))
    assert told == [sum(LENGTHS), *LENGTHS]
    with ReplayBuffer.open(tmp_path / name) as buffer:
        record = buffer.attrs["provenance"]
    assert (record["env_id"], record["kwargs"]) == ("Toy-v0", {"control_hz": 20})
    assert record["converted_from"] == {"format": "zarr", "source": "a.zarr"}


def test_bundled_demonstrations_are_a_source(tmp_path: Path) -> None:
    conversion = prepare("package://pusht", tmp_path / "a.zarr")
    assert conversion.source_format == "zarr"
    assert conversion.content.facts["converted_from"]["source"] == "pusht"


def test_origins_of_a_copy_of_a_conversion_are_kept(tmp_path: Path) -> None:
    source = store(tmp_path / "a.zarr", episodes(), converted_from={"format": "d4rl", "source": "a.hdf5"})
    record = convert(str(source), tmp_path / "b.zarr").attrs["provenance"]
    before = {"format": "d4rl", "source": "a.hdf5"}
    assert record["converted_from"] == {"format": "zarr", "source": "a.zarr", "before": before}


def test_preview_names_what_becomes_of_every_column_and_writes_nothing(tmp_path: Path, monkeypatch) -> None:
    def read():
        yield {"action": np.zeros((3, 2), np.float32), "made_up": np.zeros((3, 1), np.float32)}
        raise AssertionError("a preview reads one episode")

    columns = (
        Column("actions", "float64", (2,), "action", "float64 -> float32"),
        Column("junk", "<U3", (), None, "words"),
        Column("\x1b[2J\n", "<U3", (), None, "words"),
    )
    stream(monkeypatch, read(), facts={"control_hz": 20.0}, columns=columns)
    lines = preview(prepare("x", tmp_path / "new" / "b.zarr", name="stream"))
    table = [line.split() for line in lines]
    assert lines[0].endswith("a stream: x; 3 steps, 20 steps a second")
    form = ["float64", "2", "->", "action", "float32", "2", "->", "data/action"]
    assert ["actions", *form, "#", "float64", "->", "float32"] in table
    assert ["(made)", "->", "made_up", "float32", "1", "->", "data/made_up"] in table
    assert {"dropped  junk: words", r"dropped  '\x1b[2J\n': words"} <= set(lines)
    assert not list(tmp_path.iterdir())


def test_rate_is_told_once(tmp_path: Path) -> None:
    source = store(tmp_path / "a.zarr", episodes())
    record = convert(str(source), tmp_path / "b.zarr", control_hz=20.0).attrs["provenance"]
    assert record["control_hz"] == 20
    with pytest.raises(ConfigError, match="says 20 steps a second, but --control-hz says 10"):
        convert(str(tmp_path / "b.zarr"), tmp_path / "c.zarr", control_hz=10.0)
    record = convert(str(tmp_path / "b.zarr"), tmp_path / "d.zarr", control_hz=20.1).attrs["provenance"]
    assert record["control_hz"] == 20.1  # one that was measured is not round
    with pytest.raises(ConfigError, match="must be above 0"):
        convert(str(source), tmp_path / "c.zarr", control_hz=0.0)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([], "expected episodes with steps, but there are none"),
        ([{"action": np.zeros((0, 1))}], "episode 0: all keys of an episode must have the same number of steps"),
        ([{"action": np.zeros((3, 1))}, {"action": np.zeros((0, 1))}], "episode 1: all keys of an episode must have"),
        ([{"action": np.zeros((3, 1))}, {"action": np.zeros((3, 2))}], "episode 1: 'action' must be float64 of shape"),
        ([{"action": np.zeros((3, 1))}, {"action": np.zeros((3, 1), int)}], "episode 1: 'action' must be float64"),
        ([{"action": np.zeros((3, 1))}, {"act": np.zeros((3, 1))}], "must have the keys action, but got act"),
        ([{"action": np.full((3, 1), np.nan)}], "step 0 of this episode holds NaN"),
        ([{"action": np.array(["a", "b"])}], "'action' must hold numbers"),
        ([{"../action": np.zeros((3, 1))}], r"but got '\.\./action'; rename it"),
        ([{"/etc/action": np.zeros((3, 1))}], "but got '/etc/action'; rename it"),
        ([{"..": np.zeros((3, 1))}], r"but got '\.\.'; rename it"),
        ([{"a\nb": np.zeros((3, 1))}], r"but got 'a\\nb'; rename it"),
        ([{"": np.zeros((3, 1))}], "but got ''; rename it"),
    ],
)
def test_faults_are_one_line_and_leave_nothing(made: list, message: str, tmp_path: Path, monkeypatch) -> None:
    stream(monkeypatch, made)
    with pytest.raises(DataError, match=message) as raised:
        convert("x", tmp_path / "new" / "b.zarr", name="stream")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_an_option_that_no_side_takes_is_refused(tmp_path: Path) -> None:
    source = store(tmp_path / "a.zarr", episodes())
    with pytest.raises(ConfigError, match="--max-episode-steps is of no use from our own data sets"):
        convert(str(source), tmp_path / "b.zarr", max_episode_steps=3)


def test_a_failed_write_names_what_was_to_be_made_and_claims_nothing_else(tmp_path: Path, monkeypatch) -> None:
    ours = store(tmp_path / "a.zarr", episodes())

    async def full(self, key, value):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LocalStore, "set", full)
    with pytest.raises(StorageError) as caught:
        translate(str(ours), tmp_path / "b.zarr")
    assert caught.value.errno == errno.ENOSPC
    assert str(caught.value) == (
        f"{tmp_path / 'b.zarr'}: writing failed (No space left on device); free some space or choose another place"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    source = store(tmp_path / "a.zarr", episodes())
    conversion = prepare(str(source), tmp_path / "b.zarr")
    (tmp_path / "b.zarr").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"b\.zarr already exists"):
        conversion.write()
    with pytest.raises(OutputExistsError, match=r"b\.zarr already exists"):
        prepare(str(source), tmp_path / "b.zarr")
    assert (tmp_path / "b.zarr").read_text() == "mine"


@pytest.mark.parametrize("target", list(TARGETS))
@pytest.mark.parametrize("failure", [KeyboardInterrupt(), DataError("the third episode is damaged")])
def test_every_format_leaves_nothing_of_what_was_interrupted(target: str, failure, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("h5py")
    pytest.importorskip("minari")
    pytest.importorskip("pyarrow")

    def read():
        yield from episodes()[:2]
        raise failure

    stream(monkeypatch, read(), facts={"control_hz": 10})
    with pytest.raises(type(failure)):
        translate("x", tmp_path / "new" / "b", name="stream", to=target)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", [name for name in TARGETS if name in FORMATS])
def test_every_format_of_both_directions_gives_back_what_came(target: str, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("h5py")
    pytest.importorskip("minari")
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)  # the paths that people type are relative
    source = store(Path("a.zarr"), episodes(), env_id="Toy-v0", kwargs={}, control_hz=20, action_bounds=[[-1], [1]])
    translate("a.zarr", "b.hdf5", to=target)
    with convert("b.hdf5", "c.zarr", name=target) as back:
        record = back.attrs["provenance"]
    assert (record["control_hz"], record["action_bounds"]) == (20, [[-1], [1]])
    same(source, Path("c.zarr"))
    assert {path.name for path in tmp_path.iterdir()} == {"a.zarr", "b.hdf5", "c.zarr"}


def test_documentation_names_every_format_and_option() -> None:
    text = (Path(__file__).parents[3] / "docs/data.md").read_text()
    for name in {*FORMATS, *TARGETS}:
        assert f"`{name}`" in text
    for side in [*map(FORMATS.get, FORMATS), *map(TARGETS.get, TARGETS)]:
        for option in side.options:
            assert option.flag in text
