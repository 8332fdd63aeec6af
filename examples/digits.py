"""Statistics of handwritten digits as cascades: covariance, PCA scores, an RBF kernel.

The data are the 1,797 images of 8x8 pixels that scikit-learn ships; eigenvectors come from
numpy.linalg. Every result is compared with plain NumPy.

    python examples/digits.py
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import einloom as el

Array = NDArray[np.float64]

COVARIANCE = """
program covariance(X: f64[n=N, d=D]) -> (M, C) {
  T[d]    = sum[n] X[n, d]
  M[d]    = T[d] / N
  Z[n, d] = X[n, d] - M[d]
  S[d, e] = Z[n, d] * Z[n, e]
  C[d, e] = S[d, e] / (N - 1)
}
"""

SCORES = """
program scores(X: f64[n=N, d=D], M: f64[d=D], V: f64[d=D, k=K]) -> (S) {
  S[n, k] = sum[d] (X[n, d] - M[d]) * V[d, k]
}
"""

KERNEL = """
program rbf_kernel(X: f64[n=N, d=D], gamma: f64) -> (G) {
  Q[n]    = sum[d] X[n, d] * X[n, d]
  P[n, m] = X[n, d] * X[m, d]
  G[n, m] = exp(-gamma * (Q[n] + Q[m] - 2.0 * P[n, m]))
}
"""


def covariance(images: Array) -> tuple[Array, Array]:
    """Mean (64) and covariance (64x64) of images (1797x64)."""
    mean, matrix = el.compile(COVARIANCE)(images)
    agree("mean", mean, images.mean(axis=0))
    agree("covariance", matrix, np.cov(images, rowvar=False))
    return mean, matrix


def scores(images: Array, mean: Array, matrix: Array, count: int) -> Array:
    """Coordinates (1797 x count) along the directions of largest variance."""
    variances, directions = np.linalg.eigh(matrix)
    largest = np.argsort(variances)[::-1][:count]
    found: Array = el.compile(SCORES)(images, mean, directions[:, largest])
    agree("PCA scores", found, (images - mean) @ directions[:, largest])
    agree("their variances", found.var(axis=0, ddof=1), variances[largest])
    print(f"{count} of 64 directions hold {variances[largest].sum() / variances.sum():.1%}")
    return found


def kernel(points: Array, gamma: float) -> Array:
    """Similarities (1797x1797) exp(-gamma |x - y|^2) of points."""
    found: Array = el.compile(KERNEL)(points, gamma)
    distances = ((points[:, None, :] - points[None, :, :]) ** 2).sum(axis=2)
    agree("RBF kernel", found, np.exp(-gamma * distances))
    return found


def agree(what: str, ours: Array, theirs: Array) -> None:
    """Stop unless two arrays are equal up to rounding, relative to the largest entry."""
    error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    print(f"{what}: off by {error:.1e}")
    if not error < 1e-11:
        raise SystemExit(f"{what} differs from NumPy's")


def main() -> None:
    """Compute, compare, and say how well similar images are of the same digit."""
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    mean, matrix = covariance(images)
    points = scores(images, mean, matrix, count=10)
    similarities = kernel(points, gamma=1e-3)
    np.fill_diagonal(similarities, 0.0)
    nearest = similarities.argmax(axis=1)
    share = float((digits[nearest] == digits).mean())
    print(f"the most similar image shows the same digit for {share:.1%} of the images")


if __name__ == "__main__":
    main()
