"""LeRobot's data sets: v3.0 read and written, v2.0 and v2.1 read; `layout` says what is called what."""

from diffusion_policy.data.formats.lerobot import reading, writing  # noqa: F401 (they register themselves)
