"""Normalised scores against the published references."""

from dataclasses import replace

import pytest

from diffusion_policy.rollout.evaluate import evaluate
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


def test_evaluation_tells_the_normalized_return_beside_the_return(toy_policy) -> None:
    elsewhere = evaluate(toy_policy(), "toys/Chaos-v0", episodes=4, seed=0, progress=False)
    assert "normalized_return" not in elsewhere.to_dict()
    assert "normalised" not in elsewhere.summary()
    result = replace(elsewhere, env_id="Hopper-v5")
    entry, plain = result.to_dict()["normalized_return"], result.to_dict()["return"]
    assert entry["label"] == "D4RL reference, env v5"
    assert entry["mean"] == pytest.approx(100 * (plain["mean"] + 20.272305) / 3254.572305)
    assert entry["ci95"] == pytest.approx([100 * (each + 20.272305) / 3254.572305 for each in plain["ci95"]])
    assert f"normalised return {entry['mean']:.1f} [" in result.summary()
