"""Diffusion policies from demonstrations: train, watch in MuJoCo, deploy on a controller.

Demonstrations go in as zarr, windows of observations and actions come out; an encoder turns observations into
one condition vector; a denoiser turns noise into an action chunk under that condition; a controller executes
the first part of the chunk and asks again.

Importing this package imports nothing heavy (PEP 562): a robot controller pays only for what it uses.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from diffusion_policy.installation import needs_full_install

if TYPE_CHECKING:
    from diffusion_policy.cli.compose import compose_config
    from diffusion_policy.config import ActionSpec, ObsField
    from diffusion_policy.data.replay_buffer import ReplayBuffer
    from diffusion_policy.policies.controller import RecedingHorizonController
    from diffusion_policy.policies.diffusion_policy import DiffusionPolicy
    from diffusion_policy.policies.imports.library import import_policy
    from diffusion_policy.policies.library import load_policy
    from diffusion_policy.rollout.evaluate import evaluate
    from diffusion_policy.training.run import train

__version__ = "0.1.0"

_HOMES = {
    "DiffusionPolicy": "diffusion_policy.policies.diffusion_policy",
    "load_policy": "diffusion_policy.policies.library",
    "import_policy": "diffusion_policy.policies.imports.library",
    "ReplayBuffer": "diffusion_policy.data.replay_buffer",
    "RecedingHorizonController": "diffusion_policy.policies.controller",
    "TimedController": "diffusion_policy.control.timed",
    "Planner": "diffusion_policy.control.planner",
    "SafetyConfig": "diffusion_policy.control.safety",
    "ObsField": "diffusion_policy.config",
    "ActionSpec": "diffusion_policy.config",
    "evaluate": "diffusion_policy.rollout.evaluate",
    "train": "diffusion_policy.training.run",
    "compose_config": "diffusion_policy.cli.compose",
}

__all__ = [
    "DiffusionPolicy",
    "load_policy",
    "import_policy",
    "ReplayBuffer",
    "RecedingHorizonController",
    "TimedController",
    "Planner",
    "SafetyConfig",
    "ObsField",
    "ActionSpec",
    "evaluate",
    "train",
    "compose_config",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        try:
            return getattr(import_module(_HOMES[name]), name)
        except ImportError as error:
            said = needs_full_install(error, f"diffusion_policy.{name}")
            if said is None:
                raise
            raise ImportError(said) from error
    raise AttributeError(f"module 'diffusion_policy' has no attribute '{name}', it has: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
