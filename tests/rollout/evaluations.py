"""Short evaluations of toys, in workers or here."""

import diffusion_policy_envs  # noqa: F401  (its ids must be known before a fixture takes down what a test registers)
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.rollout.evaluate import evaluate
from tests.rollout.toys import ToyPolicy

TROUBLE = "toys/Trouble-v0"
LENGTH = 20  # of the longest episode


def run(policy=None, env_id="toys/Chaos-v0", env_kwargs=None, **settings):
    settings = {"episodes": 9, "seed": 100, "num_envs": 4, "workers": 2, "progress": False, **settings}
    settings |= {"env_kwargs": {"length": LENGTH, **(env_kwargs or {})}, "plugins": ["tests.rollout.toys"]}
    return evaluate(RecedingHorizonController(policy or ToyPolicy()), env_id, **settings)
