"""The digits of scikit-learn."""

from datamodules.digits import Digits


def test_digits() -> None:
    points, label = Digits().load()
    assert points.shape == (1797, 64) and (float(points.min()), float(points.max())) == (0, 1)
    assert label.unique().tolist() == list(range(10))
