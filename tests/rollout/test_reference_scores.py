"""Normalised scores against the published references."""

import pytest

from diffusion_policy.rollout.reference_scores import normalized_score, worth


@pytest.mark.parametrize(
    ("env_id", "random", "expert"),
    [
        ("Hopper-v5", -20.272305, 3234.3),
        ("HalfCheetah-v5", -280.178953, 12135.0),
        ("Walker2d-v5", 1.629008, 4592.3),
    ],
)
def test_normalized_score_is_0_for_chance_and_100_for_the_expert(env_id: str, random: float, expert: float) -> None:
    assert normalized_score(env_id, random) == 0
    assert normalized_score(f"gymnasium.envs.mujoco:{env_id}", expert) == 100
    assert normalized_score(env_id, (random + expert) / 2) == pytest.approx(50)


def test_normalized_score_is_of_the_environments_it_was_made_for_only() -> None:
    assert normalized_score("Hopper-v4", 1000.0) is None
    assert worth("Hopper-v4", 1000.0) == "1000.0"
    assert worth("Hopper-v5", 3234.3) == "3234.3 (normalised 100.0, D4RL reference, env v5)"
