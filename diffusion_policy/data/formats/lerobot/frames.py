"""Rows of the data files: our arrays as pyarrow's columns.

Letters: T steps of an episode, D numbers of a step.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffusion_policy.data.formats.lerobot.features import IMAGE, Feature
from diffusion_policy.data.formats.lerobot.layout import MADE, TASK

_PNG_LEVEL = 1  # 6 costs a third more time on drawn pictures and saves a seventh of the room


def encoded(picture: NDArray[np.uint8]) -> bytes:
    """Returns a picture (H, W, 3) as PNG, which loses nothing."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=_PNG_LEVEL)
    return file.getvalue()


def schema(pyarrow: Any, features: Sequence[Feature]) -> Any:
    """Returns the schema of the data files, with what the library `datasets` wants to know about it."""
    fields, known = [], {}
    for feature in features:
        fields.append((feature.name, _type(pyarrow, feature)))
        known[feature.name] = _hf(feature.dtype, sum(feature.sizes))
    for name, dtype in (*MADE.items(), (TASK, "int64")):
        fields.append((name, pyarrow.from_numpy_dtype(np.dtype(dtype))))
        known[name] = _hf(dtype, 1)
    return pyarrow.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": known}})})


def pictures_type(pyarrow: Any) -> Any:
    """Returns the type of a column of pictures."""
    return pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def pictures_column(pyarrow: Any, encoded: Iterable[bytes | None]) -> Any:
    """Returns a column of pictures; None where a row has none."""
    rows = [None if each is None else {"bytes": each, "path": f"frame-{i:06d}.png"} for i, each in enumerate(encoded)]
    return pyarrow.array(rows, pictures_type(pyarrow))


def numbers_column(pyarrow: Any, values: NDArray[Any]) -> Any:
    """Returns a column of numbers (T, D)."""
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    flat = pyarrow.array(native.ravel())
    return flat if native.shape[1] == 1 else pyarrow.FixedSizeListArray.from_arrays(flat, native.shape[1])


def joined(episode: Mapping[str, NDArray[Any]], feature: Feature) -> NDArray[Any]:
    """Returns the numbers (T, D) of a feature."""
    parts = [episode[key].reshape(len(episode[key]), -1) for key in feature.keys]
    return np.concatenate(parts, axis=1).astype(feature.dtype, copy=False)


def _type(pyarrow: Any, feature: Feature) -> Any:
    if feature.dtype == IMAGE:
        return pictures_type(pyarrow)
    single = pyarrow.from_numpy_dtype(np.dtype(feature.dtype))
    return single if sum(feature.sizes) == 1 else pyarrow.list_(single, sum(feature.sizes))


def _hf(dtype: str, size: int) -> dict[str, Any]:
    if dtype == IMAGE:
        return {"_type": "Image"}
    value = {"dtype": dtype, "_type": "Value"}
    return value if size == 1 else {"feature": value, "length": size, "_type": "Sequence"}
