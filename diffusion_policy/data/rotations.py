"""Rotations in the forms that data sets keep them in, and each of them as any other.

    axis_angle             (..., 3)     rad, direction times angle; its length is taken modulo a turn, into [0, pi]
    quaternion_wxyz        (..., 4)     real part first: MuJoCo, pytorch3d, Eigen's constructor
    quaternion_xyzw        (..., 4)     real part last: SciPy, ROS, robosuite
    matrix                 (..., 9)     row by row; (..., 3, 3) is taken, too
    rotation_6d_columns    (..., 6)     its first column, then its second: Zhou et al. 2019, eq. 15
    rotation_6d_rows       (..., 6)     its first row, then its second: pytorch3d, and so Diffusion Policy and UMI

"quaternion" and "rotation_6d" alone say too little: the same numbers mean two rotations, so they are no names here. q
and -q are one rotation: w >= 0 is given, of two vectors of half a turn either one.
Vectors are columns: matrix @ v turns v. All of it is NumPy in float64, over any leading axes; every form goes through
the matrix. 6-D vectors need not be orthonormal (networks give any): Gram-Schmidt makes a rotation of them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy.errors import DataError, UnknownNameError

Array = NDArray[np.float64]

_SMALL = 1e-12
_TOLERANCE = 1e-3  # of a matrix's R R^T from the identity, of a quaternion's length from 1: float32 and rounded files


def convert(values: ArrayLike, source: str, target: str) -> NDArray[Any]:
    """Returns rotations in another form, of the floating dtype that came (float64 otherwise).

    Args:
        values: (..., size of the source's form).
        source: name of their form.
        target: name of the form to give.

    Raises:
        UnknownNameError: a form is unknown; lists the known ones.
        DataError: they have another size, or are no rotations.
    """
    given = np.asarray(values)
    dtype = given.dtype if given.dtype.kind == "f" else np.dtype(np.float64)
    return from_matrix(to_matrix(given, source), target).astype(dtype)


def size(form: str) -> int:
    """Returns how many numbers a form takes.

    Raises:
        UnknownNameError: it is unknown.
    """
    if form not in _FORMS:
        more = ""
        if form in ("quaternion", "rotation_6d"):
            two = ("quaternion_wxyz or quaternion_xyzw", "rotation_6d_columns or rotation_6d_rows")
            more = f"; say {two[form == 'rotation_6d']}, for the same numbers mean two rotations"
        raise UnknownNameError(f"unknown form of rotations '{form}', known: {', '.join(_FORMS)}{more}")
    return _FORMS[form][0]


def to_matrix(values: ArrayLike, form: str) -> Array:
    """Returns (..., 3, 3).

    Args:
        values: (..., size of the form).
        form: its name.

    Raises:
        UnknownNameError: it is unknown.
        DataError: they have another size, or are no rotations.
    """
    expected = size(form)
    given = np.asarray(values, np.float64)
    if form == "matrix" and given.shape[-2:] == (3, 3):
        given = given.reshape(*given.shape[:-2], 9)
    if given.shape[-1:] != (expected,):
        raise DataError(f"expected {form} of {expected} numbers, but got shape {given.shape}; name just these")
    if not np.isfinite(given).all():
        raise DataError(f"expected {form} of finite numbers, but got NaN or infinity")
    return _FORMS[form][1](given)


def from_matrix(matrix: Array, form: str) -> Array:
    """Returns (..., size of the form) of matrices (..., 3, 3).

    Raises:
        UnknownNameError: the form is unknown.
    """
    size(form)
    return _FORMS[form][2](matrix)


def _matrix_of_axis_angle(values: Array) -> Array:
    """By Rodrigues' formula: 1 + sin(a)/a K + (1 - cos(a))/a^2 K^2, whose factors go on smoothly to a = 0."""
    angle = np.linalg.norm(values, axis=-1)[..., None, None]
    cross = np.zeros((*values.shape[:-1], 3, 3))
    x, y, z = np.moveaxis(values, -1, 0)
    cross[..., 2, 1], cross[..., 0, 2], cross[..., 1, 0] = x, y, z
    cross[..., 1, 2], cross[..., 2, 0], cross[..., 0, 1] = -x, -y, -z
    first = np.sinc(angle / np.pi)  # sin(a) / a
    second = np.sinc(angle / (2 * np.pi)) ** 2 / 2  # (1 - cos(a)) / a^2, without cancellation
    return np.asarray(np.eye(3) + first * cross + second * (cross @ cross))


def _axis_angle_of_matrix(matrix: Array) -> Array:
    """Through the quaternion: exact near 0 and near pi, where arccos of the trace is not."""
    quaternion = _wxyz_of_matrix(matrix)
    imaginary = quaternion[..., 1:]
    sine = np.linalg.norm(imaginary, axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, quaternion[..., :1])
    factor = np.where(sine > _SMALL, angle / np.maximum(sine, _SMALL), 2.0)  # a / sin(a/2) is 2 at a = 0
    return np.asarray(factor * imaginary)


def _matrix_of_wxyz(values: Array) -> Array:
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    wrong = np.abs(length - 1) > _TOLERANCE
    if wrong.any():
        raise DataError(
            f"expected quaternions of length 1, but got one of {float(length[wrong][0]):.4g}; normalise them"
        )
    w, x, y, z = np.moveaxis(values / length, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _wxyz_of_matrix(matrix: Array) -> Array:
    """By the largest of the four components (Shepperd 1978): no division by a small number, for any rotation."""
    m = [[matrix[..., i, j] for j in range(3)] for i in range(3)]
    # row k is 4 q_k times q, so the largest diagonal entry belongs to the largest component
    products = [
        [1 + m[0][0] + m[1][1] + m[2][2], m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]],
        [m[2][1] - m[1][2], 1 + m[0][0] - m[1][1] - m[2][2], m[1][0] + m[0][1], m[0][2] + m[2][0]],
        [m[0][2] - m[2][0], m[1][0] + m[0][1], 1 - m[0][0] + m[1][1] - m[2][2], m[2][1] + m[1][2]],
        [m[1][0] - m[0][1], m[0][2] + m[2][0], m[2][1] + m[1][2], 1 - m[0][0] - m[1][1] + m[2][2]],
    ]
    table = np.stack([np.stack(row, axis=-1) for row in products], axis=-2)  # (..., 4, 4)
    largest = np.argmax(np.diagonal(table, axis1=-2, axis2=-1), axis=-1)
    chosen = np.take_along_axis(table, largest[..., None, None], axis=-2)[..., 0, :]
    quaternion = chosen / np.linalg.norm(chosen, axis=-1, keepdims=True)
    return np.asarray(np.where(quaternion[..., :1] < 0, -quaternion, quaternion))


def _matrix_of_nine(values: Array) -> Array:
    matrix = values.reshape(*values.shape[:-1], 3, 3)
    off = np.abs(matrix @ np.swapaxes(matrix, -1, -2) - np.eye(3)).max(initial=0.0)
    if off > _TOLERANCE or (np.linalg.det(matrix) < 0).any():
        raise DataError(f"expected matrices of rotations, but R R^T is {off:.2g} off the identity, or one is a mirror")
    return matrix


def _matrix_of_columns(values: Array) -> Array:
    """By Gram-Schmidt (Zhou et al. 2019, appendix B): b1 = N(a1), b2 = N(a2 - (b1 a2) b1), b3 = b1 x b2."""
    first, second = _unit(values[..., :3]), values[..., 3:]
    second = _unit(second - (first * second).sum(axis=-1, keepdims=True) * first)
    return np.stack([first, second, np.cross(first, second)], axis=-1)


def _unit(values: Array) -> Array:
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    if (length < _SMALL).any():
        raise DataError(
            "expected two independent vectors, but one is zero or they are parallel; these are no rotations"
        )
    return np.asarray(values / length)


def _columns_of_matrix(matrix: Array) -> Array:
    return np.concatenate([matrix[..., :, 0], matrix[..., :, 1]], axis=-1)


_FORMS: dict[str, tuple[int, Callable[[Array], Array], Callable[[Array], Array]]] = {
    "axis_angle": (3, _matrix_of_axis_angle, _axis_angle_of_matrix),
    "quaternion_wxyz": (4, _matrix_of_wxyz, _wxyz_of_matrix),
    "quaternion_xyzw": (
        4,
        lambda values: _matrix_of_wxyz(np.roll(values, 1, axis=-1)),
        lambda matrix: np.roll(_wxyz_of_matrix(matrix), -1, axis=-1),
    ),
    "matrix": (9, _matrix_of_nine, lambda matrix: matrix.reshape(*matrix.shape[:-2], 9)),
    "rotation_6d_columns": (6, _matrix_of_columns, _columns_of_matrix),
    "rotation_6d_rows": (
        6,
        lambda values: np.swapaxes(_matrix_of_columns(values), -1, -2),
        lambda matrix: _columns_of_matrix(np.swapaxes(matrix, -1, -2)),
    ),
}

FORMS = tuple(_FORMS)
"""Names of the forms."""
