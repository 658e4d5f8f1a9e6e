"""Every engine answers as the policy that was trained: same observations, same noise, same actions."""

import json
import logging
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from diffusion_policy.config import ActionSpec, ObsField
from diffusion_policy.errors import CheckpointError, ConfigError, ObservationError, OutputExistsError
from diffusion_policy.models.denoiser import BACKBONES
from diffusion_policy.models.unet1d import ConditionalUnet1D
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy, DiffusionPolicyConfig
from diffusion_policy.policies.engines.eager import prepared
from diffusion_policy.policies.engines.parity import largest_difference, random_windows

TINY = {"name": "unet1d", "down_dims": [16, 32], "embed_dim": 16}
FLOAT32 = 1e-5  # normalised actions


def make_policy(*, pictures: bool = False, **settings) -> DiffusionPolicy:
    torch.manual_seed(0)
    obs_spec = {"agent_pos": ObsField("low_dim", (2,)), "points": ObsField("low_dim", (3, 2))}
    if pictures:
        obs_spec["image"] = ObsField("rgb", (24, 24, 3))
    plain = {
        "horizons": {"obs_horizon": 2, "action_horizon": 4, "pred_horizon": 8},
        "denoiser": TINY,
        "encoder": {"hidden_dims": [16], "types": {"rgb": {"name": "cnn_small"}}},
        "sampler": {"num_inference_steps": 3},
        **settings,
    }
    policy = DiffusionPolicy(DiffusionPolicyConfig.from_plain(plain), obs_spec, ActionSpec((2,)))
    policy.fit_normalizers(
        {"agent_pos": 100 * torch.rand(50, 2), "points": 7 * torch.randn(50, 3, 2)}, 300 * torch.rand(50, 2)
    )
    return policy.eval()


@pytest.mark.parametrize(
    "sampler",
    [
        {"name": "ddim", "num_inference_steps": 10},
        {"name": "ddim", "num_inference_steps": 4, "eta": 0.5},
        {"name": "ddpm", "num_inference_steps": 5},
        {"name": "dpmpp_2m", "num_inference_steps": 5},
        {"name": "heun", "num_inference_steps": 4},
        {"name": "diffusers", "num_inference_steps": 5, "scheduler": "DDIMScheduler"},
    ],
    ids=lambda sampler: sampler["name"],
)
def test_eager_answers_as_the_policy_with_every_sampler(sampler) -> None:
    policy = make_policy(sampler=sampler)
    assert largest_difference(policy, prepared(policy)) <= FLOAT32


@pytest.mark.parametrize(
    "settings",
    [
        {"denoiser": {**TINY, "cond_predict_scale": False, "activation": "silu"}},
        {"denoiser": {"name": "ensemble", "member": TINY, "members": 2, "hidden_dims": [12]}},
        {"pictures": True},
    ],
    ids=["bias only", "ensemble", "pictures"],
)
def test_eager_answers_as_every_kind_of_policy(settings) -> None:
    policy = make_policy(**settings)
    assert largest_difference(policy, prepared(policy)) <= FLOAT32


def test_eager_answers_as_the_published_network_of_65_million() -> None:
    policy = make_policy(denoiser={"name": "unet1d"}, sampler={"num_inference_steps": 10})
    assert sum(parameter.numel() for parameter in policy.denoiser.parameters()) > 60_000_000
    assert largest_difference(policy, prepared(policy), rows=1) <= 1e-4


def test_eager_runs_a_backbone_it_knows_nothing_of() -> None:
    class Mine(nn.Module):
        def __init__(self, *, action_dim, cond_dim, pred_horizon) -> None:
            super().__init__()
            self.net = nn.Linear(action_dim + cond_dim + 1, action_dim)

        def forward(self, x, t, cond):
            rest = torch.cat((cond, t[:, None].float()), dim=-1)[:, None].expand(-1, x.shape[1], -1)
            return self.net(torch.cat((x, rest), dim=-1))

    BACKBONES.register("mine_for_engines")(Mine)
    policy = make_policy(denoiser={"name": "mine_for_engines"})
    assert largest_difference(policy, prepared(policy)) <= FLOAT32


