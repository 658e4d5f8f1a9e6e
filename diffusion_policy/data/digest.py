"""Chained SHA-256 digests: one number says which demonstrations a policy was trained on.

The digest of episode i covers the digest of episode i - 1 and the keys, dtypes, shapes and bytes of episode i.
It depends on content alone: not on chunks, compression, zarr format, folder or archive.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIGEST_BYTES = hashlib.sha256().digest_size
GENESIS = hashlib.sha256(b"diffusion_policy episodes 1").digest()


def chain(previous: bytes, episode: Mapping[str, NDArray[Any]]) -> bytes:
    """Returns the digest of an episode that follows the one with digest `previous` (`GENESIS` for the first).

    Args:
        previous: 32 bytes.
        episode: {key: (T, *shape)}; the order of keys does not matter.
    """
    state = hashlib.sha256(previous)
    for key in sorted(episode):
        values = episode[key]
        values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        state.update(json.dumps([key, values.dtype.str, values.shape]).encode())
        state.update(values.reshape(-1).view(np.uint8).data)
    return state.digest()
