"""A policy.pt computed by torch step by step, with everything prepared that can be: needs nothing but the file.

Weights are laid out once, and what the denoising steps take from time and condition is one product for all of them.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.errors import ConfigError
from diffusion_policy.models.preparation import is_prepared
from diffusion_policy.models.products import PackedProduct, PlainProduct, can_pack
from diffusion_policy.policies.chunk import Array, ChunkPolicy, FloatArray
from diffusion_policy.policies.device import has_fast_bf16
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy
from diffusion_policy.policies.engines.description import Description
from diffusion_policy.policies.engines.engine_policy import EnginePolicy
from diffusion_policy.policies.engines.graph import PolicyGraph
from diffusion_policy.policies.library import load_policy
from diffusion_policy.policies.policy import Policy

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def prepared(policy: DiffusionPolicy, precision: str | None = None) -> EnginePolicy:
    """Returns a policy that answers as this one does, several times as fast.

    Args:
        policy: on any device; later changes of its denoiser are not seen, unless it is of an unknown kind.
        precision: of the denoiser's products, float32 (None) or bfloat16, which changes actions by 1e-2 of their
            range and is worth it where the processor has instructions for it.

    Raises:
        ConfigError: no such precision, here.
    """
    dtype = check_precision(precision or "float32", policy)
    kind = PackedProduct if policy.device.type == "cpu" and can_pack() else PlainProduct
    graph = PolicyGraph(policy, partial(kind, dtype=dtype)).eval()
    run, name = _runner(graph, policy.device), f"eager {precision or 'float32'}"
    return EnginePolicy(Description.of(policy), run, name, policy.predict_guided)


def load_chunk_policy(path: str | Path, device: str | torch.device, precision: str | None) -> ChunkPolicy:
    """Returns the policy in a policy.pt, ready to run: the controller's engine for .pt files."""
    return runnable(load_policy(path, device), precision)


def runnable(policy: Policy, precision: str | None = None) -> ChunkPolicy:
    """Returns a policy prepared, if it denoises step by step and selects nothing; as it is otherwise.

    Raises:
        ConfigError: no such precision, for this policy, here.
    """
    if isinstance(policy, DiffusionPolicy) and policy.selector is None:
        return prepared(policy, precision)
    if precision not in (None, "float32"):
        raise ConfigError(f"precision={precision}: policy '{policy.kind}' computes in float32; leave it out")
    return cast("ChunkPolicy", policy)


def check_precision(precision: str, policy: DiffusionPolicy) -> torch.dtype:
    """Returns the dtype of a precision.

    Raises:
        ConfigError: there is no such, the policy's device has no instructions for it, or its denoiser is of an unknown
            kind, whose products are its own.
    """
    device = policy.device
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be {' or '.join(PRECISIONS)}, but got '{precision}'")
    if precision == "bfloat16" and not has_fast_bf16(device):
        raise ConfigError(f"precision=bfloat16: this {device.type} computes it by emulation, slower than float32")
    if precision != "float32" and not is_prepared(policy.denoiser):
        raise ConfigError(f"precision={precision}: {type(policy.denoiser).__name__} computes in its own; leave it out")
    return PRECISIONS[precision]


def _runner(graph: PolicyGraph, device: torch.device) -> Callable[[list[Array], FloatArray], FloatArray]:
    def run(obs: list[Array], noise: FloatArray) -> FloatArray:
        inputs: list[Tensor] = [torch.from_numpy(array).to(device) for array in (*obs, noise)]
        with torch.inference_mode():
            out: FloatArray = graph(*inputs).cpu().numpy()
        return np.ascontiguousarray(out)

    return run
