"""What we add to other people's files, so that ours come back as they were: dtypes, shapes, provenance."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.formats.reading import Episode
from diffusion_policy.data.formats.writing import Content
from diffusion_policy.data.incoming import KeyForm
from diffusion_policy.errors import DataError

NAME = "diffusion_policy"
"""Of the record, wherever a format has room for one."""

_VERSION = 1


@dataclass(frozen=True)
class Record:
    """What is remembered.

    Args:
        forms: {key: (shape of a step, dtype)}.
        provenance: of the data set.
    """

    forms: Mapping[str, KeyForm]
    provenance: Mapping[str, Any]

    @classmethod
    def of(cls, content: Content) -> "Record":
        """Returns what is to be remembered of a data set."""
        return cls(content.forms, content.facts)

    def to_json(self) -> str:
        """Returns it as text."""
        forms = {key: {"dtype": dtype.str, "shape": list(shape)} for key, (shape, dtype) in self.forms.items()}
        return json.dumps({"version": _VERSION, "keys": forms, "provenance": dict(self.provenance)})

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> "Record":
        """Returns what was remembered.

        Raises:
            DataError: the text is damaged, or a later version's.
        """
        try:
            content = json.loads(text)
            version, provenance = int(content["version"]), dict(content["provenance"])
            forms = {
                str(key): (tuple(int(size) for size in form["shape"]), np.dtype(str(form["dtype"])))
                for key, form in content["keys"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{where}: its record '{NAME}' is damaged ({error}); get the file again") from error
        if version > _VERSION:
            raise DataError(f"{where}: its record '{NAME}' was written by a later version; update diffusion-policy")
        if any(dtype.kind not in "biuf" for _, dtype in forms.values()):
            raise DataError(f"{where}: its record '{NAME}' tells of keys that hold no numbers; get the file again")
        return cls(forms, provenance)

    def restored(self, found: Mapping[str, NDArray[Any]], where: str) -> Episode:
        """Returns an episode as it was.

        Args:
            found: {key: (T, ...)}, at least the keys that are remembered.
            where: the episode, for messages.

        Raises:
            DataError: a key is missing, or of another size.
        """
        missing = [key for key in self.forms if key not in found]
        if missing:
            raise DataError(f"{where}: expected {', '.join(missing)} as its record says, but there is no such column")
        episode: Episode = {}
        for key, (shape, dtype) in self.forms.items():
            values = found[key]
            if values.dtype.kind not in "biuf" or values[:1].size != int(np.prod(shape)):
                raise DataError(
                    f"{where}: '{key}' must hold numbers of shape {shape}, but has {values.dtype} {values.shape[1:]}"
                )
            episode[key] = values.astype(dtype, copy=False).reshape(len(values), *shape)
        return episode
