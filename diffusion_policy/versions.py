"""The versions of the packages that decide about results. Standard library only."""

import platform
from importlib import metadata

PACKAGES = ("diffusion-policy", "torch", "numpy", "gymnasium", "mujoco", "zarr", "diffusers", "scipy")


def installed_versions() -> dict[str, str]:
    """Returns {package: version}, Python's included; absent packages are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
