"""A mended data set lacks what the doctor found, and is otherwise what it was."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from diffusion_policy import ReplayBuffer
from diffusion_policy.data.doctor.idle import IDLE_STEPS, MARGIN
from diffusion_policy.data.mending import Mending, cut, mend
from diffusion_policy.data.survey import survey
from diffusion_policy.errors import ConfigError, DataError
from tests.data.doctor.arm import HZ, demonstrations, stored


def mended(source: ReplayBuffer, place: Path, **settings):
    steps: list[int] = []
    written, done = mend(source, place, Mending(**settings), on_steps=steps.append)
    assert sum(steps) == source.num_steps
    return written, done


def equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return list(one) == list(other) and all(np.array_equal(one[key], other[key]) for key in one)


def test_trimming_cuts_what_the_doctor_calls_idle_and_nothing_else(tmp_path: Path) -> None:
    waiting = IDLE_STEPS + 8
    source = stored(demonstrations(3, idle=waiting)[:3] + demonstrations(3)[3:])
    assert "idle" in {each.name for each in survey(source).findings}
    written, done = mended(source, tmp_path / "a.zarr", trim=True)
    assert "idle" not in {each.name for each in survey(written).findings}
    assert sorted(done.trimmed) == [0, 1, 2]
    for i in range(source.num_episodes):
        before, after = source.get_episode(i), written.get_episode(i)
        first = int(np.flatnonzero(before["time_s"] == after["time_s"][0])[0])
        assert equal({key: values[first : first + len(after["action"])] for key, values in before.items()}, after)
        assert (first > 0) == (i < 3)
        if i < 3:  # a motion begins slowly: it leaves its place within a few steps
            assert waiting - MARGIN <= first <= waiting - MARGIN + 3
    assert source.num_steps - written.num_steps == sum(done.trimmed.values())


def test_trimming_sound_data_changes_nothing(tmp_path: Path) -> None:
    source = stored(demonstrations(5, images=True))
    written, _ = mended(source, tmp_path / "a.zarr", trim=True)
    assert written.digest() == source.digest()


def test_an_episode_that_never_moves_is_dropped(tmp_path: Path) -> None:
    demos = demonstrations(3)
    demos[1] = {key: np.repeat(values[:1], 50, axis=0) for key, values in demos[1].items()}
    written, done = mended(stored(demos), tmp_path / "a.zarr", trim=True)
    assert done.dropped == {1: "nothing ever moves"}
    assert written.num_episodes == len(demos) - 1


def test_a_cut_end_is_truncated_and_keeps_its_success() -> None:
    steps = np.arange(10)
    episode = {"terminated": steps == 9, "truncated": steps > 99, "success": steps > 7, "action": steps[:, None] * 1.0}
    shorter = cut(episode, 2, 6)
    assert shorter["truncated"].tolist() == [False, False, False, True]
    assert shorter["success"].tolist() == [False, False, False, True]
    assert not shorter["terminated"].any()
    assert equal(cut(episode, 0, 10), episode)
    assert not episode["truncated"].any()


def test_dropping_by_number_and_by_finding(tmp_path: Path) -> None:
    demos = demonstrations(3)
    demos[2]["joints"][20:40, 1] = demos[2]["joints"][20, 1]
    demos += [demos[4], {key: values[:5] for key, values in demos[0].items()}]
    source = stored(demos)
    written, done = mended(source, tmp_path / "a.zarr", drop=("0", "duplicates", "short", "frozen"))
    assert done.dropped == {0: "by number", 2: "frozen", 8: "duplicates", 9: "short"}
    assert done.kept == [1, 3, 4, 5, 6, 7]
    for j, i in enumerate(done.kept):
        assert equal(written.get_episode(j), source.get_episode(i))
    assert survey(written).problems == ()


def test_resampling_by_time_stamps_makes_gaps_jitter_and_rates_even(tmp_path: Path) -> None:
    demos = demonstrations(3)
    demos[0] = {key: np.delete(values, range(20, 25), axis=0) for key, values in demos[0].items()}
    demos[1]["time_s"] *= 2
    demos[2]["time_s"] += np.random.default_rng(0).uniform(0, 0.4 / HZ, len(demos[2]["time_s"]))
    source = stored(demos)
    named = {each.name for each in survey(source).findings}
    assert {"gaps", "rates", "jitter"} <= named
    words = {"resample": 10.0, "action_kind": "absolute", "declared": ("tool=quaternion",)}
    written, _ = mended(source, tmp_path / "a.zarr", **words)
    assert not {"gaps", "rates", "jitter", "time-order"} & {each.name for each in survey(written).findings}
    np.testing.assert_allclose(np.diff(written.get_episode(1)["time_s"]), 0.1, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(written["tool"], axis=1), 1.0, atol=1e-6)
    assert written.attrs["provenance"]["control_hz"] == 10.0


def test_the_provenance_says_what_was_done_and_stays_true(tmp_path: Path) -> None:
    parts = [{"actor": "a", "episodes": 5, "steps": 1, "mean_return": 3.0}, {"actor": "b", "episodes": 3, "steps": 1}]
    record = {"env_id": "Arm-v0", "seeds": list(range(10, 18)), "parts": parts, "step_s": 1 / HZ}
    with ReplayBuffer.create(tmp_path / "arm.zarr", attrs={"provenance": record, "renderer": "none"}) as buffer:
        buffer.add_episodes([each | {"action": each["action"]} for each in demonstrations(3)])
    source = ReplayBuffer.open(tmp_path / "arm.zarr")
    words = {"resample": 10.0, "action_kind": "rate", "drop": ("1", "6")}
    written, _ = mended(source, tmp_path / "a.zip", **words)
    told = written.attrs["provenance"]
    assert written.attrs["renderer"] == "none"
    assert (told["env_id"], told["seeds"]) == ("Arm-v0", [10, 12, 13, 14, 15, 17])
    assert [part["episodes"] for part in told["parts"]] == [4, 2]
    assert sum(part["steps"] for part in told["parts"]) == written.num_steps
    assert "mean_return" not in told["parts"][0]
    assert told["step_s"] == 0.1
    (steps,) = told["mended"]
    assert steps["source"] == "arm.zarr"
    assert steps["digest"] == source.digest()
    assert steps["dropped"] == {"1": "by number", "6": "by number"}
    assert steps["resampled"] == {"hz": 10.0, "action_kind": "rate", "declared": []}
    again, _ = mended(written, tmp_path / "b.zarr", drop=("0",))
    assert len(again.attrs["provenance"]["mended"]) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"drop": ("nonsense",)}, "--drop takes numbers of episodes, duplicates"),
        ({"drop": ("99",)}, "expected an episode in"),
        ({"drop": tuple("01234567")}, "nothing is left"),
        ({"declared": ("tool=quaternion",)}, "are for --resample HZ"),
        ({"resample": 10.0}, "--action-kind absolute"),
        ({"resample": 10.0, "action_kind": "absolute", "declared": ("hand=quaternion",)}, "--declare hand"),
        ({"resample": 10.0, "action_kind": "absolute", "declared": ("tool[2:6]=quaternion",)}, "--declare tool"),
        ({"resample": 10.0, "action_kind": "absolute"}, r"heading\[0\] is an angle that wraps around"),
    ],
)
def test_what_cannot_be_mended_is_refused_and_leaves_nothing(settings, message: str, tmp_path: Path) -> None:
    demos = demonstrations(3)
    for episode in demos:
        episode["heading"] = (np.arange(len(episode["action"])) * 0.2 % (2 * np.pi)).astype(np.float32)[:, None]
    with pytest.raises((ConfigError, DataError), match=message):
        mend(stored(demos), tmp_path / "a.zarr", Mending(**settings))
    assert list(tmp_path.iterdir()) == []


def test_the_switch_of_a_delta_action_must_be_declared(tmp_path: Path) -> None:
    demos = demonstrations(3)
    for episode in demos:
        episode["action"][:, 3] = np.arange(len(episode["action"])) // 9 % 2
    words = {"resample": 10.0, "action_kind": "delta"}
    with pytest.raises(ConfigError, match=r"say --declare 'action\[3\]=held'"):
        mend(stored(demos), tmp_path / "a.zarr", Mending(**words))
    written, _ = mend(stored(demos), tmp_path / "a.zarr", Mending(**words, declared=("action[3]=held",)))
    assert set(written["action"][:, 3].tolist()) == {0.0, 1.0}


def test_what_followed_a_step_of_the_old_rate_is_left_out_quaternions_too(tmp_path: Path) -> None:
    demos = [{**each, "tool_quat": each["tool"]} for each in demonstrations(3)]
    for episode in demos:
        del episode["tool"]
        following = np.append(np.arange(1, len(episode["action"])), len(episode["action"]) - 1)
        episode["next_tool_quat"] = episode["tool_quat"][following]
    written, _ = mended(stored(demos), tmp_path / "a.zarr", resample=10.0, action_kind="absolute")
    assert "next_tool_quat" not in written.keys()  # noqa: SIM118
    np.testing.assert_allclose(np.linalg.norm(written["tool_quat"], axis=1), 1.0, atol=1e-6)


def test_a_rate_that_nobody_knows_is_asked_for(tmp_path: Path) -> None:
    demos = [{key: values for key, values in each.items() if key != "time_s"} for each in demonstrations(3)]
    words = {"resample": 10.0, "action_kind": "absolute"}
    with pytest.raises(ConfigError, match="say --control-hz HZ"):
        mend(stored(demos), tmp_path / "a.zarr", Mending(**words))
    written, _ = mend(stored(demos), tmp_path / "a.zarr", Mending(**words, control_hz=HZ))
    np.testing.assert_allclose(written.get_episode(0)["joints"], demos[0]["joints"][::2], atol=1e-6)


def test_time_stamps_that_run_backwards_are_not_guessed_at(tmp_path: Path) -> None:
    demos = demonstrations(3)
    demos[2]["time_s"][7] = 0
    words = {"resample": 10.0, "action_kind": "absolute"}
    with pytest.raises(DataError, match="time_s of episode 2 does not increase"):
        mend(stored(demos), tmp_path / "a.zarr", Mending(**words))
    assert list(tmp_path.iterdir()) == []
    written, done = mend(stored(demos), tmp_path / "a.zarr", Mending(**words, drop=("time-order",)))
    assert done.dropped == {2: "time-order"}
    assert written.num_episodes == len(demos) - 1


def test_filter_keys_name_the_same_episodes_as_before(tmp_path: Path) -> None:
    record = {"filters": {"train": [0, 1, 2, 3], "valid": [4], "gone": [5]}}
    with ReplayBuffer.create(tmp_path / "arm.zarr", attrs={"provenance": record}) as buffer:
        buffer.add_episodes(demonstrations(3))
    written, done = mended(ReplayBuffer.open(tmp_path / "arm.zarr"), tmp_path / "a.zarr", drop=("0", "5"))
    assert done.kept == [1, 2, 3, 4, 6, 7]
    assert written.attrs["provenance"]["filters"] == {"train": [0, 1, 2], "valid": [3]}


def test_a_success_of_any_dtype_is_told_by_the_last_step_that_is_kept(tmp_path: Path) -> None:
    demos = demonstrations(3, idle=IDLE_STEPS + 8)
    for episode in demos:
        episode["success"] = (np.arange(len(episode["action"])) == len(episode["action"]) - 1).astype(np.float64)
    written, done = mended(stored(demos), tmp_path / "a.zarr", trim=True)
    assert len(done.trimmed) == len(demos)
    for i in range(len(demos)):
        assert written.get_episode(i)["success"].tolist()[-1] == 1.0
    assert written["success"].dtype == np.float64


def test_bounds_of_changes_do_not_outlive_their_rate(tmp_path: Path) -> None:
    record = {"action_bounds": [[-2.0] * 4, [2.0] * 4]}
    with ReplayBuffer.create(tmp_path / "arm.zarr", attrs={"provenance": record}) as buffer:
        buffer.add_episodes(demonstrations(3))
    for kind, kept in (("absolute", True), ("delta", False)):
        words = {"resample": 10.0, "action_kind": kind}
        written, _ = mended(ReplayBuffer.open(tmp_path / "arm.zarr"), tmp_path / f"{kind}.zarr", **words)
        assert ("action_bounds" in written.attrs["provenance"]) == kept


@pytest.mark.parametrize(("told", "factor"), [({}, 1.0), ({"control_hz": 200.0}, 1000.0)])
def test_time_stamps_of_another_rate_than_is_told_are_refused(told, factor, tmp_path: Path) -> None:
    demos = demonstrations(3)
    for episode in demos:
        episode["time_s"] = episode["time_s"] * HZ / (200.0 if told else HZ) * factor
    with ReplayBuffer.create(tmp_path / "arm.zarr", attrs={"provenance": told}) as buffer:
        buffer.add_episodes(demos)
    words = {"resample": 10.0, "action_kind": "absolute", "control_hz": None if told else 50.0}
    with pytest.raises(DataError, match="if the time stamps are right"):
        mend(ReplayBuffer.open(tmp_path / "arm.zarr"), tmp_path / "a.zarr", Mending(**words))


def test_some_episodes_of_another_rate_than_is_told_are_brought_to_one(tmp_path: Path) -> None:
    demos = demonstrations(3)
    demos[2]["time_s"] = demos[2]["time_s"] * 2
    with ReplayBuffer.create(tmp_path / "arm.zarr", attrs={"provenance": {"control_hz": HZ}}) as buffer:
        buffer.add_episodes(demos)
    words = {"resample": 10.0, "action_kind": "absolute"}
    written, _ = mended(ReplayBuffer.open(tmp_path / "arm.zarr"), tmp_path / "a.zarr", **words)
    lengths = np.diff(written.episode_ends, prepend=0)
    assert abs(lengths[2] - len(demos[2]["action"])) <= 1
    assert abs(lengths[1] - len(demos[1]["action"]) / 2) <= 1


def turning(named: str) -> list[dict[str, np.ndarray]]:
    """A hand that points down and sways about half a turn."""
    demos = demonstrations(3)
    for i, episode in enumerate(demos):
        angle = np.pi + 0.15 * np.sin(0.3 * np.arange(len(episode["action"])) + i)
        vector = Rotation.from_rotvec(angle[:, None] * np.array([1, 1, 0]) / np.sqrt(2)).as_rotvec()
        episode[named] = vector.astype(np.float32)
        episode["action"] = np.concatenate([episode["joints"][:, :3], vector], axis=1).astype(np.float32)
    return demos


def worst_turn(before: ReplayBuffer, after: ReplayBuffer, key: str, part: slice) -> float:
    """Returns the largest angle between rows and the nearest ones of before, rad."""
    found = 0.0
    for i in range(before.num_episodes):
        old, new = before.get_episode(i), after.get_episode(i)
        nearest = np.abs(new["time_s"][:, None] - old["time_s"][None]).argmin(axis=1)
        there, here = (Rotation.from_rotvec(rows[:, part]) for rows in (old[key][nearest], new[key]))
        found = max(found, float((there.inv() * here).magnitude().max()))
    return found


def test_rotation_vectors_are_turned_by_their_names_and_by_the_parts_of_an_action(tmp_path: Path) -> None:
    demos = turning("rot_axis_angle")
    for episode in demos:
        episode["place"] = episode["joints"][:, :3]
    record = {"action_parts": ["place", "rot_axis_angle"]}
    with ReplayBuffer.create(tmp_path / "arm.zarr", attrs={"provenance": record}) as buffer:
        buffer.add_episodes(demos)
    source = ReplayBuffer.open(tmp_path / "arm.zarr")
    written, _ = mended(source, tmp_path / "a.zarr", resample=15.0, action_kind="absolute")
    assert worst_turn(source, written, "rot_axis_angle", slice(None)) < 0.1
    assert worst_turn(source, written, "action", slice(3, 6)) < 0.2  # targets are those of the step's end


def test_rotation_vectors_that_nobody_declares_are_refused(tmp_path: Path) -> None:
    words = {"resample": 15.0, "action_kind": "absolute"}
    with pytest.raises(ConfigError, match=r"hand\[0:3\] is a rotation vector that turns over"):
        mend(stored(turning("hand")), tmp_path / "a.zarr", Mending(**words, declared=("action[3:6]=axis_angle",)))
    said = ("action[3:6]=axis_angle", "hand[0:3]=axis_angle")
    written, _ = mend(stored(turning("hand")), tmp_path / "a.zarr", Mending(**words, declared=said))
    assert worst_turn(stored(turning("hand")), written, "hand", slice(None)) < 0.1


def test_an_angle_that_seldom_crosses_is_refused_too(tmp_path: Path) -> None:
    demos = demonstrations(3, 20)
    for i, episode in enumerate(demos):
        yaw = 1.6 + 1.4 * np.sin(0.06 * np.arange(len(episode["action"]))) + 0.2 * (i == 7)
        episode["yaw"] = ((yaw + np.pi) % (2 * np.pi) - np.pi).astype(np.float32)[:, None]
    rows = stored(demos)["yaw"]
    assert 0 < (rows < -3).mean() < 0.01
    with pytest.raises(ConfigError, match=r"yaw\[0\] is an angle that wraps around"):
        mend(stored(demos), tmp_path / "a.zarr", Mending(resample=10.0, action_kind="absolute"))


@pytest.mark.parametrize("kind", ["rate", "delta"])
def test_actions_that_add_up_need_no_declaration_of_rotations(kind: str, tmp_path: Path) -> None:
    demos = demonstrations(3)
    for i, episode in enumerate(demos):
        steps = len(episode["action"])
        swing = np.where(np.arange(steps) // (7 + i) % 2 == 0, 3.0, -3.0)  # from one bound to the other
        noise = 0.05 * np.random.default_rng(i).normal(size=(steps, 3))
        episode["action"] = (noise + np.column_stack([0.3 * swing, 0.9 * swing, 0.1 * swing])).astype(np.float32)
        episode["action_rotvec"] = episode["action"]
    written, _ = mended(stored(demos), tmp_path / "a.zarr", resample=HZ, action_kind=kind)
    if kind == "rate":
        assert np.abs(written["action_rotvec"]).max() <= max(np.abs(each["action"]).max() for each in demos) * 1.1
    else:
        sums = [sum(each.sum(axis=0) for each in rows) for rows in ([e["action"] for e in demos], [written["action"]])]
        np.testing.assert_allclose(*sums, atol=1e-2)


def test_a_loop_that_ran_slower_than_it_was_to_is_taken_by_its_time_stamps(tmp_path: Path) -> None:
    demos = demonstrations(3)
    with ReplayBuffer.create(tmp_path / "arm.zarr", attrs={"provenance": {"step_s": 1 / 30}}) as buffer:
        buffer.add_episodes(demos)  # of 20 Hz
    words = {"resample": 10.0, "action_kind": "absolute"}
    written, _ = mended(ReplayBuffer.open(tmp_path / "arm.zarr"), tmp_path / "a.zarr", **words)
    assert abs(written.num_steps - sum(len(each["action"]) for each in demos) / 2) <= len(demos)


def test_an_impact_to_both_ends_of_a_turn_is_no_angle(tmp_path: Path) -> None:
    demos = demonstrations(3)
    for i, episode in enumerate(demos):
        force = 0.1 * np.random.default_rng(i).normal(size=len(episode["action"]))
        force[20:22] = -2.9, 2.95
        episode["force"] = force.astype(np.float32)[:, None]
    mended(stored(demos), tmp_path / "a.zarr", resample=10.0, action_kind="absolute")
