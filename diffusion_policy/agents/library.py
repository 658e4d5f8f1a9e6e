"""Every agent of this package, by name."""

from collections.abc import Mapping
from typing import Any

from diffusion_policy.agents import diffusion_ql as _registers_diffusion_ql  # noqa: F401
from diffusion_policy.agents import iql as _registers_iql  # noqa: F401
from diffusion_policy.agents import td3_bc as _registers_td3_bc  # noqa: F401
from diffusion_policy.agents.agent import AGENTS, Agent
from diffusion_policy.agents.objective import Imitation, PolicyObjective
from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.policy import Policy


def make_objective(settings: Mapping[str, Any], policy: Policy) -> PolicyObjective:
    """Returns what trains a policy.

    Args:
        settings: the section `agent`: a name and its settings; none, or the name `imitation`, for behaviour cloning.
        policy: the policy.

    Raises:
        UnknownNameError: no such agent.
        ConfigError: a setting is unknown or does not fit, or the agent cannot train this kind of policy.
    """
    own = {name: value for name, value in settings.items() if name != "name"}
    chosen = str(settings.get("name", "imitation"))
    if chosen == "imitation":
        if own:
            known = ", ".join(AGENTS.names())
            raise ConfigError(f"agent: imitation has no settings, but got {', '.join(own)}; name an agent: {known}")
        return Imitation(policy)
    kind: type[Agent] = AGENTS.get(chosen)
    return kind(policy, kind.config_class.from_plain(own))
