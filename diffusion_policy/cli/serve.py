"""dp-serve: a policy for robots elsewhere."""

import asyncio
import gc
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_policy import __version__
from diffusion_policy.cli.command import accept_bare_policy, run_command
from diffusion_policy.cli.deployed import control_hz, deployed_policy, deployed_rules, deployed_strategy, safe_action
from diffusion_policy.errors import ConfigError
from diffusion_policy.settings import build
from diffusion_policy.versions import installed_versions

if TYPE_CHECKING:
    from diffusion_policy.serving.offer import Offer
    from diffusion_policy.serving.server import PolicyServer

_NEEDS = "dp-serve needs {}: pip install 'diffusion-policy[serve]'"


def main() -> int:
    """Runs the command; returns the exit code."""
    accept_bare_policy()
    return run_command("serve", _serve)


def _serve(config: dict[str, Any], _overrides: list[str]) -> int:
    try:
        from diffusion_policy.serving.server import PolicyServer, ServerConfig
    except ModuleNotFoundError as error:
        if error.name not in ("websockets", "msgpack"):
            raise
        raise ConfigError(_NEEDS.format(error.name)) from error
    names = ("host", "port", "token", "max_clients", "max_message_bytes")
    listening = build(ServerConfig, {name: config[name] for name in names}, "serve")  # before a policy is loaded
    offer = _offer(config)
    server = PolicyServer(offer, listening)

    def ready(port: int) -> None:
        host = f"[{listening.host}]" if ":" in listening.host else listening.host
        print(f"serving  {config['checkpoint']} at ws://{host}:{port}, {1 / offer.step_s:g} actions a second; ", end="")
        gc.collect()
        gc.freeze()  # what is there stays: collections that pass it over hold up no answer
        print("Ctrl-C ends", flush=True)

    return asyncio.run(_until_told(server, ready))


def _offer(config: dict[str, Any]) -> "Offer":
    from diffusion_policy.rollout.provenance import file_sha256
    from diffusion_policy.serving.offer import Offer

    checkpoint = Path(str(config["checkpoint"])).expanduser()
    policy = deployed_policy(config)
    return Offer(
        policy=policy,
        step_s=1 / control_hz(config, policy),
        strategy=deployed_strategy(config, policy, config["replan_every"]),
        safety=deployed_rules(config, policy),
        safe_action=safe_action(config, policy),
        about={
            "server": f"diffusion-policy {__version__}",
            "versions": installed_versions(),
            "strategy": str(config["strategy"]),
            "policy": {"file": checkpoint.name, "sha256": file_sha256(checkpoint)},
        },
    )


async def _until_told(server: "PolicyServer", ready: Any) -> int:
    """Returns the exit code: 130 after Ctrl-C, 0 where a supervisor ended the server."""
    stop, codes = asyncio.Event(), [0]

    def end(code: int) -> None:
        codes.append(code)
        stop.set()

    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError):  # Windows: Ctrl-C is a KeyboardInterrupt, which `run_command` knows
        loop.add_signal_handler(signal.SIGINT, end, 130)
        loop.add_signal_handler(signal.SIGTERM, end, 0)
    await server.run(stop, ready)
    return codes[-1]


if __name__ == "__main__":
    sys.exit(main())
