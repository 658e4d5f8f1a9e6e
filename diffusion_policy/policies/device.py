"""Which device computes."""

import torch

from diffusion_policy.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """Returns the torch device of a `device=` setting: auto, cpu, cuda or mps.

    Raises:
        ConfigError: unknown, or not on this machine.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if available["cuda"] else "mps" if available["mps"] else "cpu")
    if name not in available:
        raise ConfigError(f"device must be auto, cpu, cuda or mps, but got '{name}'")
    if not available[name]:
        raise ConfigError(f"device={name}: this machine, or this build of torch, has none; use device=auto")
    return torch.device(name)
