"""Whether a robot gets its actions in time from dp-serve: PushT stepped in real time by a process of its own.

    python benchmarks/closed_loop.py [--minutes 10] [--hz 10 50] [--load idle full first] [--policy policy.pt]

For every rate, idle, with a busy process on each core (full), and with the same while server and robot come first (nice
-10, which needs rights): a server, a robot that steps PushT and asks for an action at each tick, and beside them, as
often, a loop that only sleeps and a bare websocket echo of the same payload. Their rate is 1 % higher: so they meet the
robot and its plans at every phase, and not at the one at which they happened to begin.
Ticks lie on a fixed grid. A miss is an action that is there later than 10 ms after its tick, or none, because the loop
was busy with earlier ones until the next was due; for the sleeping loop, a wake-up as late, or none. On a virtual
machine it is counted, too, in how many of the late ticks the hypervisor kept a processor that was wanted. Where an
answer does not come in time, the robot goes on by the one before (ahead), or is held; as a round trip such a tick
counts as one without end, and shares of round trips that would hold it are not told. Without
--policy, a network of 64/128/256 with random weights plans, DDIM with 10 steps. The server computes with one thread.
The table is kept as JSON, with a picture of the round trips. Runs that are there already stay, of an interrupted
measurement or beside other rates and loads, unless the code, the minutes, the policy or the machine changed.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

SERVE = "import sys; from diffusion_policy.cli.entry import serve; sys.exit(serve())"
LOADS = ("idle", "full", "first")
FIRST = -10
"""Niceness of server and robot under the load called first."""
ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def process(*words: str, reads: bool = False, first: bool = False) -> Iterator["subprocess.Popen[str]"]:
    """Runs a process beside this one, which comes first where cores are busy if it shall, and ends it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE if reads else None, text=True, env=environment
    )
    try:
        if first:  # while it has one thread: later ones inherit it
            os.setpriority(os.PRIO_PROCESS, running.pid, FIRST)
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(30)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def address(server: "subprocess.Popen[str]") -> str:
    """Returns where a server listens, which it prints."""
    assert server.stdout is not None
    line = server.stdout.readline()
    found = re.search(r"(ws://\S+?),", line)
    if found is None:
        raise RuntimeError(f"a server did not start: {line}")
    return found[1]


def measured(policy: Path, hz: float, load: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Returns what a rate under a load came to; arrays are round trips in milliseconds."""
    from diffusion_policy.rollout.provenance import usable_cores

    here, seconds = str(Path(__file__).with_name("closed_loop_parts.py")), 60 * args.minutes
    rules = ("port=0", "safe_action=[256,256]")  # under load the first plan may come when all of it is past
    first = load == "first"
    with ExitStack() as stack:
        words = ("-c", SERVE, str(policy), *rules, f"control_hz={hz:g}")
        server = stack.enter_context(process(*words, reads=True, first=first))
        back = stack.enter_context(process(here, "echo-server", reads=True))
        urls = address(server), address(back)
        for _ in range(0 if load == "idle" else usable_cores()):
            stack.enter_context(process(here, "burn"))
        outs = {name: str(folder / f"{name}-{hz:g}-{load}.npz") for name in ("robot", "sleeper", "echo")}
        parts = [
            stack.enter_context(process(here, *words, first=first and words[0] == "robot"))
            for words in (
                ("robot", urls[0], f"{hz}", f"{seconds}", f"{args.plans}", outs["robot"]),
                ("sleeper", f"{hz}", f"{seconds}", outs["sleeper"]),
                ("echo", urls[1], f"{hz}", f"{seconds}", outs["echo"]),
            )
        ]
        if any(part.wait(seconds + 300 + 10 * args.plans) for part in parts):
            raise RuntimeError("a part of the measurement failed; its message is above")
    found = {name: dict(np.load(out)) for name, out in outs.items()}
    return row(hz, load, seconds, found)


def row(hz: float, load: str, seconds: float, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns a measurement as it is kept; `late_ms` are of the ticks that came, the others were skipped."""
    from benchmarks.closed_loop_parts import due_ticks, missed, missed_stolen

    late, slept, due = found["robot"]["late"], found["sleeper"]["late"], due_ticks(hz, seconds)
    stolen = found["robot"]["stolen"]
    return {
        "hz": hz,
        "load": load,
        "ticks": due,
        "skipped": due - len(late),
        "misses": missed(late, due),
        "misses_stolen": missed_stolen(late, stolen),
        "ticks_stolen": int((stolen > 0).sum()),
        "skipped_of_sleep": due - len(slept),
        "misses_of_sleep": missed(slept, due),
        "late_ms": quantiles(late),
        "late_of_sleep_ms": quantiles(slept),
        "round_trip_ms": quantiles(found["robot"]["trips"]),
        "echo_ms": quantiles(found["echo"]["trips"]),
        "over_inference_ms": quantiles(found["robot"]["over"]),
        **json.loads(str(found["robot"]["counts"])),
        "curves_ms": {
            name: [milliseconds(found[part]["trips"], share) for share in SHARES]
            for name, part in (("round trip", "robot"), ("echo", "echo"))
        },
    }


SHARES = 1 - np.geomspace(1, 1e-4, 60)
"""Of round trips, at which the picture's curves are kept."""


def quantiles(seconds: Any) -> dict[str, float | None]:
    """Returns p50, p99 and the most, in milliseconds; None for what is without end."""
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: milliseconds(seconds, share) for name, share in shares.items()}


