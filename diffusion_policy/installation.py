"""What an installation lacks, said in one line: a robot's holds torch and numpy, a workshop's everything."""

# top-level modules of the dependencies in pyproject.toml
DEPENDENCIES = (
    "diffusers", "gymnasium", "hydra", "imageio", "imageio_ffmpeg", "jinja2", "matplotlib", "mujoco", "numpy",
    "omegaconf", "PIL", "rich", "scipy", "shapely", "tensorboard", "torch", "yaml", "zarr",
)  # fmt: skip


def needs_full_install(error: ImportError, what: str) -> str | None:
    """Returns what to do about an import that failed for want of one of our dependencies; None for other reasons.

    Args:
        error: from the import.
        what: that was wanted, e.g. "dp-train".
    """
    missing = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or missing not in DEPENDENCIES:
        return None
    return (
        f"{what} needs the full install, but there is no {missing}: pip install diffusion-policy; a robot that only "
        f"acts needs torch and numpy"
    )
