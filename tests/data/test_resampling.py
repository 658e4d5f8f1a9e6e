"""Resampling keeps what each kind of number means: places, sums, means, ends, rotations."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from diffusion_policy.data.resampling import Resampling, parsed_declarations
from diffusion_policy.data.rotations_between import FORMS, slerp, turned
from diffusion_policy.errors import ConfigError

ROLES = {
    "action": "action", "state": "state", "pose": "state", "count": "state", "img": "image", "reward": "reward",
    "terminated": "flag", "truncated": "flag", "success": "flag", "time_s": "time", "plan": "other",
}  # fmt: skip


def episode(steps: int = 31, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    last = np.arange(steps) == steps - 1
    return {
        "action": rng.normal(size=(steps, 3)),
        "state": np.cumsum(rng.normal(size=(steps, 2)), axis=0),
        "count": rng.integers(0, 9, steps),
        "img": rng.integers(0, 255, (steps, 4, 4, 3), dtype=np.uint8),
        "reward": rng.normal(size=steps),
        "terminated": last,
        "truncated": np.zeros(steps, bool),
        "success": np.arange(steps) >= steps - 4,
        "plan": rng.normal(size=(steps, 2, 3)),
        "next_state": rng.normal(size=(steps, 2)),
    }


def resampled(rows, hz: float, from_hz: float = 10.0, kind: str = "absolute", **declared):
    steps = len(next(iter(rows.values())))
    return Resampling(hz, ROLES, kind, declared)(rows, np.arange(steps + 1) / from_hz)


@pytest.mark.parametrize("kind", ["absolute", "delta", "rate"])
def test_the_same_rate_changes_nothing(kind: str) -> None:
    rows = episode()
    for key, values in resampled(rows, 10.0, kind=kind).items():
        np.testing.assert_allclose(values, rows[key], rtol=1e-12, atol=1e-12, err_msg=key)
        assert values.dtype == rows[key].dtype


@pytest.mark.parametrize("hz", [2.0, 3.0, 5.0, 7.5, 10.0, 25.0, 40.0])
@pytest.mark.parametrize("steps", [1, 2, 30, 31])
def test_sums_and_ends_survive_any_rate(hz: float, steps: int) -> None:
    rows = episode(steps)
    new = resampled(rows, hz, kind="delta")
    np.testing.assert_allclose(new["action"].sum(axis=0), rows["action"].sum(axis=0), rtol=1e-9)
    assert new["reward"].sum() == pytest.approx(rows["reward"].sum())
    assert new["terminated"].nonzero()[0].tolist() == [len(new["action"]) - 1]
    assert not new["truncated"].any()
    assert new["success"].any() == rows["success"].any()
    assert "next_state" not in new


@pytest.mark.parametrize("hz", [2.0, 5.0, 20.0])
def test_nearest_rows_are_rows_of_the_source(hz: float) -> None:
    rows = episode()
    new = resampled(rows, hz)
    for key in ("img", "count", "plan"):
        old = {each.tobytes() for each in rows[key]}
        assert all(each.tobytes() in old for each in new[key])
    if hz == 5.0:
        np.testing.assert_array_equal(new["img"], rows["img"][::2])
        np.testing.assert_allclose(new["state"], rows["state"][::2])


@pytest.mark.parametrize("hz", [2.0, 5.0])
def test_a_perfect_follower_stays_one(hz: float) -> None:
    state = np.cumsum(np.random.default_rng(1).normal(size=(41, 2)), axis=0)
    rows = {"state": state[:-1], "action": state[1:]}  # a target is reached at the end of its step
    new = resampled(rows, hz)
    np.testing.assert_allclose(new["action"][:-1], new["state"][1:], atol=1e-9)
    moves = resampled({"state": state[:-1], "action": np.diff(state, axis=0)}, hz, kind="delta")
    np.testing.assert_allclose(moves["state"][:-1] + moves["action"][:-1], moves["state"][1:], atol=1e-9)
    speeds = resampled({"state": state[:-1], "action": np.diff(state, axis=0) * 10}, hz, kind="rate")
    np.testing.assert_allclose(speeds["state"][:-1] + speeds["action"][:-1] / hz, speeds["state"][1:], atol=1e-9)


def test_a_switch_is_never_half_on() -> None:
    grip = (np.arange(31) // 7 % 2).astype(np.float32)
    new = resampled({"action": np.stack([grip, np.linspace(0, 1, 31, dtype=np.float32)], axis=1)}, 17.0)
    assert set(new["action"][:, 0].tolist()) == {0.0, 1.0}
    assert len(set(new["action"][:, 1].tolist())) > 31


@pytest.mark.parametrize("kind", ["delta", "rate"])
def test_a_held_part_of_an_action_is_never_added(kind: str) -> None:
    grip = (np.arange(31) // 7 % 2) * 2.0 - 1
    rows = {"action": np.stack([grip, np.full(31, 0.5)], axis=1)}
    new = Resampling(3.0, ROLES, kind, parsed_declarations(["action[0]=held"]))(rows, np.arange(32) / 10)["action"]
    assert set(new[:, 0].tolist()) == {-1.0, 1.0}
    if kind == "delta":
        assert new[:, 1].sum() == pytest.approx(15.5)


def test_a_constant_rate_stays_the_same_number() -> None:
    new = resampled({"action": np.full((30, 3), 2.5)}, 4.0, kind="rate")
    np.testing.assert_allclose(new["action"], 2.5)


def test_time_stamps_with_a_gap_become_even() -> None:
    stamps = np.delete(np.arange(31) / 10, [11, 12, 13])
    rows = {"state": stamps[:, None] * [2.0, -1.0], "time_s": stamps}
    new = Resampling(10.0, ROLES, "absolute")(rows, np.append(stamps, 3.1))
    np.testing.assert_allclose(new["time_s"], np.arange(31) / 10, atol=1e-12)
    np.testing.assert_allclose(new["state"], new["time_s"][:, None] * [2.0, -1.0], atol=1e-12)


def as_form(rotation: Rotation, form: str, order: str) -> np.ndarray:
    if form == "quaternion":
        return rotation.as_quat(scalar_first=order == "first")
    if form == "axis_angle":
        return rotation.as_rotvec()
    matrix = rotation.as_matrix()
    return np.concatenate([matrix[:, :2].reshape(-1, 6)]) if order == "first" else matrix.mT[:, :2].reshape(-1, 6)


def of_form(rows: np.ndarray, form: str, order: str) -> Rotation:
    if form == "quaternion":
        return Rotation.from_quat(rows, scalar_first=order == "first")
    if form == "axis_angle":
        return Rotation.from_rotvec(rows)
    third = np.cross(rows[:, :3], rows[:, 3:])
    matrix = np.stack([rows[:, :3], rows[:, 3:], third], axis=1)
    return Rotation.from_matrix(matrix if order == "first" else matrix.mT)


@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize("form", ["quaternion", "axis_angle", "6d"])
def test_rotations_take_the_shortest_arc_in_every_form_and_order(form: str, order: str) -> None:
    rng = np.random.default_rng(0)
    before, turn = Rotation.random(200, rng=rng), Rotation.from_rotvec(rng.uniform(-1.5, 1.5, (200, 3)))
    share = rng.uniform(0, 1, (200, 1))
    after = before * turn
    expected = before * Rotation.from_rotvec(share * turn.as_rotvec())
    found = turned(as_form(before, form, order), as_form(after, form, order), share, form)
    assert found.shape == (200, FORMS[form])
    assert (of_form(found, form, order) * expected.inv()).magnitude().max() < 1e-6


def test_slerp_takes_q_and_minus_q_for_the_same() -> None:
    rng = np.random.default_rng(0)
    one, other = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in rng.normal(size=(2, 50, 4)))
    share = rng.uniform(0, 1, (50, 1))
    np.testing.assert_allclose(slerp(one, other, share), slerp(one, -other, share))
    np.testing.assert_allclose(np.linalg.norm(slerp(one, other, share), axis=1), 1.0)
    np.testing.assert_allclose(slerp(one, one, share), one)


def test_angles_go_the_shorter_way_round() -> None:
    degrees = turned(np.array([[350.0]]), np.array([[10.0]]), np.array([[0.25]]), "degrees")
    assert degrees == pytest.approx(355.0)
    degrees = turned(np.array([[350.0]]), np.array([[10.0]]), np.array([[0.75]]), "degrees")
    assert degrees == pytest.approx(5.0)
    radians = turned(np.array([[-3.0]]), np.array([[3.0]]), np.array([[0.25]]), "angle")
    assert radians == pytest.approx(-3.0 - 0.25 * (2 * np.pi - 6))


def test_declared_parts_turn_and_others_move() -> None:
    angle = np.linspace(0, 3, 31)
    pose = np.stack([angle, np.cos(angle / 2), np.sin(angle / 2), 0 * angle, 0 * angle], axis=1)
    declared = parsed_declarations(["pose[1:5]=quaternion"])
    new = Resampling(25.0, ROLES, "absolute", declared)({"pose": pose}, np.arange(32) / 10)["pose"]
    np.testing.assert_allclose(np.linalg.norm(new[:, 1:], axis=1), 1.0)
    np.testing.assert_allclose(2 * np.arctan2(new[:, 2], new[:, 1]), new[:, 0], atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hz": 0.0, "action_kind": "delta"}, "--resample must be above 0 Hz, but got 0"),
        ({"hz": 5.0}, "--action-kind absolute"),
        (
            {"hz": 5.0, "action_kind": "delta", "declared": parsed_declarations(["action=axis_angle"])},
            "rotations of delta actions do not add up",
        ),
    ],
)
def test_what_cannot_be_resampled_is_refused(settings, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Resampling(roles=ROLES, **settings)


@pytest.mark.parametrize("word", ["pose", "pose=quat", "pose[0:3]=quaternion", "pose[4]=6d"])
def test_a_rotation_that_is_none_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="--declare"):
        parsed_declarations([word])
