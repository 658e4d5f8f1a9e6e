"""Writes a whole policy as one ONNX file: encoder, normalisers and all denoising steps, noise as an input.

torch's exporter takes minutes for a network unrolled over ten denoising steps. So the network is exported once, the
policy around it with a placeholder for each step, and copies of the network's nodes take the places: its weights are
in the file once.

Letters: B batch, To obs_horizon.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_policy.errors import ConfigError
from diffusion_policy.models.denoiser import Prepared
from diffusion_policy.policies.chunk import blank_windows
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy
from diffusion_policy.policies.engines.description import KEY, PREFIX, Description
from diffusion_policy.policies.engines.graph import PolicyGraph
from diffusion_policy.policies.engines.output import quiet, refusing, whole_or_nothing

OPSET = 20
_LARGEST_BATCH = 4096
_DOMAIN, _PLACE = "diffusion_policy", "Denoise"


def export_onnx(policy: DiffusionPolicy, path: str | Path) -> None:
    """Writes the policy as an ONNX file for any batch size; `engines.onnx` runs it.

    Inputs are called `obs.<field>` and `noise`, the output `prediction`.

    Args:
        policy: on the CPU.
        path: ends in .onnx.

    Raises:
        ConfigError: a package that export needs is missing, or the policy cannot be exported.
        OutputExistsError: there is such a file.
        StorageError: it cannot be written.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError("export to ONNX needs onnx and onnxscript: pip install 'diffusion-policy[onnx]'") from error
    with whole_or_nothing(Path(path)) as partial, torch.no_grad():
        graph = PolicyGraph(policy)
        obs = [torch.from_numpy(array) for array in blank_windows(policy, 2).values()]
        noise = torch.zeros(2, *policy.noise_shape)
        step_inputs = (noise.reshape(-1, *policy.noise_shape[-2:])[:2], graph.contexts(*obs)[0])
        with refusing(policy, ".onnx"):
            step = _exported(graph.denoiser, step_inputs, ["x", "context"], "out")
            graph.denoiser = _Place(graph.denoiser)
            names = [*(PREFIX + key for key in policy.obs_spec), "noise"]
            model = _exported(graph, (*obs, noise), names, "prediction")
        _fill(model, step.graph)
        entry = model.metadata_props.add()
        entry.key, entry.value = KEY, Description.of(policy).to_json()
        onnx.save(model, str(partial))


class _Place(Prepared):
    """A prepared denoiser without its network."""

    def __init__(self, denoiser: Prepared) -> None:
        super().__init__()
        self.denoiser = denoiser

    def contexts(self, cond: Tensor) -> Tensor:
        """Returns (S, B, F)."""
        return self.denoiser.contexts(cond)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Returns the placeholder, (B, Tp, Da)."""
        return torch.onnx.ops.symbolic(f"{_DOMAIN}::{_PLACE}", (x, context), dtype=x.dtype, shape=x.shape, version=1)


def _exported(module: nn.Module, inputs: tuple[Tensor, ...], names: Sequence[str], output: str) -> Any:
    """Returns the ONNX model of a module whose inputs all begin with the batch."""
    rows = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
    shapes: Any = tuple({0: rows} for _ in inputs)
    with quiet():
        program = torch.onnx.export(
            module.eval(),
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(names),
            output_names=[output],
            dynamic_shapes=(shapes,) if isinstance(module, PolicyGraph) else shapes,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _fill(model: Any, step: Any) -> None:
    """Puts a copy of the nodes of the graph `step` into each place of a model; weights are shared."""
    graph = model.graph
    shared = {weight.name: f"denoiser.{weight.name}" for weight in step.initializer}
    for weight in step.initializer:
        graph.initializer.add().CopyFrom(weight)
        graph.initializer[-1].name = shared[weight.name]
    nodes, count = list(graph.node), 0
    del graph.node[:]
    for node in nodes:
        if node.domain != _DOMAIN or node.op_type != _PLACE:
            graph.node.add().CopyFrom(node)
            continue
        known = {"": "", **shared, step.output[0].name: node.output[0]}
        known |= {given.name: name for given, name in zip(step.input, node.input, strict=True)}
        for inner in step.node:
            copy = graph.node.add()
            copy.CopyFrom(inner)
            copy.name = f"step{count}.{inner.name}"
            copy.input[:] = [known.get(name, f"step{count}.{name}") for name in inner.input]
            copy.output[:] = [known.get(name, f"step{count}.{name}") for name in inner.output]
        for value in step.value_info:  # shapes: without them onnxruntime takes seconds to find them
            if value.name not in known:
                graph.value_info.add().CopyFrom(value)
                graph.value_info[-1].name = f"step{count}.{value.name}"
        count += 1
    assert count, "no denoising step was exported"
    kept = [domain for domain in model.opset_import if domain.domain != _DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)
