import gymnasium as gym
import numpy as np
import pytest

from diffusion_policy.data.pictures import image_key, recorded_images
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DataError, RenderError
from diffusion_policy.film.demonstrations import DemonstrationFilm, spread
from diffusion_policy.rollout.environments import make_env

STEPS = (5, 8, 3)


def buffer_of(provenance=None, **keys):
    """Episodes of STEPS; each key is f(steps) -> (steps, *shape)."""
    buffer = ReplayBuffer.create(attrs={"provenance": provenance} if provenance else None)
    for steps in STEPS:
        buffer.add_episode({key: make(steps) for key, make in keys.items()})
    return buffer


def images(steps, dtype=np.uint8):
    return np.random.default_rng(steps).integers(0, 256, (steps, 16, 24, 3)).astype(dtype)


def moved(steps):
    return np.linspace(0, 1, 2 * steps, dtype=np.float32).reshape(steps, 2)


class Slate(gym.Env):
    """Draws an observation `pos` as the grey of the whole picture; its actions are pixels of a picture of size 1."""

    action_space = observation_space = gym.spaces.Box(0, 1, (2,))

    def __init__(self, answer=None):
        self.answer = answer

    def picture(self, obs, size):
        if "pos" not in obs:
            raise ValueError(f"needs pos, but got {', '.join(obs)}")
        return np.full((size, size, 3), 255 * obs["pos"][0], np.uint8) if self.answer is None else self.answer

    def action_pixels(self, actions, size):
        return actions * size


@pytest.fixture
def slate():
    return Slate()


def inner(frame, shape):
    """Returns the picture of the one tile in a frame, which has border and caption."""
    border = (frame.shape[1] - shape[1]) // 2
    return frame[-border - shape[0] : -border, border:-border].astype(int)


def test_images_are_the_same_however_they_are_stored():
    buffer = buffer_of(
        hwc=images,
        chw=lambda steps: np.moveaxis(images(steps), -1, 1),
        floats=lambda steps: images(steps, np.float32),
    )
    expected = np.concatenate([images(steps) for steps in STEPS])
    for key in ("hwc", "chw", "floats"):
        np.testing.assert_array_equal(list(recorded_images(buffer, key, slice(2, 14))), expected[2:14])


def test_images_are_read_in_blocks(monkeypatch):
    monkeypatch.setattr("diffusion_policy.data.pictures._BLOCK_BYTES", 3 * 16 * 24 * 3)
    buffer, read = buffer_of(img=images), []
    monkeypatch.setattr(
        buffer, "read", lambda key, *steps: read.append(steps) or ReplayBuffer.read(buffer, key, *steps)
    )
    assert len(list(recorded_images(buffer, "img", slice(5, 13)))) == 8
    assert read == [(5, 8), (8, 11), (11, 13)]


def test_image_key_is_the_one_of_most_pixels_whatever_its_layout():
    def zeros(*shape):
        return lambda steps: np.zeros((steps, *shape), np.uint8)

    assert image_key(buffer_of(a=zeros(16, 16, 3), b=zeros(3, 20, 20), c=zeros(9, 2), d=zeros(40, 40, 2))) == "b"
    assert image_key(buffer_of(a=zeros(9, 3, 3), b=zeros(3, 7, 7), c=zeros(5))) is None


def test_film_shows_the_recorded_images_one_frame_a_step():
    buffer = buffer_of(img=images)
    counted = []
    frames = list(DemonstrationFilm(buffer, None, 24).film([1], fps=10, on_frame=counted.append))
    assert len(frames) == 8 + 15  # and the last held for 1.5 s
    assert counted == [1] * 8
    for frame, image in zip(frames, images(8), strict=False):
        np.testing.assert_array_equal(inner(frame, (16, 24)), image)


def test_film_of_several_episodes_is_as_long_as_the_longest():
    frames = list(DemonstrationFilm(buffer_of(img=images), None, 24).film([0, 1, 2], fps=4))
    assert len(frames) == 8 + 6
    assert frames[0].shape == (2 * (16 + 8 + 18), 2 * (24 + 8), 3)


def test_film_draws_observations_through_the_environment(slate):
    frames = list(DemonstrationFilm(buffer_of(pos=moved), slate, 32).film([1], fps=10))
    for frame, pos in zip(frames, moved(8), strict=False):
        np.testing.assert_array_equal(inner(frame, (32, 32)), int(255 * pos[0]))


