"""Tele-operation with a scripted person: no window, no waiting."""

import gymnasium as gym
import numpy as np
import pytest

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError
from diffusion_policy.rollout.actors import ExpertActor
from diffusion_policy.rollout.collect import collect
from diffusion_policy.rollout.teleop import Hand, Pace, Teleoperation

ID, SIZE = "toys/Puck-v0", 64
HOLD = [Hand()] * 8  # polls while the end of an episode is shown


class Puck(gym.Env):
    """A point that jumps to where it is sent, on a board [0, 1]^2; success at its right edge, x > 0.9."""

    observation_space = action_space = gym.spaces.Box(0, 1, (2,))
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's own type)

    def __init__(self, render_mode=None, says=True, shape=(SIZE, SIZE)):
        self.render_mode, self.says, self.shape = render_mode, says, shape

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.integers(8, 32, 2) / SIZE
        return self.place.astype(np.float32), {"coverage": 0.25}

    def step(self, action):
        self.place = np.asarray(action, np.float64)
        won = bool(self.place[0] > 0.9)
        info = {"is_success": won} if self.says else {}
        return self.place.astype(np.float32), float(won), won and self.says, False, info

    def render(self):
        return np.full((*self.shape, 3), 200, np.uint8) if self.render_mode else None

    def action_pixels(self, actions, size):
        return np.asarray(actions) * size

    def action_at_pixel(self, xy, size):
        return np.asarray(xy) / size

    def resting_action(self):
        return self.place

    def make_expert(self, seed):
        return lambda obs, info: np.array([min(obs[0] + 0.25, 1.0), obs[1]], np.float32)


class ClickedPuck(Puck):
    resting_action = None


class Script:
    """A person whose every look at the window is written down; an exception among the hands is raised."""

    def __init__(self, *hands):
        self.hands, self.shown = list(hands), []

    def show(self, frame, lines):
        self.shown.append((frame, list(lines)))

    def poll(self):
        hand = self.hands.pop(0)
        if isinstance(hand, BaseException):
            raise hand
        return hand

    @property
    def status(self):
        return [lines[1] for _, lines in self.shown]


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.time, self.slept = 100.0, []

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.time += seconds

    def pace(self, hz):
        return Pace(hz, lambda: self.time, self.sleep)


@pytest.fixture(autouse=True)
def pucks(toys):
    gym.register(ID, entry_point=Puck, max_episode_steps=6)
    gym.register("toys/ClickedPuck-v0", entry_point=ClickedPuck, max_episode_steps=6)


def at(x, y=30, clicked=False):
    return Hand((x, y), clicked)


def key(*commands):
    return Hand(commands=commands)


def start(seed, env_id=ID):
    return gym.make(env_id).reset(seed=seed)[0].astype(np.float64) * SIZE


def teleop(out, script, env_id=ID, **settings):
    keep = settings.pop("keep", "success")
    settings = {"episodes": 2, "seed": 0, "progress": False, "keep": keep, **settings}
    return collect(env_id, Teleoperation(script, keep, Clock().pace), out=out, **settings)


def actions_of(path, i=0):
    return ReplayBuffer.open(path).get_episode(i)["action"] * SIZE


def test_agent_follows_once_the_mouse_has_come_near_it(tmp_path):
    x, y = start(0)
    script = Script(Hand(), at(60, y), at(x + 4, y), at(x + 3, y), at(40, y), at(60, y), *HOLD, key("quit"))
    result = teleop(tmp_path / "a.zarr", script)
    assert result.episodes == 1
    np.testing.assert_allclose(actions_of(tmp_path / "a.zarr"), [[x + 3, y], [40, y], [60, y]], atol=1e-5)
    np.testing.assert_allclose(ReplayBuffer.open(tmp_path / "a.zarr")["observation"][0] * SIZE, [x, y])
    assert script.status[:5] == ["move the mouse into the ring, or click, to begin"] * 4 + [""]


def test_ring_shows_where_the_mouse_begins_and_vanishes_then(tmp_path):
    script = Script(Hand(), at(*start(0)), at(20), key("quit"))
    teleop(tmp_path / "a.zarr", script)
    waiting, following = script.shown[0][0], script.shown[2][0]
    rows, columns = np.nonzero((waiting != 200).any(axis=-1))
    np.testing.assert_allclose([columns.mean(), rows.mean()], start(0), atol=1)
    assert (following == 200).all()