def test_eager_calls_a_network_derived_from_ours_as_it_is() -> None:
    @BACKBONES.register("derived_for_engines")
    class Derived(ConditionalUnet1D):
        def forward(self, x, t, cond):
            return x + super().forward(x, t, cond)

    policy = make_policy(denoiser={**TINY, "name": "derived_for_engines"})
    assert largest_difference(policy, prepared(policy)) <= FLOAT32
    with pytest.raises(ConfigError, match="bfloat16"):
        prepared(policy, "bfloat16")


def test_eager_in_bfloat16_is_near_and_not_equal() -> None:
    policy = make_policy()
    try:
        engine = prepared(policy, "bfloat16")
    except ConfigError:
        pytest.skip("this processor has no instructions for bfloat16")
    assert 1e-4 < largest_difference(policy, engine) < 0.1


def test_parity_sees_another_network() -> None:
    policy, other = make_policy(), make_policy()
    with torch.no_grad():
        other.denoiser.final_conv[1].bias.add_(0.01)
    assert largest_difference(policy, prepared(other)) > 100 * FLOAT32


def test_engine_refuses_what_the_policy_refuses() -> None:
    engine = prepared(make_policy())
    good = random_windows(make_policy(), 2, np.random.default_rng(0))
    with pytest.raises(ObservationError, match="points"):
        engine.predict({"agent_pos": good["agent_pos"]})
    with pytest.raises(ObservationError, match="obs_horizon"):
        engine.predict({**good, "points": good["points"][:, :1]})
    with pytest.raises(ObservationError, match="noise must be"):
        engine.predict(good, np.zeros((2, 8, 3), np.float32))
    with pytest.raises(ConfigError, match="float16"):
        prepared(make_policy(), "float16")


def test_engine_draws_its_own_noise_when_none_is_given() -> None:
    engine = prepared(make_policy())
    obs = random_windows(make_policy(), 2, np.random.default_rng(0))
    assert np.abs(engine.predict(obs).prediction - engine.predict(obs).prediction).max() > 0


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory) -> tuple[DiffusionPolicy, Path]:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    from diffusion_policy.policies.engines.export_onnx import export_onnx

    policy, path = make_policy(pictures=True), tmp_path_factory.mktemp("onnx") / "policy.onnx"
    export_onnx(policy, path)
    return policy, path


@pytest.mark.parametrize(("device", "package"), [("cpu", "onnxruntime"), ("openvino", "openvino")])
def test_onnx_answers_as_the_policy_for_any_batch(onnx_file, device: str, package: str) -> None:
    pytest.importorskip(package)
    policy, path = onnx_file
    engine = RecedingHorizonController.load(path, device=device).policy
    for rows in (1, 4, 5):
        assert largest_difference(policy, engine, rows=rows) <= FLOAT32