def test_recorded_images_come_before_the_environments_and_get_its_action_marks(slate):
    squares = {"img": lambda steps: images(steps)[:, :, :16], "action": moved}
    frame = next(DemonstrationFilm(buffer_of(**squares), slate, 64).film([1], fps=10))
    bare = next(DemonstrationFilm(buffer_of(img=squares["img"]), slate, 64).film([1], fps=10))
    assert frame.shape == bare.shape
    rows, columns = np.nonzero((frame != bare).any(axis=-1))
    assert len(rows)
    assert abs(np.corrcoef(rows, columns)[0, 1]) > 0.9  # the actions lie on the diagonal


def test_actions_without_action_pixels_stand_beneath_as_do_those_of_pictures_that_are_not_square(slate):
    for env in (None, slate):
        frame = next(DemonstrationFilm(buffer_of(img=images, action=moved), env, 24).film([1], fps=10))
        assert frame.shape == (16 + 5 + 8 + 18, 24 + 8, 3)


def test_picture_has_a_row_for_each_episode_from_its_first_step_to_its_last(slate):
    shown = DemonstrationFilm(buffer_of(pos=moved), slate, 32)
    counted = []
    picture = shown.picture([1, 0], 3, counted.append)
    assert picture.shape == (2 * (32 + 8 + 18), 3 * (32 + 8), 3)
    assert len(counted) == 6
    greys = [[int(picture[58 * row + 40, 40 * column + 20, 0]) for column in range(3)] for row in range(2)]
    assert greys[0] == [int(255 * moved(8)[step, 0]) for step in (0, 4, 7)]
    assert greys[1] == [int(255 * moved(5)[step, 0]) for step in (0, 2, 4)]


def test_picture_shows_the_recorded_images_of_its_moments():
    picture = DemonstrationFilm(buffer_of(img=images), None, 24).picture([1], 2)
    for column, step in enumerate((0, 7)):
        tile = picture[:, 32 * column : 32 * (column + 1)]
        np.testing.assert_array_equal(inner(tile, (16, 24)), images(8)[step])


def test_picture_with_a_path_of_actions_explains_its_colours(slate):
    with_legend = DemonstrationFilm(buffer_of(pos=moved, action=moved), slate, 128).picture([0], 5)
    without = DemonstrationFilm(buffer_of(pos=moved), slate, 128).picture([0], 5)
    assert with_legend.shape[0] > without.shape[0]
    assert with_legend.shape[1] == without.shape[1]


@pytest.mark.parametrize(("count", "episodes"), [(1, [0]), (2, [0, 2]), (3, [0, 1, 2]), (9, [0, 1, 2])])
def test_episodes_are_spread_over_the_data_set(count, episodes):
    assert spread(buffer_of(pos=moved), count) == episodes


def test_no_episodes_cannot_be_spread():
    with pytest.raises(ConfigError, match="1 or more episodes to show, but got 0"):
        spread(buffer_of(pos=moved), 0)


def test_without_any_picture_the_message_says_what_there_is_and_what_would_help(slate):
    with pytest.raises(
        DataError, match=r"has action \(2,\), pos \(2,\); .* names no environment.*--env.*record images"
    ):
        DemonstrationFilm(buffer_of(pos=moved, action=moved), None, 32)
    with pytest.raises(DataError, match=r"its CartPoleEnv has no picture\(obs, size\)"):
        DemonstrationFilm(buffer_of(pos=moved), gym.make("CartPole-v1"), 32)
    with pytest.raises(DataError, match=r"Slate cannot draw what was recorded \(angle\): needs pos, but got angle"):
        DemonstrationFilm(buffer_of(angle=moved), slate, 32)


@pytest.mark.parametrize("answer", [np.zeros((32, 32, 3)), np.zeros((8, 32, 3), np.uint8), None])
def test_drawing_that_is_no_picture_is_refused(answer):
    env = Slate(answer)
    if answer is None:
        env.picture = lambda obs, size: None
    with pytest.raises(RenderError, match=r"picture\(obs, 32\) must give \(32, 32, 3\) uint8"):
        DemonstrationFilm(buffer_of(pos=moved), env, 32)


def test_human_demonstrations_can_be_shown(human_pusht):
    buffer = ReplayBuffer.open(human_pusht)
    env = make_env("diffusion_policy_envs:PushT-v0")
    frame = next(DemonstrationFilm(buffer, env, 96).film([7], fps=10))
    changed = inner(frame, (96, 96)) - buffer.read("img", *buffer.episode_slice(7).indices(10**9)[:2])[0]
    rows, columns = np.nonzero(np.abs(changed).sum(axis=-1))
    actions = buffer["action"][buffer.episode_slice(7)][:16] * 96 / 512
    assert columns.min() > actions[:, 0].min() - 8
    assert rows.max() < actions[:, 1].max() + 8
    env.close()