@pytest.mark.parametrize("env_id", [ID, "toys/ClickedPuck-v0"])
def test_a_click_begins_from_anywhere(tmp_path, env_id):
    script = Script(at(50), at(50, clicked=True), at(60), *HOLD, key("quit"))
    assert teleop(tmp_path / "a.zarr", script, env_id).episodes == 1
    np.testing.assert_allclose(actions_of(tmp_path / "a.zarr"), [[50, 30], [60, 30]])


def test_where_nobody_says_what_rest_is_only_a_click_begins(tmp_path):
    script = Script(at(*start(0)), at(*start(0)), key("quit"))
    assert teleop(tmp_path / "a.zarr", script, "toys/ClickedPuck-v0").episodes == 0
    assert script.status == ["click to begin"] * 3


def test_mouse_outside_the_window_keeps_its_last_place(tmp_path):
    script = Script(at(20, clicked=True), Hand(), Hand(), at(60), *HOLD, key("quit"))
    teleop(tmp_path / "a.zarr", script)
    np.testing.assert_allclose(actions_of(tmp_path / "a.zarr")[:, 0], [20, 20, 20, 60])


def test_restart_throws_the_steps_away_and_begins_at_the_same_start(tmp_path):
    restarted = Script(at(20, clicked=True), at(30), key("restart"), at(25, clicked=True), at(60), *HOLD, key("quit"))
    undisturbed = Script(at(25, clicked=True), at(60), *HOLD, key("quit"))
    first, second = teleop(tmp_path / "a.zarr", restarted), teleop(tmp_path / "b.zarr", undisturbed)
    assert (first.digest, first.attempts) == (second.digest, second.attempts)


def test_next_keeps_the_episode_as_truncated_where_all_are_kept(tmp_path):
    script = Script(at(20, clicked=True), at(30), key("next"), *HOLD, key("quit"))
    assert teleop(tmp_path / "a.zarr", script, keep="all").episodes == 1
    episode = ReplayBuffer.open(tmp_path / "a.zarr").get_episode(0)
    assert episode["truncated"].tolist() == [False, True]
    assert not episode["terminated"].any()
    assert "over: kept" in script.status
    assert "Enter keep and next" in script.shown[0][1][2]


def test_next_drops_an_episode_without_success_where_only_successes_are_kept(tmp_path):
    script = Script(at(20, clicked=True), key("next"), *HOLD, at(60, clicked=True), *HOLD, key("quit"))
    assert teleop(tmp_path / "a.zarr", script).episodes == 1
    assert ReplayBuffer.open(tmp_path / "a.zarr").attrs["provenance"]["seeds"] == [1]
    assert "over: not kept" in script.status
    assert "Enter drop and next" in script.shown[0][1][2]


def test_next_before_the_first_step_means_nothing(tmp_path):
    script = Script(key("next"), key("next"), at(60, clicked=True), *HOLD, key("quit"))
    assert teleop(tmp_path / "a.zarr", script, keep="all").episodes == 1
    assert len(actions_of(tmp_path / "a.zarr")) == 1


def test_success_is_kept_by_itself_and_the_next_episode_begins(tmp_path):
    script = Script(at(60, clicked=True), *HOLD, at(61, clicked=True), *HOLD)
    result = teleop(tmp_path / "a.zarr", script)
    assert (result.episodes, result.attempts, script.hands) == (2, 2, [])
    assert script.status.count("success: kept") == 2 * len(HOLD)
    assert script.shown[0][1][0] == "kept 0 of 2   coverage 0.25   0.6 s left"
    assert script.shown[1][1][0] == "kept 0 of 2   reward 1.00   0.5 s left"
    assert script.shown[-1][1][0].startswith("kept 1 of 2")


def test_time_limit_ends_an_episode(tmp_path):
    script = Script(at(20, clicked=True), *[at(20)] * 5, *HOLD, key("quit"))
    assert teleop(tmp_path / "a.zarr", script).episodes == 0
    assert script.hands == []
    assert script.status[-2] == "over: not kept"


def test_quit_while_a_success_is_shown_keeps_it(tmp_path):
    script = Script(at(60, clicked=True), Hand(), key("quit"))
    assert teleop(tmp_path / "a.zarr", script).episodes == 1
    assert script.hands == []


