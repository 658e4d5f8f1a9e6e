"""Returns on the scale of the D4RL benchmark: 0 is a random policy there, 100 an expert (Fu et al. 2020, appendix).

Only a scale: D4RL was recorded in gym's v2 environments, whose rewards and observations differ from gymnasium's v5. So
a score is always shown with its label, beside the return itself, and is never a D4RL result.
"""

LABEL = "D4RL reference, env v5"

_REFERENCES = {  # returns of a random policy and of the expert
    "HalfCheetah-v5": (-280.178953, 12135.0),
    "Hopper-v5": (-20.272305, 3234.3),
    "Walker2d-v5": (1.629008, 4592.3),
}


def normalized_score(env_id: str, episode_return: float) -> float | None:
    """Returns 100 (return - random) / (expert - random); None for an environment without such references.

    Args:
        env_id: e.g. "Hopper-v5", with or without its package.
        episode_return: a return, or a mean of some.
    """
    reference = _REFERENCES.get(env_id.rpartition(":")[2])
    if reference is None:
        return None
    random, expert = reference
    return 100.0 * (episode_return - random) / (expert - random)


def worth(env_id: str, episode_return: float, success_rate: float | None = None) -> str:
    """Returns a mean return in words, with its normalised score where there is one, and the share of successes."""
    score = normalized_score(env_id, episode_return)
    said = f"{episode_return:.1f}"
    said = said if score is None else f"{said} (normalised {score:.1f}, {LABEL})"
    return said if success_rate is None else f"{said}, success {100 * success_rate:.0f} %"
