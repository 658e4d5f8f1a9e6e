"""Each fault is found where it was planted, and nothing is found in the same data without it."""

from itertools import pairwise

import numpy as np
import pytest

from diffusion_policy.data.doctor.findings import SEVERITIES, Places
from diffusion_policy.data.doctor.kinds import KINDS
from diffusion_policy.data.survey import survey
from tests.data.doctor.arm import HZ, Demos, demonstrations, loud, stored


@pytest.mark.parametrize("seed", range(6))
def test_sound_data_have_no_problem_and_no_warning(seed: int) -> None:
    found = survey(stored(demonstrations(seed, images=True)))
    assert loud(found) == {}, found.findings
    assert {each.name for each in found.findings} <= {"lag"}


def idle(demos: Demos) -> None:
    for episode in demonstrations(7, images=True, idle=15)[:3]:
        demos.append(episode)


def frozen(demos: Demos) -> None:
    demos[2]["joints"][20:40, 1] = demos[2]["joints"][20, 1]


def repeated_frames(demos: Demos) -> None:
    demos[4]["img"][10:30] = demos[4]["img"][10]


def black(demos: Demos) -> None:
    demos[1]["img"][5] = 0


def gap(demos: Demos) -> None:
    demos[3]["time_s"][30:] += 0.4


def backwards(demos: Demos) -> None:
    demos[3]["time_s"][30] = demos[3]["time_s"][28]


def jitter(demos: Demos) -> None:
    demos[0]["time_s"] += np.random.default_rng(0).uniform(0, 0.4 / HZ, len(demos[0]["time_s"]))


def rates(demos: Demos) -> None:
    demos[6]["time_s"] *= 2


def outlier(demos: Demos) -> None:
    demos[5]["joints"][12, 3] = 400.0


def degrees(demos: Demos) -> None:
    for episode in demos[:2]:
        episode["joints"] *= np.float32(180 / np.pi)


def millimetres(demos: Demos) -> None:
    demos[1]["action"] *= 1000


def unnormalised(demos: Demos) -> None:
    demos[2]["tool"][9] *= 1.3


def flipped(demos: Demos) -> None:
    demos[2]["tool"][20:] *= -1


def nearly_again(demos: Demos) -> None:
    noise = np.random.default_rng(1).normal(0, 1e-3, demos[3]["joints"].shape).astype(np.float32)
    demos.append(demos[3] | {"joints": demos[3]["joints"] + noise})


def again(demos: Demos) -> None:
    demos.append(demos[3])


def false_start(demos: Demos) -> None:
    demos.append({key: values[:5] for key, values in demos[0].items()})


def state_ahead(demos: Demos) -> None:
    for i, episode in enumerate(demos):
        late = {key: values[:-4] if key == "action" else values[4:] for key, values in episode.items()}
        demos[i] = late | {"time_s": episode["time_s"][:-4]}


def state_late(demos: Demos) -> None:
    for i, episode in enumerate(demos):
        demos[i] = {key: values[12:] if key == "action" else values[:-12] for key, values in episode.items()}


def copied(demos: Demos) -> None:
    for episode in demos:
        episode["action"] = episode["joints"].copy()


def mixed_pixels(demos: Demos) -> None:
    for i, episode in enumerate(demos):
        episode["img"] = episode["img"].astype(np.float32) / (255 if i == 2 else 1)


@pytest.mark.parametrize(
    ("fault", "name", "severity", "episodes"),
    [
        (idle, "idle", "warning", (8, 9, 10)),
        (frozen, "frozen", "warning", (2,)),
        (repeated_frames, "repeated-frames", "warning", (4,)),
        (black, "blank", "warning", (1,)),
        (gap, "gaps", "warning", (3,)),
        (backwards, "time-order", "problem", (3,)),
        (jitter, "jitter", "warning", (0,)),
        (rates, "rates", "problem", (6,)),
        (outlier, "outliers", "warning", (5,)),
        (degrees, "units", "warning", (0, 1)),
        (millimetres, "units", "warning", (1,)),
        (unnormalised, "quaternions", "problem", (2,)),
        (flipped, "quaternions", "warning", (2,)),
        (nearly_again, "similar-episodes", "warning", (3, 8)),
        (again, "same-episodes", "problem", (3, 8)),
        (false_start, "short", "warning", (8,)),
        (state_ahead, "lag", "warning", ()),
        (state_late, "lag", "warning", ()),
        (copied, "lag", "warning", ()),
        (mixed_pixels, "pixels", "problem", (2,)),
    ],
)
def test_a_planted_fault_is_found_where_it_is(fault, name, severity, episodes) -> None:
    demos = demonstrations(3, images=True)
    fault(demos)
    found = survey(stored(demos))
    mine = [each for each in found.findings if each.name == name and each.severity == severity]
    assert mine, found.findings
    assert {each.episodes for each in mine} == {episodes}


