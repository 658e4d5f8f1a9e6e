"""Every kind of policy of this package, by name: made from configuration, or read from a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.policies import diffusion_policy as _registers_diffusion  # noqa: F401
from diffusion_policy.policies.baselines import act as _registers_act  # noqa: F401
from diffusion_policy.policies.baselines import bet as _registers_bet  # noqa: F401
from diffusion_policy.policies.baselines import flow as _registers_flow  # noqa: F401
from diffusion_policy.policies.baselines import gaussian as _registers_gaussian  # noqa: F401
from diffusion_policy.policies.baselines import ibc as _registers_ibc  # noqa: F401
from diffusion_policy.policies.baselines import lstm_gmm as _registers_lstm_gmm  # noqa: F401
from diffusion_policy.policies.baselines import mlp as _registers_mlp  # noqa: F401
from diffusion_policy.policies.checkpoint import read_policy_file
from diffusion_policy.policies.device import pick_device
from diffusion_policy.policies.kinds import POLICIES
from diffusion_policy.policies.policy import Policy
from diffusion_policy.settings import section

POLICY_SECTIONS = ("policy", "horizons", "denoiser", "encoder", "diffusion", "sampler", "normalization")
"""Of a configuration: what defines a policy. Each kind reads some of them."""


def make_policy(settings: Mapping[str, Any], obs_spec: ObsSpec, action_spec: ActionSpec) -> Policy:
    """Returns a new policy.

    Args:
        settings: sections as plain values, of `POLICY_SECTIONS`; `policy.name` says which kind, those that it does not
            read are absent or empty.
        obs_spec: the observation schema.
        action_spec: the action schema.

    Raises:
        UnknownNameError: no such kind is registered.
        ConfigError: a setting is unknown or does not fit.
    """
    name = str(section(settings, "policy").get("name", "diffusion"))
    return POLICIES.get(name).from_sections(settings, obs_spec, action_spec)


def load_policy(path: str | Path, device: str | torch.device = "cpu") -> Policy:
    """Returns the policy in a policy.pt, of whatever kind, in evaluation mode; see `Policy.load`."""
    chosen = pick_device(device)
    return read_policy_file(path).build(make_policy).to(chosen).eval()
