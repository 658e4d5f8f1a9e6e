"""A whole policy in one ONNX file, run by onnxruntime or OpenVINO in a process without torch.

From observations in env units to actions in env units, noise as an input: encoder, normalisers and all denoising
steps are in the graph. Inputs are called `obs.<field>` and `noise`, the output `prediction`.

Letters: B batch.
"""

import os
from pathlib import Path
from typing import Any

from diffusion_policy.errors import CheckpointError, ConfigError
from diffusion_policy.policies.chunk import Array, FloatArray
from diffusion_policy.policies.engines.description import KEY, PREFIX, Description
from diffusion_policy.policies.engines.engine_policy import EnginePolicy

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_HINTS = {None: "f32", "float32": "f32", "bfloat16": "bf16"}  # None too: OpenVINO alone would take bfloat16


def load_chunk_policy(path: Path, device: object, precision: str | None) -> EnginePolicy:
    """Returns the policy in an .onnx file.

    Both engines use as many threads as `OMP_NUM_THREADS` says, or one for each core.

    Args:
        path: made by dp-export.
        device: cpu or cuda (onnxruntime), or openvino.
        precision: float32 (None), or bfloat16 (OpenVINO only).

    Raises:
        ConfigError: the engine is not installed, or knows no such device or precision.
        CheckpointError: the file is damaged or was not made by dp-export.
    """
    device = "cpu" if str(device) == "auto" else str(device)
    if device not in ("openvino", *_PROVIDERS):
        raise ConfigError(f"{path}: device must be cpu, cuda or openvino for an ONNX file, but got '{device}'")
    if precision not in _HINTS:
        raise ConfigError(f"precision must be float32 or bfloat16, but got '{precision}'")
    if device == "openvino":
        return _in_openvino(path, _HINTS[precision])
    if precision == "bfloat16":
        raise ConfigError(f"{path}: onnxruntime computes this file in float32; give device=openvino for bfloat16")
    return _in_onnxruntime(path, device)


def _in_onnxruntime(path: Path, device: str) -> EnginePolicy:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ConfigError(f"{path} needs onnxruntime: pip install onnxruntime") from error
    if _PROVIDERS[device] not in onnxruntime.get_available_providers():
        raise ConfigError(f"device={device}: this build of onnxruntime has none; pip install onnxruntime-gpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[_PROVIDERS[device]])
    except Exception as error:  # of its C++ core, by many names
        raise _damaged(path, error) from error
    description = Description.from_json(session.get_modelmeta().custom_metadata_map.get(KEY), path)
    names = _names(description)

    def run(obs: list[Array], noise: FloatArray) -> FloatArray:
        return session.run(None, dict(zip(names, (*obs, noise), strict=True)))[0]  # type: ignore[no-any-return]

    return EnginePolicy(description, run, f"onnxruntime {device} float32")


def _in_openvino(path: Path, hint: str) -> EnginePolicy:
    """Returns the policy; a program for each batch size is compiled when that is first asked for."""
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise ConfigError(f"{path} needs OpenVINO: pip install openvino") from error
    core = openvino.Core()
    try:
        model = core.read_model(path)
    except Exception as error:  # of its C++ core
        raise _damaged(path, error) from error
    place = ["framework", KEY]
    description = Description.from_json(model.get_rt_info(place).value if model.has_rt_info(place) else None, path)
    names, programs = _names(description), dict[int, Any]()

    def run(obs: list[Array], noise: FloatArray) -> FloatArray:
        inputs = dict(zip(names, (*obs, noise), strict=True))
        if len(noise) not in programs:
            fixed = model.clone()
            fixed.reshape({name: list(array.shape) for name, array in inputs.items()})
            programs[len(noise)] = _compiled(core, fixed, hint).create_infer_request()
        return programs[len(noise)].infer(inputs)[0].copy()  # type: ignore[no-any-return]

    return EnginePolicy(description, run, f"openvino {'bfloat16' if hint == 'bf16' else 'float32'}")


def _compiled(core: Any, model: Any, hint: str) -> Any:
    """Returns the program of a model whose shapes are fixed.

    OpenVINO 2026.4 generates no code for Mish at some batch sizes (4, 8) and then fails as a whole; without its code
    generator for chains of small operations it computes the same, a little slower.
    """
    settings = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    if _threads():
        settings["INFERENCE_NUM_THREADS"] = str(_threads())
    try:
        return core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        if "Mish" not in str(error):
            raise
        return core.compile_model(model, "CPU", {**settings, "SNIPPETS_MODE": "DISABLE"})


def _threads() -> int:
    """Returns how many threads to compute with; 0 lets the engine choose."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() else 0


def _names(description: Description) -> list[str]:
    return [*(PREFIX + key for key in description.obs_spec), "noise"]


def _damaged(path: Path, error: Exception) -> CheckpointError:
    first = (str(error).splitlines() or ["no reason given"])[0]
    return CheckpointError(f"{path} is cut short or no ONNX file ({first}); export the policy again")
