"""Encoders of pictures: where things are, whose weights, and any other field one registration away."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion_policy.config import ObsField
from diffusion_policy.diffusion.ema import EMA
from diffusion_policy.errors import CheckpointError, ConfigError, MissingFileError, UnknownNameError
from diffusion_policy.models.field_encoder import FieldEncoder, register_field_encoder
from diffusion_policy.models.observation import EncoderConfig, ObservationEncoder
from diffusion_policy.models.resnet import ResNet18
from diffusion_policy.models.vision import SpatialSoftmax

FRONT, WRIST = ObsField("rgb", (48, 64, 3)), ObsField("rgb", (40, 40, 3))
STATE = ObsField("low_dim", (5,))
SPEC = {"front": FRONT, "wrist": WRIST, "state": STATE}


def observation(batch: int = 2, spec: dict[str, ObsField] = SPEC) -> dict[str, Tensor]:
    def draw(field: ObsField) -> Tensor:
        shape = (batch, 2, *field.shape)
        return torch.randint(256, shape, dtype=torch.uint8) if field.type == "rgb" else torch.randn(shape)

    return {key: draw(field) for key, field in spec.items()}


def encoder(**types: Any) -> ObservationEncoder:
    torch.manual_seed(0)
    return ObservationEncoder(SPEC, 2, EncoderConfig(types=types))


def test_spatial_softmax_finds_the_bright_spot() -> None:
    pool = SpatialSoftmax(1, 1)
    nn.init.ones_(pool.to_keypoints.weight)
    x = torch.zeros(3, 1, 5, 9)
    for i, (row, column) in enumerate([(0, 0), (2, 4), (4, 6)]):
        x[i, 0, row, column] = 100.0
    torch.testing.assert_close(pool(x), torch.tensor([[-1.0, -1.0], [0.0, 0.0], [0.5, 1.0]]))


def test_spatial_softmax_moves_with_the_picture() -> None:
    """A small shift of a smooth bump moves the keypoint by exactly as much: what a pose needs."""
    torch.manual_seed(0)
    pool = SpatialSoftmax(1, 4)
    nn.init.constant_(pool.to_keypoints.weight, 30.0)
    grid = torch.arange(33.0)

    def bump(at: float) -> Tensor:
        return torch.exp(-((grid[:, None] - 16) ** 2 + (grid - at) ** 2) / 8)[None, None]

    moved = pool(bump(17.0)) - pool(bump(16.0))
    torch.testing.assert_close(moved[:, :4], torch.full((1, 4), 2 / 32), atol=2e-3, rtol=0)
    torch.testing.assert_close(moved[:, 4:], torch.zeros(1, 4), atol=1e-4, rtol=0)


def test_cameras_of_different_sizes_join_numbers_in_one_condition() -> None:
    made = encoder(rgb={"feature_dim": 10})
    assert made.cond_dim == 2 * (10 + 10 + 5)
    assert made(observation()).shape == (2, 50)
    assert made.raw_keys == {"front", "wrist"}


@pytest.mark.parametrize("name", ["cnn_small", "resnet18"])
def test_encoder_learns_averages_and_gives_the_same_for_one_as_for_many(name: str) -> None:
    made = encoder(rgb={"name": name, "crop": 0.9}).eval()
    EMA(made)  # refuses running statistics
    obs = observation(3)
    together = made(obs)
    for i in range(3):
        alone = made({key: value[i : i + 1] for key, value in obs.items()})
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=1e-5)
    together.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.parameters())


def test_weights_are_separate_unless_shared() -> None:
    def count(**settings: Any) -> int:
        return sum(p.numel() for p in encoder(rgb=settings).parameters())

    assert count() == 2 * count(share=True)
    shared = encoder(rgb={"share": True})
    first, second = (each.network for each in list(shared.encoders)[:2])  # type: ignore[union-attr]
    assert first is second
    assert shared(observation()).shape == (2, shared.cond_dim)
    separate = encoder(rgb={})
    separate.load_state_dict(shared.state_dict())  # a file has the weights under both names
    obs = observation()
    torch.testing.assert_close(separate.eval()(obs), shared.eval()(obs))


def test_shared_weights_that_cannot_be_shared_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"obs\.wrist: fields that share weights must agree"):
        ObservationEncoder(SPEC, 2, EncoderConfig(types={"rgb": {"share": True}}, fields={"wrist": {"feature_dim": 9}}))
    spec = {"a": STATE, "b": STATE}
    with pytest.raises(ConfigError, match=r"obs\.b: FlattenEncoder has no weights to share"):
        ObservationEncoder(spec, 2, EncoderConfig(types={"low_dim": {"share": True}}))


def test_settings_of_a_field_go_over_those_of_its_type() -> None:
    config = EncoderConfig(types={"rgb": {"feature_dim": 8}}, fields={"wrist": {"name": "resnet18"}})
    made = ObservationEncoder(SPEC, 2, config)
    assert made.cond_dim == 2 * (8 + 8 + 5)
    assert [type(each).__name__ for each in made.encoders] == ["SmallCNNEncoder", "ResNetEncoder", "FlattenEncoder"]


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"types": {"rgb": {"name": "resnet50"}}}, UnknownNameError, "unknown observation encoder 'resnet50', known: "),
        ({"types": {"rgb": {"crpo": 0.9}}}, ConfigError, r"encoder rgb of obs\.front: .*'crpo'"),
        ({"types": {"rgb": {"crop": [64, 64]}}}, ConfigError, r"obs\.front: crop 64x64 must lie within .* 48x64"),
        ({"types": {"rgb": {"num_keypoints": 0}}}, ConfigError, r"obs\.front: num_keypoints .* must be positive"),
        ({"types": {"rgb": {"name": "resnet18", "crop": 0.5}}}, ConfigError, r"a map of 1x1 of pictures of 24x32"),
        ({"types": {"rgb": "resnet18"}}, ConfigError, r"encoder\.types\.rgb: expected a mapping"),
        ({"types": {"rgb": {"num_keypoints": "8"}}}, ConfigError, "must be positive whole numbers, but got '8'"),
        ({"types": {"rgb": {"resize": 96}}}, ConfigError, r"resize must be \[height, width\] in pixels, but got 96"),
        ({"types": {"rgb": {"crop": True}}}, ConfigError, r"crop must be \[height, width\] in pixels, but got True"),
        ({"types": {"rbg": {"crop": 0.9}}}, ConfigError, r"encoder\.types: no type is called rbg, known: "),
        ({"types": {"rgb": {"share": "no"}}}, ConfigError, "share must be true or false, but got 'no'"),
        ({"fields": {"top": {}}}, ConfigError, "no observation is called top: front, wrist, state"),
    ],
)
def test_encoder_refuses_by_name(config: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ObservationEncoder(SPEC, 2, EncoderConfig(**config))


def test_crop_that_hides_most_of_the_frame_is_said_with_its_share(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        encoder(rgb={"crop": 0.75})
        assert not caplog.records
        encoder(rgb={"crop": [16, 20]})
    assert [record.getMessage()[:44].rstrip() for record in caplog.records] == [
        "obs.front: its crop keeps 10 % of the frame;",
        "obs.wrist: its crop keeps 20 % of the frame;",
    ]


def test_resnet18_is_torchvisions_in_all_but_the_norms() -> None:
    """Sizes from He et al. 2016, table 1: 11.18 M parameters without the last layer, a map of h / 32."""
    made = ResNet18()
    assert sum(p.numel() for p in made.parameters()) == 11_176_512
    assert made(torch.zeros(1, 3, 96, 96)).shape == (1, 512, 3, 3)
    assert "layer4.1.conv2.weight" in made.state_dict()
    norms = [m for m in made.modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) == 20
    assert all(norm.num_channels == 16 * norm.num_groups for norm in norms)


def test_resnet18_takes_an_imagenet_file_when_training_begins_and_never_again(tmp_path: Path) -> None:
    torch.manual_seed(1)
    published = {name: torch.randn_like(value) for name, value in ResNet18().state_dict().items()}
    published |= {"fc.weight": torch.zeros(1000, 512), "bn1.running_mean": torch.zeros(64)}
    path = tmp_path / "resnet18.pth"
    torch.save(published, path)
    made = encoder(rgb={"name": "resnet18", "weights": str(path)})
    made.load_pretrained()
    state = made.state_dict()
    assert torch.equal(state["encoders.1.network.0.layer3.0.conv2.weight"], published["layer3.0.conv2.weight"])
    assert torch.equal(state["encoders.0.network.0.bn1.weight"], torch.ones(64))
    path.unlink()
    encoder(rgb={"name": "resnet18", "weights": str(path)}).load_state_dict(state)
    with pytest.raises(MissingFileError, match=r"resnet18\.pth do not exist"):
        made.load_pretrained()
    torch.save({"conv1.weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"expected torchvision's resnet18 with conv1\.weight \(64, 3, 7, 7\)"):
        made.load_pretrained()
    path.write_bytes(b"not a file of weights")
    with pytest.raises(CheckpointError, match="cut short, or holds something other than weights"):
        made.load_pretrained()


def test_pictures_for_an_encoder_that_wants_normalised_numbers_are_refused() -> None:
    @register_field_encoder("test_cooked")
    class Cooked(FieldEncoder):
        def __init__(self, field: ObsField) -> None:
            super().__init__()
            self.feature_dim = 1

    with pytest.raises(ConfigError, match=r"obs\.front: .* Cooked expects that; set `raw = True`"):
        ObservationEncoder({"front": FRONT}, 2, EncoderConfig(types={"rgb": {"name": "test_cooked"}}))


def test_depth_or_touch_is_one_registered_encoder_away() -> None:
    @register_field_encoder("test_depth")
    class DepthEncoder(FieldEncoder):
        """Metres (H, W) as recorded: no normalisation per pixel, holes (0) are told apart."""

        raw = True

        def __init__(self, field: ObsField, *, feature_dim: int = 6, far: float = 4.0) -> None:
            super().__init__()
            self.far, self.feature_dim = far, feature_dim
            self.net = nn.Sequential(
                nn.Conv2d(2, 8, 3, stride=2),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(2),
                nn.Flatten(),
                nn.Linear(32, feature_dim),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.net(torch.stack([x / self.far, (x > 0).float()], dim=1))  # type: ignore[no-any-return]

    spec = {"depth": ObsField("test_depth", (24, 32), unit="m"), "touch": ObsField("low_dim", (4, 4), unit="N")}
    made = ObservationEncoder(spec, 2, EncoderConfig(types={"test_depth": {"far": 2.0}}))
    assert made.cond_dim == 2 * (6 + 16)
    assert made.raw_keys == {"depth"}
    assert made({"depth": torch.rand(3, 2, 24, 32), "touch": torch.rand(3, 2, 4, 4)}).shape == (3, 44)


def test_resnet_knows_its_norms_by_name() -> None:
    with pytest.raises(ConfigError, match="norm must be group or fixed, but got 'batch'"):
        ResNet18(norm="batch")
