"""The flat table: what follows what, what nobody saw, and what it refuses by name."""

from typing import Any

import numpy as np
import pytest

from diffusion_policy.augment.reading import read_known, read_transitions
from diffusion_policy.augment.transitions import Columns, Transitions
from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.settings import plain
from tests.augment.tables import COLUMNS, buffer, table


def test_next_observation_is_the_next_row_and_unseen_outcomes_are_left_out() -> None:
    found = read_known(buffer())
    read = found.table
    assert len(read) == 12 - 3  # the last steps of all, terminated ones too: what followed is not stored
    assert (found.left_out, found.terminals_left_out) == (3, 1)
    assert np.flatnonzero(found.terminated).tolist() == [4]
    assert not read.terminated.any()
    assert list(read.columns.obs) == ["pos", "speed"]
    number, step, speed = read.obs.T
    np.testing.assert_array_equal(read.reward, 10 + step)
    np.testing.assert_array_equal(speed, -step)
    np.testing.assert_allclose(read.action[:, 0], step / 10)
    np.testing.assert_array_equal(read.next_obs, np.stack([number, step + 1, -step - 1], 1))


TOLD = {
    "next_pos": lambda number, steps: np.stack([np.full(steps, number), np.arange(steps) + 1.0], 1).astype("f4"),
    "next_speed": lambda _, steps: -np.arange(steps, dtype=np.float32) - 1,
}


def test_stored_next_observations_are_used_at_the_ends_of_both_kinds() -> None:
    found = read_known(buffer(**TOLD))
    read = found.table
    assert len(read) == 12
    assert (found.left_out, found.terminals_left_out) == (0, 0)
    assert np.flatnonzero(read.terminated).tolist() == [4]
    np.testing.assert_array_equal(read.next_obs, read.obs + np.array([0, 1, -1], np.float32))


def test_fields_are_what_was_observed_whatever_they_are_called() -> None:
    def way(number: int, steps: int) -> Any:
        return np.zeros((steps, 2), np.float32)

    assert list(read_transitions(buffer(next_way=way)).columns.obs) == ["next_way", "pos", "speed"]  # no `way` is there
    for wrong, said in (
        (["pos", "reward"], "'reward' is no observation"),
        (["next_pos"], "'next_pos' is no observation"),
    ):
        with pytest.raises(ConfigError, match=said):
            read_transitions(buffer(**TOLD), fields=wrong)
    with pytest.raises(ConfigError, match="each may be named once"):
        read_transitions(buffer(), fields=["pos", "pos"])


def test_some_episodes_and_some_fields_can_be_chosen() -> None:
    read = read_transitions(buffer(), fields=["speed"], episodes=np.array([0, 2]))
    assert len(read) == 4 + 3
    assert read.columns.size == 1 + 2 + 1 + 1 + 1


def test_columns_lie_where_they_say() -> None:
    at = [COLUMNS.obs_at, COLUMNS.action_at, COLUMNS.reward_at, COLUMNS.next_obs_at, COLUMNS.terminal_at]
    order = np.arange(COLUMNS.size)
    assert np.concatenate([np.atleast_1d(order[each]) for each in at]).tolist() == order.tolist()
    assert len(COLUMNS.names) == COLUMNS.size
    assert COLUMNS.names[0] == "pos[0]"
    assert COLUMNS.names[COLUMNS.reward_at] == "reward"
    assert Columns.from_plain(plain(COLUMNS)) == COLUMNS


def test_stored_form_is_read_back_as_the_same_table() -> None:
    from diffusion_policy import ReplayBuffer

    made = table(7)
    kept = ReplayBuffer.create()
    held = made.stored()
    kept.add_episodes([{key: values[i : i + 1] for key, values in held.items()} for i in range(7)])
    again = read_transitions(kept, ends="terminated")
    np.testing.assert_array_equal(again.rows, made.rows)
    assert again.columns == made.columns


def whole(number: int, steps: int) -> Any:
    return np.arange(steps) % 2


def test_whole_numbers_must_be_declared_and_are_then_known_in_both_observations() -> None:
    with pytest.raises(DataError, match=r"'grip' holds whole numbers.*rounded=\[grip\]"):
        read_transitions(buffer(grip=whole))
    columns = read_transitions(buffer(grip=whole), rounded=["grip"]).columns
    assert [columns.names[i] for i in columns.rounded] == ["grip", "next_grip"]
    hot = read_transitions(buffer(goal=one_of_two, side=one_of_two), one_hot=["goal[0:2]", "side"]).columns
    found = [hot.names[start] for start, _ in hot.one_hot]
    assert found == ["goal[0]", "next_goal[0]", "side[0]", "next_side[0]"]
    with pytest.raises(ConfigError, match="no field 'grap', known: pos"):
        read_transitions(buffer(), rounded=["grap"])
    with pytest.raises(ConfigError, match="no part of 'pos'"):
        read_transitions(buffer(), rounded=["pos[1:4]"])


def one_of_two(number: int, steps: int) -> Any:
    return np.eye(2, dtype=np.float32)[(np.arange(steps) + number) % 2]


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"rounded": ["action"]}, r"action\[0\] of .* declared a whole number, but .* e\.g\. 0\.1"),
        ({"one_hot": ["pos"]}, r"one of pos\[0\] to pos\[1\] of .* 7 of 9 rows .* e\.g\. 0, 0"),
        ({"one_hot": ["speed"]}, "'speed' is a single number"),
        ({"one_hot": ["goal[1]"]}, r"'goal\[1\]' is a single number"),
        ({"rounded": ["pos", "pos[1]"]}, r"pos\[1\] is declared twice"),
        ({"rounded": ["goal[0]"], "one_hot": ["goal"]}, r"goal\[0\] is declared twice"),
        ({"rounded": ["pos*2"]}, "no part of 'pos'"),
        ({"rounded": ["reward"]}, "no field 'reward'"),
    ],
)
def test_declarations_that_the_data_do_not_bear_out_are_refused_by_name(declared: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_transitions(buffer(goal=one_of_two), **declared)


def test_pictures_missing_columns_and_nan_are_refused_by_name() -> None:
    def picture(number: int, steps: int) -> Any:
        return np.zeros((steps, 8, 8, 3), np.uint8)

    with pytest.raises(DataError, match=r"'front' holds pictures .* fields=\[pos, speed\]"):
        read_transitions(buffer(front=picture))
    with pytest.raises(DataError, match="'img' holds pictures"):  # as the field's Push-T demonstrations do
        read_transitions(buffer(img=lambda number, steps: picture(number, steps).astype(np.float32)))
    made = buffer()
    made._layout.columns.pop("reward")
    with pytest.raises(DataError, match="augmenting needs data 'reward'"):
        read_transitions(made)
    made = buffer()
    made._layout.columns["speed"][1] = np.nan
    with pytest.raises(DataError, match="'speed' must be finite"):
        read_transitions(made)
    with pytest.raises(DataError, match="none of 3 steps has a known outcome"):
        read_transitions(buffer((1, 1, 1), (False, False, False)))


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(DataError, match=r"rows of 10 columns"):
        Transitions(COLUMNS, np.zeros((3, 4), np.float32))
