"""A compiled policy, .pt2: the fastest way to run one on a CPU without other packages than torch and numpy.

The file holds machine code for one kind of processor and one number of threads. Loading it runs that code: load only
what you or somebody you trust has exported.

Letters: B batch, S denoising steps, Tp pred_horizon.
"""

import json
import logging
import platform
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.diffusion.process import DiffusionConfig, DiffusionProcess
from diffusion_policy.diffusion.samplers import Sampler, SamplerConfig
from diffusion_policy.errors import CheckpointError, ConfigError
from diffusion_policy.policies.chunk import Array, FloatArray
from diffusion_policy.policies.engines.description import KEY, Description
from diffusion_policy.policies.engines.engine_policy import EnginePolicy
from diffusion_policy.policies.engines.output import quiet
from diffusion_policy.settings import build

CONTEXTS, STEP = "contexts", "step"
"""The two programs of a package."""
PROGRAM = "program"
"""Under which it holds `Program`, as JSON."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Program:
    """What a package was compiled for, and what happens between its programs.

    Args:
        batch_size: rows of a call.
        precision: of the denoiser's products.
        threads: that compute.
        processor: its architecture and instructions; all of them must be where it runs.
        torch: release that compiled, e.g. "2.13"; another one may have changed what the code calls.
        diffusion: settings of the process.
        sampler: settings of the sampler.
        action_scale: of the normaliser, one number an action's number.
        action_offset: likewise.
    """

    batch_size: int
    precision: str
    threads: int
    processor: tuple[str, ...]
    torch: str
    diffusion: Mapping[str, Any]
    sampler: Mapping[str, Any]
    action_scale: tuple[float, ...]
    action_offset: tuple[float, ...]


def load_chunk_policy(path: Path, device: object, precision: str | None) -> EnginePolicy:
    """Returns the policy in a .pt2 file.

    Args:
        path: made by dp-export.
        device: cpu.
        precision: None, or what it was exported with.

    Raises:
        ConfigError: another device or precision.
        CheckpointError: the file is damaged, was not made by dp-export, or is for another processor.
    """
    if str(device) not in ("cpu", "auto"):
        raise ConfigError(f"{path} is compiled for the CPU: device must be cpu, but got '{device}'")
    description, program = _said(path)
    if precision not in (None, "float32", "bfloat16"):
        raise ConfigError(f"precision must be float32 or bfloat16, but got '{precision}'")
    if precision not in (None, program.precision):
        raise ConfigError(f"{path} computes in {program.precision}, but got precision={precision}; export it again")
    _check_machine(program, path)
    with quiet():
        from torch.export.pt2_archive._package import load_pt2

    try:
        runners = load_pt2(str(path), run_single_threaded=True).aoti_runners
        calls = (runners[CONTEXTS].loader.boxed_run, runners[STEP].loader.boxed_run)
    except Exception as error:  # of the archive's reader, by many names
        raise CheckpointError(f"{path} is cut short or no .pt2 file; export the policy again") from error
    return EnginePolicy(description, _runner(program, description, *calls), f"aoti {program.precision}")


def processor() -> tuple[str, ...]:
    """Returns this machine's architecture and those of its processor's instructions that torch knows."""
    ask: Callable[[], Mapping[str, object]] = getattr(torch.cpu, "get_capabilities", dict)
    known = sorted(name for name, value in ask().items() if value is True)
    return (platform.machine(), torch.backends.cpu.get_cpu_capability(), *known)


def torch_release() -> str:
    """Returns the first two numbers of torch's version."""
    return ".".join(torch.__version__.split(".")[:2])


def _said(path: Path) -> tuple[Description, Program]:
    """Returns what a file says of itself, before any of its code is loaded."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # checksums: a flipped bit of its code would move the robot elsewhere
            said = {name.rpartition("/")[2]: archive.read(name) for name in archive.namelist() if "/extra/" in name}
    except (OSError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is cut short or no .pt2 file; export the policy again") from error
    if broken is not None:
        raise CheckpointError(f"{path} is damaged: {broken} is not what was written; copy it again, or export anew")
    text = said.get(KEY)
    description = Description.from_json(None if text is None else text.decode(), path)
    try:
        return description, build(Program, json.loads(said[PROGRAM]), "program")
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: what it says of its program is damaged; export the policy again") from error


def _check_machine(program: Program, path: Path) -> None:
    missing = sorted(set(program.processor) - set(processor()))
    if missing:
        raise CheckpointError(
            f"{path} was compiled for a processor with {', '.join(missing)}, which this one lacks; export it here"
        )
    if program.torch != torch_release():
        raise CheckpointError(
            f"{path} was compiled by torch {program.torch}, this is {torch_release()}; export it again"
        )
    if torch.get_num_threads() != program.threads:
        logger.warning(
            "%s was compiled for %d threads, which it uses although torch has %d here; for others export it again "
            "with --threads",
            path,
            program.threads,
            torch.get_num_threads(),
        )


def _runner(
    program: Program, description: Description, contexts: Callable[..., Any], step: Callable[..., Any]
) -> Callable[[list[Array], FloatArray], FloatArray]:
    process = DiffusionProcess(build(DiffusionConfig, program.diffusion, "diffusion"))
    sampler = Sampler(process, build(SamplerConfig, program.sampler, "sampler"))
    scale, offset = np.array(program.action_scale, np.float32), np.array(program.action_offset, np.float32)
    shape = description.action_spec.shape

    def piece(obs: list[Tensor], noise: Tensor) -> Tensor:
        """Returns normalised chunks of `batch_size` rows."""
        context = iter(contexts(obs)[0].unbind(0))
        return sampler(lambda x, _: step([x.contiguous(), next(context)])[0], *sampler.split(noise))

    def run(obs: list[Array], noise: FloatArray) -> FloatArray:
        rows = len(noise)
        places = np.arange(-(-rows // program.batch_size) * program.batch_size).reshape(-1, program.batch_size)
        with torch.inference_mode():
            parts = [
                piece([torch.from_numpy(each[place]) for each in obs], torch.from_numpy(noise[place])).numpy()
                for place in np.minimum(places, rows - 1)
            ]
        flat = (np.concatenate(parts)[:rows] - offset) / scale
        return flat.reshape(*flat.shape[:2], *shape)

    return run