def test_quit_drops_the_episode_that_is_going_on_and_resume_goes_on(tmp_path):
    first = Script(at(60, clicked=True), *HOLD, at(20, clicked=True), key("quit"))
    assert teleop(tmp_path / "a.zarr", first).episodes == 1
    second = Script(at(62, clicked=True), *HOLD)
    result = teleop(tmp_path / "a.zarr", second, resume=True)
    whole = Script(at(60, clicked=True), *HOLD, at(62, clicked=True), *HOLD)
    assert result.digest == teleop(tmp_path / "b.zarr", whole).digest
    record = ReplayBuffer.open(tmp_path / "a.zarr").attrs["provenance"]
    assert (record["actor"], record["seeds"], record["kwargs"]) == ("teleop", [0, 1], {})


def test_ctrl_c_leaves_the_kept_episodes_and_resume_goes_on(tmp_path):
    script = Script(at(60, clicked=True), *HOLD, at(20, clicked=True), KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        teleop(tmp_path / "a.zarr", script)
    assert ReplayBuffer.open(tmp_path / "a.zarr").num_episodes == 1
    assert teleop(tmp_path / "a.zarr", Script(at(62, clicked=True), *HOLD), resume=True).episodes == 2


def test_hand_that_goes_where_the_expert_goes_records_what_the_expert_records(tmp_path):
    hands = []
    for seed in (0, 1):
        x, y = start(seed)
        while x / SIZE <= 0.9:
            x = min(x + 16, SIZE)
            hands.append(at(x, y, clicked=True))
        hands += HOLD
    by_hand = teleop(tmp_path / "a.zarr", Script(*hands))
    settings = {"episodes": 2, "seed": 0, "next_obs": False, "progress": False}
    by_expert = collect(ID, ExpertActor(), out=tmp_path / "b.zarr", **settings)
    assert by_hand.digest == by_expert.digest


def test_archive_is_packed_only_when_it_is_complete(tmp_path):
    path = tmp_path / "a.zarr.zip"
    result = teleop(path, Script(at(60, clicked=True), *HOLD, key("quit")))
    assert (result.out, path.exists()) == (tmp_path / "a.zarr", False)
    assert teleop(path, Script(at(60, clicked=True), *HOLD), resume=True).out == path
    assert [file.name for file in tmp_path.iterdir()] == ["a.zarr.zip"]


def test_person_may_try_as_often_as_it_takes(tmp_path):
    failed = [at(20, clicked=True), key("next"), *HOLD] * 50
    assert teleop(tmp_path / "a.zarr", Script(*failed, at(60, clicked=True), *HOLD), episodes=1).attempts == 51


def test_environment_that_a_mouse_cannot_lead_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match=r"ChaosEnv has no action_at_pixel\(xy, size\).*teleop=false"):
        teleop(tmp_path / "a.zarr", Script(), "toys/Chaos-v0")
    with pytest.raises(ConfigError, match=r"square pictures .* but drew \(32, 64, 3\) uint8"):
        teleop(tmp_path / "a.zarr", Script(), env_kwargs={"shape": (32, 64)})
    with pytest.raises(ConfigError, match=r"render_mode='rgb_array'.* has None"):
        teleop(tmp_path / "a.zarr", Script(), env_kwargs={"render_mode": None})
    assert list(tmp_path.iterdir()) == []


def test_push_t_can_be_led_by_hand(tmp_path):
    env_id = "diffusion_policy_envs:PushT-v0"
    settings = {"obs_keys": ["state"], "renderer": "draw2d"}
    script = Script(at(100, 200, clicked=True), at(110, 210), key("next"), *HOLD, key("quit"))
    teleop(tmp_path / "a.zarr", script, env_id, keep="all", env_kwargs=settings)
    np.testing.assert_array_equal(actions_of(tmp_path / "a.zarr") / SIZE, [[100, 200], [110, 210]])  # 512 px window
    assert script.shown[0][0].shape == (512, 512, 3)
    assert script.shown[0][1][0].endswith("30.0 s left")


def test_pace_is_steady_whatever_happens_between_ticks():
    clock = Clock()
    pace = clock.pace(10)
    ticks = []
    for work in (0.03, 0.09, 0.0, 0.05):
        clock.time += work
        pace.wait()
        ticks.append(clock.time)
    np.testing.assert_allclose(ticks, [100.1, 100.2, 100.3, 100.4])


def test_pace_makes_no_haste_after_a_late_tick():
    clock = Clock()
    pace = clock.pace(10)
    clock.time += 1.0
    pace.wait()
    assert clock.slept == []
    for _ in range(3):
        pace.wait()
    np.testing.assert_allclose(clock.slept, [0.1] * 3)
