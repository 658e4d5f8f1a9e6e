"""Which device computes, and by which of its routes."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache

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


@contextmanager
def fast_products(device: torch.device) -> Iterator[None]:
    """Within it float32 matrix products take oneDNN's route on a CPU, where that computes in float32 too.

    torch gives float32 products to MKL, whose kernels on AMD's processors reach half of what the same processor does
    in oneDNN's. torch hands them over only when products of less precision are allowed. Processors with AMX then
    take bfloat16, the others have nothing but float32 there: tried once a process, and left alone where one number
    is less exact. Settings of torch are put back at the end.
    """
    if device.type != "cpu" or not _is_untouched() or not _onednn_is_exact():
        yield
        return
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


def _is_untouched() -> bool:
    """Whether nobody has said how float32 products are computed."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # said by torch's newer setting, backend by backend: the two must not be mixed
        return False


@cache
def _onednn_is_exact() -> bool:
    """Whether products that may be less precise are as close to float64's as products that may not."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, 256, 256, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    errors = []
    for precision in ("highest", "medium"):
        torch.set_float32_matmul_precision(precision)
        try:
            errors.append((a @ b - exact).abs().max().item())
            errors.append((a[0] @ b[0] - exact[0]).abs().max().item())
        finally:
            torch.set_float32_matmul_precision("highest")
    # bfloat16 errs by 0.1 here, float32 by 1e-5, whatever the order of its sums
    return max(errors) < 1e-3
