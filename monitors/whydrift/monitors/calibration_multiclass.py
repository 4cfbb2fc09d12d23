"""Whether the probabilities of several classes come true: of the class that is named, and of each class by itself.

Two weak forms of calibration, both of meshes as `calibration` has them (Kull et al. 2019, arXiv 1910.12656; Kumar,
Liang & Ma 2019, arXiv 1909.10155). Top label: of the rows whose likeliest class has a probability of .8, four in five
are of that class. Classwise: of the rows where a class has a probability of .1, one in ten is of it. Neither implies
the other, and neither that the vector of probabilities is right as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from whydrift.monitors.calibration import MESH, ScoreMesh, brier, debiased_l2, smece, split

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClassMeshes:
    """Labelled rows by the probability of their likeliest class, and for each class, K of them, by its own."""

    top: ScoreMesh
    classes: tuple[ScoreMesh, ...]


@dataclass(frozen=True, slots=True)
class MeshErrors:
    """The measures of one mesh: smooth calibration error, Brier score, and debiased L2 error."""

    smece: float
    brier: float
    l2: float


@dataclass(frozen=True, slots=True)
class MulticlassCalibration:
    """The errors of the top label and of each class, and over classes their mean and largest.

    `worst` is the class, 0..K-1, with the largest smooth calibration error.
    """

    top: MeshErrors
    classes: tuple[MeshErrors, ...]
    mean: MeshErrors
    largest: MeshErrors
    worst: int


def class_meshes(probabilities: FloatArray, label: IntArray, weight: FloatArray) -> ClassMeshes:
    """The meshes of labelled rows.

    Args:
        probabilities: (n, K), each in [0, 1]; of equal ones the first is the likeliest.
        label: the class of each row, (n,), in 0..K-1.
        weight: of each row, (n,), not negative.

    Raises:
        ValueError: a probability is missing or not in [0, 1], or a label is no class.
    """
    rows, classes = probabilities.shape
    if not np.all((label >= 0) & (label < classes)):
        raise ValueError(f"labels are classes from 0 to {classes - 1}, and some are not")
    named = probabilities.argmax(axis=1)
    top = _mesh(probabilities[np.arange(rows), named], named == label, weight)
    return ClassMeshes(top, tuple(_mesh(probabilities[:, k], label == k, weight) for k in range(classes)))


def _mesh(p: FloatArray, true: npt.NDArray[np.bool_], weight: FloatArray) -> ScoreMesh:
    lower, part = split(p)
    cells = np.concatenate([lower, lower + 1])
    amount = np.concatenate([weight * (1 - part), weight * part])
    weight2 = float(weight @ weight)
    return ScoreMesh(
        labelled=_by_cell(cells, amount),
        positive=_by_cell(cells, amount * np.tile(true, 2)),
        squared_error=float(weight @ (true - p) ** 2),
        rows=float(weight.sum()) ** 2 / weight2 if weight2 > 0 else 0.0,
    )


def _by_cell(cells: IntArray, amount: FloatArray) -> FloatArray:
    return np.asarray(np.bincount(cells, weights=amount, minlength=MESH), dtype=np.float64)


def add_meshes(parts: tuple[ClassMeshes, ...]) -> ClassMeshes:
    """The meshes of all rows together; at least one part, all of the same classes and with weights of one unit."""
    by_class = zip(*(part.classes for part in parts), strict=True)
    return ClassMeshes(_add([part.top for part in parts]), tuple(_add(list(meshes)) for meshes in by_class))


def _add(meshes: list[ScoreMesh]) -> ScoreMesh:
    weights = np.array([mesh.labelled.sum() for mesh in meshes])
    weight2 = sum(w**2 / mesh.rows for w, mesh in zip(weights, meshes, strict=True) if mesh.rows > 0)
    return ScoreMesh(
        labelled=np.sum([mesh.labelled for mesh in meshes], axis=0),
        positive=np.sum([mesh.positive for mesh in meshes], axis=0),
        squared_error=sum(mesh.squared_error for mesh in meshes),
        rows=float(weights.sum() ** 2 / weight2) if weight2 > 0 else 0.0,
    )


def multiclass_calibration(meshes: ClassMeshes) -> MulticlassCalibration:
    """All measures; the Brier score of the vector of probabilities is K times the mean one of the classes."""
    classes = tuple(_errors(mesh) for mesh in meshes.classes)
    table = np.array([[e.smece, e.brier, e.l2] for e in classes])
    mean, largest = table.mean(axis=0), table.max(axis=0)
    return MulticlassCalibration(
        top=_errors(meshes.top),
        classes=classes,
        mean=MeshErrors(*map(float, mean)),
        largest=MeshErrors(*map(float, largest)),
        worst=int(table[:, 0].argmax()),
    )


def _errors(mesh: ScoreMesh) -> MeshErrors:
    return MeshErrors(smece(mesh), brier(mesh), debiased_l2(mesh))
