"""A mirror shows everything where it was when looked into twice."""

import numpy as np
import pytest

from diffusion_policy.data.mirror import check_mirror, mirrored
from diffusion_policy.errors import DataError

RNG = np.random.default_rng(0)
OBS = {
    "pos": RNG.uniform(-500, 500, (20, 2)).astype(np.float32),
    "heading": RNG.uniform(-4, 4, (20, 1)).astype(np.float32),
    "image": RNG.integers(0, 256, (20, 4, 4, 3), dtype=np.uint8),
}
ACTION = RNG.uniform(-1, 1, (20, 2)).astype(np.float32)


def right(obs, action):
    images = {"pos": obs["pos"] * [-1, 1], "heading": (np.pi - obs["heading"]) % (2 * np.pi)}
    return {**images, "image": obs["image"][:, :, ::-1]}, action * [-1, 1]


def test_mirror_that_is_its_own_inverse_passes_with_angles_beyond_a_turn() -> None:
    check_mirror(right, OBS, ACTION)


def test_mirror_may_round_a_little() -> None:
    def rounded(obs, action):
        images, targets = right(obs, action)
        return {**images, "pos": np.round(images["pos"], 2), "image": images["image"] ^ 1}, targets.astype(np.float16)

    check_mirror(rounded, OBS, ACTION)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("pos", lambda x: 512 - x + 3 * (x > 0), r"obs\.pos differs by up to 3[;.]"),
        ("image", lambda x: x[:, :, ::-1] // 2, r"obs\.image differs by up to \d+"),
        ("heading", lambda x: x + 0.5, r"obs\.heading differs by up to 1[;.]"),
        ("action", lambda x: 2 * x, r"action differs by up to [0-9.]+; correct .*data\.mirror=false"),
    ],
)
def test_mirror_that_does_not_come_back_is_refused_with_field_and_difference(name, change, message) -> None:
    def wrong(obs, action):
        images, targets = right(obs, action)
        if name == "action":
            return images, change(action)
        return {**images, name: change(obs[name])}, targets

    with pytest.raises(DataError, match=message):
        check_mirror(wrong, OBS, ACTION)


def test_mirror_that_changes_nothing_is_refused() -> None:
    with pytest.raises(DataError, match=r"must change observations or actions.*obs\.pos"):
        check_mirror(lambda obs, action: (obs, action), OBS, ACTION)


@pytest.mark.parametrize("returned", [None, np.zeros((20, 2)), (ACTION, ACTION), ({}, ACTION, ACTION)])
def test_mirror_that_returns_no_pair_is_refused(returned) -> None:
    with pytest.raises(DataError, match="must return a pair"):
        mirrored(lambda obs, action: returned, OBS, ACTION)