def test_a_frozen_sensor_is_told_with_its_steps() -> None:
    demos = demonstrations(3)
    frozen(demos)
    (finding,) = [each for each in survey(stored(demos)).findings if each.name == "frozen"]
    assert (finding.key, finding.dims) == ("joints", (1,))
    assert [(span.episode, span.start, span.stop) for span in finding.spans] == [(2, 20, 40)]


def test_a_sensor_that_fails_for_good_is_frozen_and_a_joint_that_has_arrived_is_not() -> None:
    demos = demonstrations(3)
    at = int(np.abs(np.diff(demos[2]["joints"][:40, 1])).argmax()) + 1
    demos[2]["joints"][at:, 1] = demos[2]["joints"][at, 1]
    (finding,) = [each for each in survey(stored(demos)).findings if each.name == "frozen"]
    assert [(span.episode, span.start, span.stop) for span in finding.spans] == [(2, at, len(demos[2]["joints"]))]
    arms = []
    for i in range(8):  # no noise, no dynamics: joints go to their targets at one speed and stand there
        goal = np.array([3.6 + 0.1 * i, 1.6 if i < 2 else 4.0])  # further than they come, but for two
        steps = np.arange(60)[:, None]
        joints = np.minimum(0.06 * steps, goal)
        arms.append({"action": np.repeat(goal[None], 60, axis=0), "joints": joints})
    assert "frozen" not in loud(survey(stored(arms)))


def test_what_is_clipped_or_untouched_is_not_frozen() -> None:
    demos = demonstrations(3)
    for episode in demos:
        episode["joints"][:, 2] = episode["joints"][:, 2].clip(-1.0, 1.0)  # stands still for long, at a limit
        block = np.zeros((len(episode["action"]), 2), np.float32)
        block[40:] = np.cumsum(np.full((len(block) - 40, 2), 0.1, np.float32), axis=0)
        episode["block"] = block  # moves only when it is pushed
    assert "frozen" not in loud(survey(stored(demos)))


