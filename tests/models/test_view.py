"""What an encoder sees of a picture: crops and sizes by identities, scales by numbers."""

import pytest
import torch

from diffusion_policy.errors import ConfigError
from diffusion_policy.models.view import View, center_crop, random_crop


def picture(batch: int, height: int = 12, width: int = 16, channels: int = 3) -> torch.Tensor:
    return torch.randint(256, (batch, height, width, channels), dtype=torch.uint8)


def test_random_crop_is_a_window_of_each_picture_and_differs_between_them() -> None:
    torch.manual_seed(0)
    x = picture(64)
    places = set()
    for one, crop in zip(x, random_crop(x, (9, 10)), strict=True):
        found = [
            (top, left)
            for top in range(4)
            for left in range(7)
            if torch.equal(one[top : top + 9, left : left + 10], crop)
        ]
        assert len(found) == 1
        places.add(found[0])
    assert {top for top, _ in places} == set(range(4))  # both edges are reached
    assert {left for _, left in places} == set(range(7))


def test_random_crop_of_the_whole_frame_is_the_frame() -> None:
    x = picture(3)
    assert torch.equal(random_crop(x, (12, 16)), x)


def test_random_crop_takes_views_and_floats() -> None:
    x = picture(4).float().flip(2)[1:]
    torch.manual_seed(0)
    crop = random_crop(x, (11, 15))
    torch.manual_seed(0)
    assert torch.equal(crop, random_crop(x.contiguous(), (11, 15)))


def test_view_crops_at_the_centre_in_evaluation_and_anywhere_in_training() -> None:
    x = picture(32)
    view = View((12, 16, 3), crop=(8, 10))
    expected = center_crop(x, (8, 10)).permute(0, 3, 1, 2) / 127.5 - 1
    torch.testing.assert_close(view.eval()(x), expected)
    assert torch.equal(view.eval()(x), view.eval()(x))
    assert not torch.equal(view.train()(x), view.train()(x))


def test_view_maps_bytes_to_minus_one_and_one_or_as_imagenet_does() -> None:
    x = torch.tensor([0, 255], dtype=torch.uint8).repeat(3, 1).T.reshape(2, 1, 1, 3).expand(2, 4, 4, 3)
    plain = View((4, 4, 3))(x)
    torch.testing.assert_close(plain[:, :, 0, 0], torch.tensor([[-1.0] * 3, [1.0] * 3]))
    imagenet = View((4, 4, 3), imagenet=True)(x)[:, :, 0, 0]
    torch.testing.assert_close(imagenet[0], -torch.tensor([0.485 / 0.229, 0.456 / 0.224, 0.406 / 0.225]))
    torch.testing.assert_close(imagenet[1], torch.tensor([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225]))


def test_view_resizes_before_it_crops_and_keeps_constant_pictures() -> None:
    view = View((240, 320, 3), resize=(60, 80), crop=0.9)
    assert (view.size, view.kept) == ((54, 72), 54 * 72 / (60 * 80))
    x = torch.full((2, 240, 320, 3), 100, dtype=torch.uint8)
    seen = view(x)
    assert seen.shape == (2, 3, 54, 72)
    torch.testing.assert_close(seen, torch.full_like(seen, 100 / 127.5 - 1), atol=1e-5, rtol=0)


def test_view_has_nothing_to_save() -> None:
    assert not View((8, 8, 3), crop=0.5).state_dict()


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (
            (3, 96, 96),
            {},
            r"but got \(3, 96, 96\); channels come last: write \[96, 96, 3\]",
        ),
        ((96, 96), {}, "must have shape"),
        ((96, 96, 3), {"crop": (100, 80)}, r"crop 100x80 must lie within the frame of 96x96; make it smaller"),
        ((96, 96, 3), {"resize": (64, 64), "crop": (76, 76)}, "within the frame of 64x64"),
        ((96, 96, 3), {"crop": 1.2}, r"share in \(0, 1\], but got 1.2"),
        ((96, 96, 3), {"crop": (76,)}, r"crop must be \[height, width\] in pixels, but got \[76\]"),
        ((96, 96, 4), {"imagenet": True}, "ImageNet weights see 3 channels, but the picture has 4"),
    ],
)
def test_view_refuses_what_does_not_fit(shape, options, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        View(shape, **options)


def test_view_takes_another_crop_and_other_scales_in_evaluation() -> None:
    """What imported weights were trained with: torchvision's rounding, a data set's mean and deviation."""
    x = torch.arange(9 * 9 * 3, dtype=torch.uint8).reshape(1, 9, 9, 3)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.2)
    seen = View((9, 9, 3), crop=(6, 6), crop_at=(2, 1), mean=mean, std=std).eval()(x)
    expected = (x[:, 2:8, 1:7].float() / 255 - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(seen, expected.permute(0, 3, 1, 2))
    for options, message in (
        ({"crop": (6, 6), "crop_at": (4, 1)}, r"crop_at must be \[top, left\] in pixels, at most \[3, 3\]"),
        ({"mean": (0.1, 0.2), "std": std}, "mean and std must be 3 numbers each"),
        ({"mean": mean}, "mean and std must be 3 numbers each"),
        ({"mean": mean, "std": (1.0, 0.0, 1.0)}, "std positive"),
    ):
        with pytest.raises(ConfigError, match=message):
            View((9, 9, 3), **options)  # type: ignore[arg-type]
