"""Pictures in codecs that zarr does not bring: read with the extra, named without."""

import logging
from pathlib import Path

import numpy as np
import pytest
import zarr

from diffusion_policy import ReplayBuffer
from diffusion_policy.data import store
from diffusion_policy.errors import DataError


def test_jpeg2k_and_jpegxl_are_read(tmp_path: Path) -> None:
    codecs = pytest.importorskip("imagecodecs.numcodecs", reason="the extra imagecodecs is not installed")
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    data, meta = group.create_group("data"), group.create_group("meta")
    for name, codec in (("j2k", codecs.Jpeg2k(level=0)), ("jxl", codecs.Jpegxl(lossless=True, level=None))):
        codecs.register_codecs(verbose=False)
        array = data.create_array(name, shape=images.shape, chunks=(1, 16, 16, 3), dtype="u1", compressors=codec)
        array[:] = images
    data.create_array("action", shape=(6, 2), chunks=(6, 2), dtype="f4")[:] = 0
    meta.create_array("episode_ends", shape=(1,), chunks=(1,), dtype="i8")[:] = 6
    buffer = ReplayBuffer.open(tmp_path / "a.zarr")
    np.testing.assert_array_equal(buffer["j2k"], images)
    np.testing.assert_array_equal(buffer["jxl"], images)


def test_missing_codec_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with ReplayBuffer.create(tmp_path / "a.zarr") as buffer:
        buffer.add_episode({"action": np.zeros((4, 2), np.float32), "img": np.zeros((4, 9, 9, 3), np.uint8)})
    for key in ("action", "img"):  # two: the second one's task is never asked
        described = tmp_path / "a.zarr" / "data" / key / ".zarray"
        described.write_text(described.read_text().replace('"id": "blosc"', '"id": "imagecodecs_jpeg2k_missing"'))
    monkeypatch.setattr(store, "register_picture_codecs", lambda: False)
    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(DataError, match=r"imagecodecs_jpeg2k_missing.*pip install 'diffusion-policy\[imagecodecs\]'"),
    ):
        ReplayBuffer.open(tmp_path / "a.zarr")