def test_a_slow_camera_is_a_slow_stream_and_not_a_broken_one() -> None:
    demos = demonstrations(3, images=True)
    for episode in demos:
        episode["img"] = episode["img"][np.arange(len(episode["img"])) // 3 * 3]
    found = survey(stored(demos))
    assert loud(found) == {}
    assert [each.key for each in found.findings if each.name == "held"] == ["img"]


def test_the_same_numbers_in_two_keys_are_noted() -> None:
    demos = demonstrations(3)
    for episode in demos:
        episode["copy"] = episode["joints"][:, [3]]
    (finding,) = [each for each in survey(stored(demos)).findings if each.name == "duplicated"]
    assert (finding.severity, finding.what) == ("note", "joints[3] is copy[0]: the same at every step")


@pytest.mark.parametrize("turn", [2 * np.pi, 360.0])
def test_an_angle_that_wraps_around_is_noted(turn: float) -> None:
    demos = demonstrations(3)
    for episode in demos:
        heading = np.cumsum(np.full(len(episode["action"]), 0.03 * turn)) + episode["joints"][:, 0] * 0.01
        episode["heading"] = (heading % turn).astype(np.float32)[:, None]
    wraps = [each for each in survey(stored(demos)).findings if each.name == "wraps"]
    assert [(each.key, each.dims, each.severity) for each in wraps] == [("heading", (0,), "note")]


def test_a_switch_that_equals_what_is_held_at_a_bound_is_no_copy_of_it() -> None:
    demos = demonstrations(5)
    for episode in demos:
        steps = len(episode["action"])
        closed = np.where(np.arange(steps) < steps // 2, -1.0, 1.0)
        upright = np.minimum(1.0, 1.02 - 0.1 * np.abs(np.sin(np.arange(steps) - steps // 2)))  # 1 when it closes
        episode["action"] = np.column_stack([episode["action"], closed])
        episode["tool"] = np.column_stack([episode["tool"], upright])
    assert "lag" not in loud(survey(stored(demos)))


def test_the_last_digits_of_what_is_kept_are_no_outliers() -> None:
    demos, rng = demonstrations(5), np.random.default_rng(0)
    for i, episode in enumerate(demos):
        steps = len(episode["joints"])
        kept = -np.pi / 2 + 1e-7 * rng.uniform(-1, 1, steps) + 1e-5 * (np.arange(steps) == 7) * (i == 0)
        episode["joints"] = np.column_stack([episode["joints"], kept])
    assert "outliers" not in loud(survey(stored(demos)))


def test_findings_stand_the_worst_first_and_say_what_to_do() -> None:
    demos = demonstrations(3, images=True)
    for fault in (black, rates, frozen):
        fault(demos)
    found = survey(stored(demos)).findings
    order = [SEVERITIES.index(each.severity) for each in found]
    assert all(before <= after for before, after in pairwise(order))
    for each in found:
        plain = each.plain("demos.zarr")
        assert plain["effect"] == KINDS[each.name].effect
        assert "{" not in plain["mend"]
    (mend,) = [each.mend("a.zarr") for each in found if each.name == "frozen"]
    assert mend.startswith("dp-convert a.zarr mended.zarr --drop frozen")


def test_duplicates_are_all_but_the_first_of_each_group() -> None:
    demos = demonstrations(3)
    again(demos)
    nearly_again(demos)
    assert survey(stored(demos)).episodes_of("duplicates") == (8, 9)


def test_single_transitions_are_not_judged_by_their_course() -> None:
    rng = np.random.default_rng(0)
    buffer = stored([{"action": rng.normal(size=(1, 2)), "state": rng.normal(size=(1, 3))} for _ in range(40)])
    assert survey(buffer).findings == ()


def test_pictures_alone_can_be_judged() -> None:
    demos = demonstrations(3, 4, images=True)
    black(demos)
    assert loud(survey(stored(demos), ["img"])) == {"blank": "warning"}


@pytest.mark.parametrize("slower", [5, 20])
def test_slow_motion_is_not_idle_at_any_rate(slower: int) -> None:
    demos = []
    for episode in demonstrations(3, 4):
        steps = np.arange(len(episode["action"]))
        fine = np.linspace(0, steps[-1], slower * len(steps))
        demos.append({"action": np.stack([np.interp(fine, steps, column) for column in episode["action"].T], axis=1)})
    assert survey(stored(demos)).checks.idle.findings() == []


def test_what_is_found_everywhere_is_counted_but_not_listed() -> None:
    places = Places()
    for i in range(50):
        places.extend(i, np.ones(100, bool))
    assert (places.count, len(places.spans), places.episodes) == (5000, 1000, tuple(range(50)))


def test_a_number_that_one_driver_uses_and_another_clips_is_no_unit() -> None:
    demos = demonstrations(3)
    for i, episode in enumerate(demos):
        speed = episode["joints"][:, :1] * (0.02 if i < 3 else 40.0)
        episode["speed"] = speed.clip(-1.5, 1.5)
    assert "units" not in {each.name for each in survey(stored(demos)).findings}


def test_many_groups_of_similar_episodes_are_one_finding() -> None:
    demos = demonstrations(3)
    for i in (1, 3, 5):
        demos.append(demos[i] | {"joints": demos[i]["joints"] + np.float32(1e-4)})
    (finding,) = [each for each in survey(stored(demos)).findings if each.name == "similar-episodes"]
    assert finding.episodes == (1, 3, 5, 8, 9, 10)
    assert survey(stored(demos)).groups == ((1, 8), (3, 9), (5, 10))


def test_a_clock_among_the_states_hides_no_idle_ends() -> None:
    demos = demonstrations(3, idle=15)
    plain = survey(stored(demos))
    for episode in demos:
        time = 7.0 + np.arange(len(episode["action"])) / HZ
        episode["states"] = np.column_stack([time, episode["joints"]]).astype(np.float32)
    both = [[each.what for each in found.findings if each.name == "idle"] for found in (plain, survey(stored(demos)))]
    assert both[0]
    assert both[0] == both[1]
