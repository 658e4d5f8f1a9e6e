"""Compiles a policy for this kind of processor: a .pt2 package that torch runs without a compiler.

Two programs are compiled by AOTInductor: observations to the contexts of all denoising steps, and one denoising step.
The sampler's few operations between them stay outside: a program of ten unrolled steps takes ten times as long to
compile, holds its weights ten times, and runs slower for it.

Letters: B batch, To obs_horizon, S denoising steps, F size of a context.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_policy.models.products import PlainProduct
from diffusion_policy.policies.chunk import blank_windows
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy
from diffusion_policy.policies.engines.aoti import CONTEXTS, PROGRAM, STEP, Program, processor, torch_release
from diffusion_policy.policies.engines.description import KEY, Description
from diffusion_policy.policies.engines.eager import check_precision
from diffusion_policy.policies.engines.graph import PolicyGraph
from diffusion_policy.policies.engines.output import quiet, refusing, whole_or_nothing
from diffusion_policy.settings import plain

_OPTIONS = {"aot_inductor.package": True, "freezing": True}


def export_aoti(policy: DiffusionPolicy, path: str | Path, *, batch_size: int = 1, precision: str = "float32") -> None:
    """Writes the policy compiled for this processor and this number of threads; `engines.aoti` runs it.

    Args:
        policy: on the CPU.
        path: ends in .pt2.
        batch_size: rows of every call of the programs; a prediction of other sizes is made in pieces of it.
        precision: of the denoiser's products; see `engines.eager.prepared`.

    Raises:
        ConfigError: there is no C++ compiler, the precision cannot be computed here, or the policy not be exported.
        OutputExistsError: there is such a file.
        StorageError: it cannot be written.
    """
    with quiet():
        from torch.export.pt2_archive._package import package_pt2

    dtype = check_precision(precision, policy)
    program = Program(
        batch_size=batch_size,
        precision=precision,
        threads=torch.get_num_threads(),
        processor=processor(),
        torch=torch_release(),
        diffusion=plain(policy.config.diffusion),
        sampler=plain(policy.config.sampler),
        action_scale=tuple(policy.action_normalizer.scale.tolist()),
        action_offset=tuple(policy.action_normalizer.offset.tolist()),
    )
    with whole_or_nothing(Path(path)) as partial_path, torch.no_grad():
        graph = PolicyGraph(policy, partial(PlainProduct, dtype=dtype))
        obs = tuple(torch.from_numpy(array) for array in blank_windows(policy, batch_size).values())
        x = torch.zeros(batch_size, *policy.noise_shape[-2:])
        with refusing(policy, ".pt2"):
            files: dict[str, Any] = {
                CONTEXTS: _compiled(_Function(graph, graph.contexts), obs),
                STEP: _compiled(graph.denoiser, (x, graph.contexts(*obs)[0].contiguous())),
            }
        said = {KEY: Description.of(policy).to_json(), PROGRAM: json.dumps(plain(program))}
        package_pt2(str(partial_path), aoti_files=files, extra_files=said)


class _Function(nn.Module):
    """A method of a module as what its `forward` does."""

    def __init__(self, module: nn.Module, method: Callable[..., Tensor]) -> None:
        super().__init__()
        self.module, self.method = module, method

    def forward(self, *inputs: Tensor) -> Tensor:
        """Returns what the method returns."""
        return self.method(*inputs)


def _compiled(module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """Returns the files of a module compiled for inputs of exactly these shapes."""
    with quiet():
        program = torch.export.export(module.eval(), inputs)
        return torch._inductor.aot_compile(program.module(), inputs, options=_OPTIONS)