@pytest.mark.parametrize(("device", "package"), [("cpu", "onnxruntime"), ("openvino", "openvino")])
def test_onnx_runs_in_a_process_without_torch(onnx_file, device: str, package: str) -> None:
    pytest.importorskip(package)
    policy, path = onnx_file
    script = f"""
import sys
sys.modules["torch"] = None  # importing it fails
import numpy as np
from diffusion_policy import RecedingHorizonController
controller = RecedingHorizonController.load({str(path)!r}, device={device!r}, seeds=0)
obs = {{"agent_pos": np.ones(2), "points": np.ones((3, 2)), "image": np.full((24, 24, 3), 9, np.uint8)}}
print(*controller.act(obs))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    here = RecedingHorizonController(policy, seeds=0)
    obs = {"agent_pos": np.ones(2), "points": np.ones((3, 2)), "image": np.full((24, 24, 3), 9, np.uint8)}
    np.testing.assert_allclose([float(word) for word in done.stdout.split()], here.act(obs), atol=1e-2)


def test_onnx_holds_the_weights_of_all_steps_once(onnx_file) -> None:
    import onnx

    policy, path = onnx_file
    stored = sum(int(np.prod(weight.dims)) for weight in onnx.load(path).graph.initializer)
    numbers = sum(parameter.numel() for parameter in policy.parameters())
    assert stored < 1.2 * numbers


def test_damaged_and_foreign_onnx_files_are_refused(onnx_file, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    import onnx

    _, path = onnx_file
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cut short"):
        RecedingHorizonController.load(cut)
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(CheckpointError, match="lacks a description"):
        RecedingHorizonController.load(tmp_path / "foreign.onnx")
    with pytest.raises(ConfigError, match="openvino"):
        RecedingHorizonController.load(path, device="tpu")
    with pytest.raises(ConfigError, match="bfloat16"):
        RecedingHorizonController.load(path, precision="bfloat16")


@pytest.fixture(scope="module")
def compiled_file(tmp_path_factory) -> tuple[DiffusionPolicy, Path]:
    from diffusion_policy.policies.engines.export_aoti import export_aoti

    policy = make_policy(pictures=True, sampler={"name": "ddim", "num_inference_steps": 3, "eta": 0.5})
    path = tmp_path_factory.mktemp("aoti") / "policy.pt2"
    try:
        export_aoti(policy, path, batch_size=2)
    except ConfigError as error:
        pytest.skip(str(error))
    return policy, path


def test_compiled_policy_answers_as_the_policy_for_any_batch(compiled_file) -> None:
    policy, path = compiled_file
    engine = RecedingHorizonController.load(path).policy
    for rows in (1, 2, 5):
        assert largest_difference(policy, engine, rows=rows) <= FLOAT32


def test_compiled_policy_says_where_it_does_not_fit(compiled_file, tmp_path: Path, caplog) -> None:
    _, path = compiled_file
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with caplog.at_level(logging.WARNING):
            RecedingHorizonController.load(path)
    finally:
        torch.set_num_threads(threads)
    assert "threads" in caplog.text
    with pytest.raises(ConfigError, match="float32"):
        RecedingHorizonController.load(path, precision="bfloat16")
    with pytest.raises(ConfigError, match="cpu"):
        RecedingHorizonController.load(path, device="cuda")
    cut = tmp_path / "cut.pt2"
    cut.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cut short"):
        RecedingHorizonController.load(cut)
    with pytest.raises(ConfigError, match="float32 or bfloat16"):
        RecedingHorizonController.load(path, precision="int8")


def test_compiled_policy_with_a_flipped_bit_is_refused(compiled_file, tmp_path: Path) -> None:
    content = bytearray(compiled_file[1].read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "flipped.pt2").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged: \S+ is not what was written"):
        RecedingHorizonController.load(tmp_path / "flipped.pt2")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [({"processor": ["riscv64", "VECTOR"]}, "riscv64"), ({"torch": "1.0"}, "torch 1.0"), (None, "damaged")],
)
def test_package_for_another_machine_is_refused_before_its_code_is_loaded(
    compiled_file, tmp_path: Path, changed, expected
) -> None:
    _, path = compiled_file
    other = tmp_path / "other.pt2"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("extra/program"):
                content = json.dumps({**json.loads(content), **changed} if changed else {}).encode()
            target.writestr(name, b"no code" if name.endswith(".so") else content)
    with pytest.raises(CheckpointError, match=expected):
        RecedingHorizonController.load(other)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"sampler": {"name": "heun", "num_inference_steps": 3}},
        {"sampler": {"name": "ddpm", "num_inference_steps": 4}},
        {"denoiser": {"name": "ensemble", "member": TINY, "members": 2, "hidden_dims": [12]}},
    ],
    ids=["heun", "ddpm", "ensemble"],
)
def test_exports_of_every_kind_of_policy_answer_as_it_does(settings, tmp_path: Path) -> None:
    from diffusion_policy.policies.engines.export_aoti import export_aoti
    from diffusion_policy.policies.engines.export_onnx import export_onnx

    policy = make_policy(**settings)
    export_aoti(policy, tmp_path / "policy.pt2")
    export_onnx(policy, tmp_path / "policy.onnx")
    for name in ("policy.pt2", "policy.onnx"):
        engine = RecedingHorizonController.load(tmp_path / name).policy
        assert largest_difference(policy, engine) <= FLOAT32


def test_policy_that_torch_cannot_export_is_refused_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from diffusion_policy.policies.engines.export_onnx import export_onnx

    policy = make_policy(sampler={"name": "diffusers", "scheduler": "DDIMScheduler", "num_inference_steps": 2})
    with pytest.raises(ConfigError, match="sampler diffusers") as refused:
        export_onnx(policy, tmp_path / "policy.onnx")
    assert len(str(refused.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_exports_never_write_over_a_file(tmp_path: Path) -> None:
    from diffusion_policy.policies.engines.export_aoti import export_aoti

    path = tmp_path / "policy.pt2"
    path.write_text("mine")
    with pytest.raises(OutputExistsError):
        export_aoti(make_policy(), path)
    assert path.read_text() == "mine"
