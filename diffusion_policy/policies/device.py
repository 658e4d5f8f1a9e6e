"""Which device computes."""

from collections.abc import Callable, Mapping

import torch

from diffusion_policy.errors import ConfigError


def pick_device(device: str | torch.device) -> torch.device:
    """Returns the torch device of a `device=` setting: auto, cpu, cuda or mps, or one of several ("cuda:1").

    Raises:
        ConfigError: unknown, or not on this machine.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device("cuda" if available["cuda"] else "mps" if available["mps"] else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:  # no such type
        chosen = None
    if chosen is None or chosen.type not in available:
        raise ConfigError(f"device must be auto, cpu, cuda or mps, but got '{device}'")
    if not available[chosen.type]:
        raise ConfigError(f"device={device}: this machine, or this build of torch, has none; use device=auto")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device={device}: this machine has {torch.cuda.device_count()}, counted from cuda:0")
    return chosen


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is computed by instructions of its own; emulated, it is slower than float32.

    On CPUs that is AVX-512 BF16 or AMX.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        ask: Callable[[], Mapping[str, object]] = getattr(torch.cpu, "get_capabilities", dict)  # older torch: float32
        capabilities = ask()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False
