"""A compiled policy, .pt2: the fastest way to run one on a CPU without other packages than torch and numpy.

The file holds machine code for one kind of processor and one number of threads. Loading it runs that code: load only
what you or somebody you trust has exported.

Letters: B batch, S denoising steps, Tp pred_horizon.
"""

import json
import logging
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

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Program:
    """What a package was compiled for, and what happens between its programs.

    Args:
        batch_size: rows of a call.
        precision: of the denoiser's products.
        threads: that compute.
        processor: torch's name of its instructions, e.g. "AVX512".
        torch: version that compiled.
        diffusion: settings of the process.
        sampler: settings of the sampler.
        action_scale: of the normaliser, one number an action's number.
        action_offset: likewise.
    """

    batch_size: int
    precision: str
    threads: int
    processor: str
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
    with quiet():
        from torch.export.pt2_archive._package import load_pt2

    if str(device) not in ("cpu", "auto"):
        raise ConfigError(f"{path} is compiled for the CPU: device must be cpu, but got '{device}'")
    try:
        content = load_pt2(str(path), run_single_threaded=True)
    except Exception as error:  # of the archive's reader, by many names
        raise CheckpointError(f"{path} is cut short or no .pt2 file; export the policy again") from error
    said: dict[str, str] = content.extra_files
    description = Description.from_json(said.get(KEY), path)
    program = build(Program, json.loads(said["program"]), "program")
    if precision not in (None, program.precision):
        raise ConfigError(f"{path} computes in {program.precision}, but got precision={precision}; export it again")
    _check_machine(program, path)
    runners = content.aoti_runners
    run = _runner(program, description, runners[CONTEXTS].loader.boxed_run, runners[STEP].loader.boxed_run)
    return EnginePolicy(description, run, f"aoti {program.precision}")


def _check_machine(program: Program, path: Path) -> None:
    here = torch.backends.cpu.get_cpu_capability()
    if here != program.processor:
        raise CheckpointError(
            f"{path} was compiled for processors with {program.processor}, this one has {here}; export it here"
        )
    if torch.get_num_threads() != program.threads:
        _log.warning(
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