def milliseconds(seconds: Any, share: float) -> float | None:
    """Returns the time that a share of times do not pass; None where it is without end."""
    found = 1000 * float(np.quantile(seconds, share, method="higher"))
    return round(found, 4) if np.isfinite(found) else None


def shown(value: float | None) -> str:
    """Returns milliseconds for people."""
    return "-" if value is None else f"{value:.2f}"


def said(each: dict[str, Any]) -> str:
    """Returns a measurement for people."""
    trip, back, over = each["round_trip_ms"], each["echo_ms"], each["over_inference_ms"]
    return (
        f"{each['hz']:g} Hz {each['load']:5} {each['ticks']} ticks: {each['misses']} misses, {each['skipped']} of "
        f"them skipped, {each['misses_stolen']} while the hypervisor kept a processor (as in {each['ticks_stolen']} "
        f"ticks; sleep alone {each['misses_of_sleep']}), ahead {each['ahead']}, held {each['held']}; "
        f"round trip p50 {shown(trip['p50'])} p99 {shown(trip['p99'])} ms, echo {shown(back['p50'])} "
        f"{shown(back['p99'])} ms; over inference p50 {shown(over['p50'])} p99 {shown(over['p99'])} ms"
    )


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws how many round trips are longer than a time, of the server and of the echo."""
    from matplotlib.figure import Figure

    from benchmarks.closed_loop_parts import LATE_S

    rates = sorted({each["hz"] for each in rows})
    loads = [load for load in LOADS if any(each["load"] == load for each in rows)]
    figure = Figure(figsize=(5 * len(loads), 4 * len(rates)), layout="constrained")
    for each in rows:
        place = rates.index(each["hz"]) * len(loads) + loads.index(each["load"])
        axes = figure.add_subplot(len(rates), len(loads), place + 1)
        for (name, curve), colour in zip(each["curves_ms"].items(), ("#0072B2", "#999999"), strict=True):
            axes.loglog(np.array(curve, float), 1 - SHARES, color=colour, label=name)  # None becomes NaN: a gap
        axes.axvline(1000 * LATE_S, color="#D55E00", lw=1)
        missed = f"{each['misses']} of {each['ticks']} missed, sleep alone {each['misses_of_sleep']}"
        axes.set(title=f"{each['hz']:g} Hz, {each['load']}: {missed}", xlabel="ms", ylabel="share longer")
        axes.grid(alpha=0.3)
        axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def random_policy(folder: Path) -> Path:
    """Writes a policy with random weights for PushT."""
    import torch

    from diffusion_policy.config import ActionSpec, ObsField
    from diffusion_policy.policies.diffusion_policy import DiffusionPolicy, DiffusionPolicyConfig

    torch.manual_seed(0)
    config = {
        "horizons": {"obs_horizon": 2, "action_horizon": 8, "pred_horizon": 16},
        "denoiser": {"name": "unet1d", "down_dims": [64, 128, 256], "embed_dim": 256},
        "sampler": {"num_inference_steps": 10},
    }
    obs = {"agent_pos": ObsField("low_dim", (2,)), "keypoints": ObsField("low_dim", (9, 2))}
    made = DiffusionPolicy(DiffusionPolicyConfig.from_plain(config), obs, ActionSpec((2,), low=0.0, high=512.0)).eval()
    made.fit_normalizers(
        {"agent_pos": torch.rand(50, 2) * 512, "keypoints": torch.rand(50, 9, 2) * 512}, torch.rand(50, 2) * 512
    )
    made.save(folder / "policy.pt")
    return folder / "policy.pt"


def runs_of(file: Path, asked: dict[str, Any]) -> dict[tuple[float, str], dict[str, Any]]:
    """Returns the runs of an earlier measurement by rate and load; none where it was of something else."""
    if not file.is_file():
        return {}
    found = json.loads(file.read_text())
    if any(found[name] != asked[name] for name in ("minutes", "policy", "policy_sha256", "commit", "hardware")):
        return {}
    return {(each["hz"], each["load"]): each for each in found["runs"]}


def main() -> int:
    """Returns the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no part is left behind
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of each")
    parser.add_argument("--hz", type=float, nargs="+", default=[10.0, 50.0])
    parser.add_argument("--load", nargs="+", choices=LOADS, default=LOADS)
    parser.add_argument("--plans", type=int, default=100, help="whose round trips are compared with their computation")
    parser.add_argument("--policy", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/closed_loop.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs/closed_loop.png")
    args = parser.parse_args()
    if "first" in args.load:
        try:
            with process("-c", "import time; time.sleep(60)", first=True):
                pass  # known before an hour is spent
        except PermissionError:
            parser.error("--load first needs the right to raise priorities (root); leave it out: --load idle full")
    from benchmarks.closed_loop_parts import LATE_S
    from diffusion_policy.rollout.provenance import commit, file_sha256, hardware
    from diffusion_policy.versions import installed_versions

    found: dict[str, Any] = {"minutes": args.minutes, "late_ms": 1000 * LATE_S}
    found |= {"policy": "64/128/256, random weights, DDIM-10" if args.policy is None else args.policy.name}
    found |= {"policy_sha256": args.policy and file_sha256(args.policy)}
    found |= {"commit": commit(), "versions": installed_versions(), "hardware": hardware()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = args.out.with_suffix(".unfinished.json")
    rows = runs_of(args.out, found) | runs_of(unfinished, found)
    with tempfile.TemporaryDirectory() as name:
        policy = args.policy or random_policy(Path(name))
        for hz in args.hz:
            for load in args.load:
                if (hz, load) not in rows:
                    rows[hz, load] = measured(policy, hz, load, args, Path(name))
                    unfinished.write_text(json.dumps({**found, "runs": list(rows.values())}, indent=2) + "\n")
                print(said(rows[hz, load]), flush=True)
    runs = [rows[key] for key in sorted(rows, key=lambda key: (key[0], LOADS.index(key[1])))]
    args.out.write_text(json.dumps({**found, "runs": runs}, indent=2) + "\n")
    draw(runs, args.picture)
    unfinished.unlink(missing_ok=True)
    print(f"{args.out}\n{args.picture}")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # for benchmarks.closed_loop_parts
    sys.exit(main())
