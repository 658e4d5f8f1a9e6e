"""Configuration: every task and preset composes, and the published settings stay published."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from diffusion_policy import compose_config
from diffusion_policy.agents.agent import AGENTS
from diffusion_policy.agents.library import make_objective
from diffusion_policy.agents.objective import Imitation
from diffusion_policy.augment.model_file import make_model
from diffusion_policy.augment.transitions import Columns
from diffusion_policy.benchmark.suite import Suite
from diffusion_policy.config import action_spec_from, obs_spec_from
from diffusion_policy.diffusion.edm import Churn, EdmConfig
from diffusion_policy.paths import config_dir
from diffusion_policy.policies.kinds import POLICIES
from diffusion_policy.policies.library import POLICY_SECTIONS, make_policy
from diffusion_policy.settings import plain
from diffusion_policy.training.augmenting.run import MODEL_SECTIONS

PRESETS = sorted(file.stem for file in (config_dir() / "preset").glob("*.yaml"))
POLICY_FILES = sorted(file.stem for file in (config_dir() / "policy").glob("*.yaml"))
AGENT_FILES = sorted(
    str(file.relative_to(config_dir() / "agent").with_suffix("")) for file in (config_dir() / "agent").rglob("*.yaml")
)
TASKS = sorted(file.stem for file in (config_dir() / "task").glob("*.yaml"))


def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", [*overrides, "choice=null"])
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return plain  # type: ignore[return-value]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("task", TASKS)
def test_every_task_and_preset_makes_a_policy(task: str, preset: str) -> None:
    network = {"best": "denoiser.member.down_dims", "offline": "denoiser.hidden_dims"}.get(preset, "denoiser.down_dims")
    config = composed(f"task={task}", f"preset={preset}", f"{network}=[16,16,16]")
    sections = {name: config[name] for name in POLICY_SECTIONS}
    make_policy(sections, obs_spec_from(config["obs"]), action_spec_from(config["action"]))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("policy", POLICY_FILES)
def test_every_kind_of_policy_is_made_for_every_task(task: str, policy: str) -> None:
    config = composed(f"task={task}", f"policy={policy}")
    made = make_policy(
        {name: config[name] for name in POLICY_SECTIONS},
        obs_spec_from(config["obs"]),
        action_spec_from(config["action"]),
    )
    assert made.kind == policy.removesuffix("_step")


def test_every_registered_kind_of_policy_has_a_file() -> None:
    assert {name.removesuffix("_step") for name in POLICY_FILES} == set(POLICIES)


@pytest.mark.parametrize("file", sorted((config_dir() / "suite").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_cell_of_every_suite_makes_a_policy(file: Path) -> None:
    suite = Suite.from_plain(yaml.safe_load(file.read_text()))
    for cell in (each for each in suite.cells() if each.seed == suite.seeds[0]):
        config = composed(*suite.words(cell))
        sections = {name: config[name] for name in POLICY_SECTIONS}
        make_policy(sections, obs_spec_from(config["obs"]), action_spec_from(config["action"]))


def test_transformer_goes_with_any_task() -> None:
    config = composed("task=detour", "denoiser=transformer", "encoder.hidden_dims=[]")
    sections = {name: config[name] for name in POLICY_SECTIONS}
    made = make_policy(sections, obs_spec_from(config["obs"]), action_spec_from(config["action"]))
    assert made.denoiser.obs_tokens == made.horizons.obs_horizon  # type: ignore[union-attr]


@pytest.mark.parametrize("preset", PRESETS)
def test_groups_on_the_command_line_win_over_every_preset(preset: str) -> None:
    assert composed(f"preset={preset}", "sampler=dpmpp_2m")["sampler"]["name"] == "dpmpp_2m"
    assert composed(f"preset={preset}", "sampler.num_inference_steps=7")["sampler"]["num_inference_steps"] == 7
    assert composed(f"preset={preset}", "denoiser=unet1d")["denoiser"]["down_dims"] == [256, 512, 1024]


def test_paper_preset_is_the_published_push_t_state_setting() -> None:
    config = composed("preset=paper")
    assert config["horizons"] == {"obs_horizon": 2, "action_horizon": 8, "pred_horizon": 16}
    assert config["denoiser"] == {
        "name": "unet1d", "down_dims": [256, 512, 1024], "kernel_size": 5, "n_groups": 8, "embed_dim": 256,
        "cond_predict_scale": True,
    }  # fmt: skip
    process = config["diffusion"]
    assert (process["num_train_timesteps"], process["beta_schedule"]) == (100, "squaredcos_cap_v2")
    assert (process["prediction_type"], process["variance_type"]) == ("epsilon", "fixed_small")
    assert process["clip_sample"] is True
    assert (config["sampler"]["name"], config["sampler"]["num_inference_steps"]) == ("ddpm", 100)
    assert config["optim"] == {
        "lr": 1e-4, "betas": [0.95, 0.999], "weight_decay": 1e-6, "warmup_steps": 500, "lr_schedule": "cosine",
        "grad_clip": None,
    }  # fmt: skip
    training = config["training"]
    assert (training["num_grad_steps"], training["num_epochs"], training["batch_size"]) == (None, 4500, 256)
    assert (training["ema_power"], training["ema_max"]) == (0.75, 0.9999)
    assert config["normalization"] == {"obs": "limits", "action": "limits"}
    assert (config["data"]["episodes"], config["data"]["val_ratio"], config["seed"]) == (90, 0.02, 42)
    assert (config["data"]["mirror"], config["encoder"]["hidden_dims"]) == (False, [])


def test_paper_preset_on_pictures_is_the_published_push_t_image_setting() -> None:
    """ResNet-18 on a crop of 84 of 96 pixels, a wider U-Net, smaller batches; the rest as with states."""
    state, config = composed("preset=paper"), composed("preset=paper", "task=pusht_image")
    assert config["encoder"] == {
        "hidden_dims": [], "types": {"rgb": {"name": "resnet18", "crop": [84, 84]}}, "fields": {},
    }  # fmt: skip
    assert config["obs"]["image"] == {"type": "rgb", "shape": [96, 96, 3]}
    assert config["denoiser"] == {**state["denoiser"], "down_dims": [512, 1024, 2048], "embed_dim": 128}
    assert config["training"] == {**state["training"], "num_epochs": 3050, "batch_size": 64}
    same = set(state) - {"encoder", "denoiser", "training", "task", "obs", "env", "dataset", "collect", "published"}
    assert all(config[name] == state[name] for name in same)


def test_what_is_tuned_for_a_task_and_a_preset_gives_way_to_the_command_line() -> None:
    config = composed("preset=paper", "task=pusht_image", "training.batch_size=32", "denoiser=unet1d_small")
    assert config["training"]["batch_size"] == 32
    assert config["denoiser"]["down_dims"] == [48, 96, 192]
    assert composed("preset=quick", "task=pusht_image")["training"]["num_grad_steps"] == 6000  # nothing is tuned there


def test_configuration_holds_no_class_paths() -> None:
    for file in Path(config_dir()).rglob("*.yaml"):
        assert "_target_" not in file.read_text(), file


@pytest.mark.parametrize("task", ["hopper", "pusht"])
@pytest.mark.parametrize("agent", AGENT_FILES)
def test_every_agent_is_made_for_single_actions_and_for_chunks(agent: str, task: str) -> None:
    config = composed(f"task={task}", f"preset={'offline' if task == 'hopper' else 'fast'}", f"agent={agent}")
    sections = {name: config[name] for name in POLICY_SECTIONS}
    policy = make_policy(sections, obs_spec_from(config["obs"]), action_spec_from(config["action"]))
    made = make_objective(config["agent"], policy)
    assert (agent == "imitation") == (type(made) is Imitation)
    optim, training = config["optim"], config["training"]
    assert optim["lr"] > 0
    assert training["num_grad_steps"] > 0


def test_every_registered_agent_has_a_file() -> None:
    named = {composed(f"agent={agent}")["agent"]["name"] for agent in AGENT_FILES}
    assert named == {"imitation", *AGENTS}


def augmented(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return OmegaConf.to_container(compose("augment", list(overrides)), resolve=True)  # type: ignore[return-value]


@pytest.mark.parametrize("name", sorted(file.stem for file in (config_dir() / "augment").glob("*.yaml")))
def test_every_augmenter_is_made_from_its_file(name: str) -> None:
    config = augmented(f"augment={name}", "model.width=16")
    sections = {part: config[part] for part in MODEL_SECTIONS}
    made = make_model(config["augmenter"], sections, Columns({"observation": (3,)}, (1,)))
    assert made.plain_config()["edm"] == config["edm"]


def test_published_settings_of_synther_stay_published() -> None:
    """Lu et al. 2023, appendix B, and their code."""
    config = augmented("augment=synther_paper")
    assert config["model"] == {"width": 2048, "blocks": 6, "embed_dim": 128, "fourier_dim": 16}
    assert config["edm"] == plain(EdmConfig())
    assert config["sampling"]["steps"] == 128
    assert config["sampling"]["churn"] == plain(Churn()) == {
        "amount": 80.0, "sigma_min": 0.05, "sigma_max": 50.0, "noise": 1.003
    }  # fmt: skip
    assert config["optim"]["lr"] == 3e-4
    assert config["optim"]["betas"] == [0.9, 0.99]
    assert config["optim"]["grad_clip"] == 1.0
    assert config["training"]["num_grad_steps"] == 100_000
    assert config["training"]["batch_size"] == 256
    assert config["training"]["ema_max"] ** 10 == pytest.approx(0.995, abs=1e-4)  # theirs at every tenth step


def online(*overrides: str) -> dict[str, Any]:
    return compose_config("online", "env=Pendulum-v1", "out=runs/a", *overrides)


@pytest.mark.parametrize("name", sorted(file.stem for file in (config_dir() / "online").glob("*.yaml")))
def test_every_online_preset_is_one_of_the_library(name: str) -> None:
    pytest.importorskip("stable_baselines3", reason="needs stable-baselines3, of the extra online")
    from diffusion_policy.online import PAPER, RefitConfig
    from diffusion_policy.online.config import parts_of

    assert parts_of(online(f"online={name}")).refit == {"fast": RefitConfig(), "paper": PAPER}[name]


def test_published_settings_of_online_synther_stay_published() -> None:
    """Lu et al. 2023, section 4.2, and their code."""
    config = online("online=paper")
    assert (config["refit_every"], config["training"]["num_grad_steps"]) == (10_000, 100_000)
    assert (config["update_ratio"], config["synthetic_ratio"]) == (20, 0.5)
    assert (config["sac"]["hidden_dims"], config["sac"]["batch_size"]) == ([256, 256], 256)
    assert config["sac"]["learning_starts"] == 5000
    assert config["model"] == {"width": 1024, "blocks": 6, "embed_dim": 256, "fourier_dim": 16}
    assert config["edm"] == plain(EdmConfig())
    assert config["training"]["ema_max"] ** 10 == pytest.approx(0.995, abs=1e-4)  # theirs at every tenth step
