"""Codecs of pictures in zarr that zarr itself does not bring."""

import functools
import logging
from importlib.util import find_spec

_UNKNOWN = "codec not available"


@functools.cache
def register_picture_codecs() -> bool:
    """Makes JPEG 2000, JPEG XL and their like known to zarr if the extra `imagecodecs` is installed; says whether."""
    if find_spec("imagecodecs") is None:
        return False
    from imagecodecs.numcodecs import register_codecs

    register_codecs(verbose=False)
    return True


def codec_remedy(error: Exception) -> str:
    """Returns what to do about an array that cannot be opened, for the end of a message; nothing if it is no codec."""
    if _UNKNOWN not in str(error):
        return ""
    # zarr looks at all arrays at once; nobody asks the tasks of the others how they ended, and asyncio would print
    # their tracebacks beside the one line that says the same
    logging.getLogger("asyncio").addFilter(_says_something_new)
    return "; pip install 'diffusion-policy[imagecodecs]' reads JPEG 2000, JPEG XL and their like"


def _says_something_new(record: logging.LogRecord) -> bool:
    return _UNKNOWN not in str(record.exc_info and record.exc_info[1])
