"""Rotations: the axioms of their group, in every form; SciPy as the oracle."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from diffusion_policy.data.rotations import FORMS, convert, from_matrix, size, to_matrix
from diffusion_policy.errors import DataError, UnknownNameError

IDENTITY = {
    "axis_angle": [0, 0, 0],
    "quaternion_wxyz": [1, 0, 0, 0],
    "quaternion_xyzw": [0, 0, 0, 1],
    "matrix": [1, 0, 0, 0, 1, 0, 0, 0, 1],
    "rotation_6d_columns": [1, 0, 0, 0, 1, 0],
    "rotation_6d_rows": [1, 0, 0, 0, 1, 0],
}


def axis_angles() -> np.ndarray:
    """Returns (N, 3): any angles, and those around 0 and pi, about any axes and about those of the frame."""
    rng = np.random.default_rng(0)
    axes = np.concatenate([rng.normal(size=(200, 3)), np.eye(3), -np.eye(3), [[1, 1, 0]]])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    near = np.array([0, 1e-12, 1e-9, 1e-7, 1e-5, 1e-3])
    angles = np.concatenate([rng.uniform(0, np.pi, 8), near, np.pi - near[1:]])
    return (axes[:, None] * angles[:, None]).reshape(-1, 3)


MATRICES = Rotation.from_rotvec(axis_angles()).as_matrix()


@pytest.mark.parametrize("form", FORMS)
def test_round_trip_of_every_form_gives_the_same_rotation(form: str) -> None:
    assert from_matrix(MATRICES, form).shape == (len(MATRICES), size(form))
    np.testing.assert_allclose(to_matrix(from_matrix(MATRICES, form), form), MATRICES, atol=2e-15)


@pytest.mark.parametrize("source", FORMS)
@pytest.mark.parametrize("target", FORMS)
def test_there_and_back_gives_the_same_numbers(source: str, target: str) -> None:
    values = from_matrix(MATRICES, source)
    back = convert(convert(values, source, target), target, source)
    assert np.isfinite(back).all()
    if source.startswith(("axis", "quaternion")):
        # at pi, two vectors (q and -q) are one rotation: either may come back
        half_turn = np.linalg.norm(from_matrix(MATRICES, "axis_angle"), axis=1) > np.pi - 1e-6
        assert half_turn.sum() > 100
        values, back = values[~half_turn], back[~half_turn]
    np.testing.assert_allclose(back, values, atol=1e-8)


@pytest.mark.parametrize("form", FORMS)
def test_identity_is_neutral(form: str) -> None:
    one = to_matrix(IDENTITY[form], form)
    np.testing.assert_array_equal(one, np.eye(3))
    np.testing.assert_array_equal(from_matrix(np.eye(3), form), IDENTITY[form])
    np.testing.assert_array_equal(one @ MATRICES, MATRICES)


@pytest.mark.parametrize("form", FORMS)
def test_product_with_the_inverse_is_the_identity(form: str) -> None:
    turned = to_matrix(from_matrix(MATRICES, form), form)
    inverse = {
        "axis_angle": lambda values: -values,
        "quaternion_wxyz": lambda values: values * [1, -1, -1, -1],
        "quaternion_xyzw": lambda values: values * [-1, -1, -1, 1],
    }.get(form, lambda values: from_matrix(np.swapaxes(to_matrix(values, form), -1, -2), form))
    back = to_matrix(inverse(from_matrix(MATRICES, form)), form)
    np.testing.assert_allclose(turned @ back, np.broadcast_to(np.eye(3), turned.shape), atol=2e-15)


@pytest.mark.parametrize("form", FORMS)
def test_composition_is_closed_and_associative(form: str) -> None:
    rng = np.random.default_rng(1)
    a, b, c = (to_matrix(from_matrix(MATRICES[rng.permutation(len(MATRICES))], form), form) for _ in range(3))
    kept = to_matrix(from_matrix(a @ b, form), form)
    np.testing.assert_allclose(kept, a @ b, atol=4e-15)
    np.testing.assert_allclose(np.linalg.det(kept), 1, atol=1e-14)
    np.testing.assert_allclose((a @ b) @ c, a @ (b @ c), atol=4e-15)


def test_order_of_quaternions_is_that_of_their_names() -> None:
    quarter = [np.sqrt(0.5), 0, 0, np.sqrt(0.5)]  # about z
    np.testing.assert_allclose(to_matrix(quarter, "quaternion_wxyz") @ [1, 0, 0], [0, 1, 0], atol=1e-15)
    np.testing.assert_allclose(to_matrix(np.roll(quarter, -1), "quaternion_xyzw") @ [1, 0, 0], [0, 1, 0], atol=1e-15)
    np.testing.assert_allclose(
        convert(axis_angles(), "axis_angle", "quaternion_xyzw"),
        Rotation.from_rotvec(axis_angles()).as_quat(canonical=True),
        atol=1e-8,
    )


def test_quaternions_cover_each_rotation_twice() -> None:
    quaternions = from_matrix(MATRICES, "quaternion_wxyz")
    np.testing.assert_allclose(to_matrix(-quaternions, "quaternion_wxyz"), MATRICES, atol=2e-15)
    assert (quaternions[:, 0] >= 0).all()


@pytest.mark.parametrize("angle", [1e-12, 1e-8, 1e-4, np.pi - 1e-4, np.pi - 1e-8, np.pi])
def test_axis_angle_is_exact_near_no_and_half_a_turn(angle: float) -> None:
    axes = np.concatenate([np.eye(3), [[0.6, 0, 0.8], [2 / 3, -2 / 3, 1 / 3]]])
    back = convert(convert(axes * angle, "axis_angle", "matrix"), "matrix", "axis_angle")
    opposite = np.sign((back * axes).sum(axis=1, keepdims=True))  # at pi both directions are one rotation
    np.testing.assert_allclose(np.where(angle == np.pi, opposite, 1) * back, axes * angle, rtol=1e-7, atol=1e-15)


def test_axis_angle_beyond_half_a_turn_is_the_same_rotation_the_short_way() -> None:
    np.testing.assert_allclose(
        convert([[0, 0, 1.5 * np.pi], [2 * np.pi, 0, 0]], "axis_angle", "axis_angle"),
        [[0, 0, -0.5 * np.pi], [0, 0, 0]],
        atol=1e-15,
    )


def test_6d_are_columns_or_rows_as_named() -> None:
    matrix = Rotation.from_euler("xyz", [0.3, -0.5, 0.9]).as_matrix()
    np.testing.assert_array_equal(from_matrix(matrix, "rotation_6d_columns"), [*matrix[:, 0], *matrix[:, 1]])
    np.testing.assert_array_equal(from_matrix(matrix, "rotation_6d_rows"), [*matrix[0], *matrix[1]])


def test_6d_of_a_network_becomes_a_rotation_by_gram_schmidt() -> None:
    values = np.random.default_rng(2).normal(size=(50, 6))
    matrix = to_matrix(values, "rotation_6d_columns")
    np.testing.assert_allclose(matrix @ np.swapaxes(matrix, -1, -2), np.broadcast_to(np.eye(3), (50, 3, 3)), atol=1e-14)
    np.testing.assert_allclose(np.linalg.det(matrix), 1)
    unit = values[:, :3] / np.linalg.norm(values[:, :3], axis=1, keepdims=True)
    np.testing.assert_allclose(matrix[:, :, 0], unit)  # the first vector keeps its direction
    np.testing.assert_allclose((matrix[:, :, 2] * values[:, 3:]).sum(axis=1), 0, atol=1e-14)  # the second its plane
    scaled = values * np.repeat(np.random.default_rng(3).uniform(0.1, 9, (50, 2)), 3, axis=1)
    np.testing.assert_allclose(to_matrix(scaled, "rotation_6d_columns"), matrix, atol=1e-13)


def test_dtype_and_leading_axes_are_kept() -> None:
    values = axis_angles()[:12].astype(np.float32).reshape(2, 3, 2, 3)
    out = convert(values, "axis_angle", "rotation_6d_rows")
    assert (out.shape, out.dtype) == ((2, 3, 2, 6), np.float32)
    assert to_matrix(np.tile(np.eye(3), (4, 1, 1)), "matrix").shape == (4, 3, 3)
    assert convert(np.zeros((0, 3)), "axis_angle", "matrix").shape == (0, 9)


@pytest.mark.parametrize(
    ("values", "form", "message"),
    [
        (np.zeros((2, 4)), "axis_angle", r"expected axis_angle of 3 numbers, but got shape \(2, 4\)"),
        ([[2.0, 0, 0, 0]], "quaternion_wxyz", "quaternions of length 1, but got one of 2"),
        (np.zeros((1, 4)), "quaternion_xyzw", "quaternions of length 1, but got one of 0"),
        (np.diag([1.0, 1, -1]), "matrix", "or one is a mirror"),
        (2 * np.eye(3), "matrix", "R R\\^T is 3 off the identity"),
        ([0, 0, 0, 1, 0, 0], "rotation_6d_rows", "two independent vectors"),
        ([1, 2, 3, 2, 4, 6], "rotation_6d_columns", "two independent vectors"),
        ([np.nan, 0, 0], "axis_angle", "finite numbers"),
    ],
)
def test_what_is_no_rotation_is_refused(values, form: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_matrix(values, form)


def test_names_that_say_too_little_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="say rotation_6d_columns or rotation_6d_rows, for the same numbers"):
        convert(np.zeros(3), "axis_angle", "rotation_6d")
    with pytest.raises(UnknownNameError, match="say quaternion_wxyz or quaternion_xyzw"):
        convert(np.zeros(4), "quaternion", "matrix")
    with pytest.raises(UnknownNameError, match="unknown form of rotations 'euler', known: axis_angle, quat"):
        convert(np.zeros(3), "euler", "matrix")
