"""Rendered figures against pictures that somebody has looked at.

Versions of matplotlib set type differently, which moves text and axes by a pixel: that is a root mean square of 20 of
255 over pixels, and at most 5 over means of 8 by 8 pixels (measured with three kinds of hinting and another font),
where a picture without its labels differs by 6. So pictures are compared pixel by pixel in the version that drew the
baseline, and by such means in others.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.testing.compare import calculate_rms, compare_images
from PIL import Image

from tests.pictures import BASELINE, PICTURES, draw

SAME_VERSION = 1.0
ANY_VERSION = 5.5
SQUARE = 8


def coarse(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Means of squares of pixels, of a picture brought to a shape by a margin that is white or cut."""
    x = np.full(shape, 255.0)
    own = 255.0 * imread(path)[: shape[0], : shape[1], :3]
    x[: own.shape[0], : own.shape[1]] = own
    h, w = (s // SQUARE * SQUARE for s in shape[:2])
    return x[:h, :w].reshape(h // SQUARE, SQUARE, w // SQUARE, SQUARE, 3).mean(axis=(1, 3))


@pytest.mark.parametrize("name", PICTURES)
def test_picture_is_as_it_was(name: str, tmp_path: Path) -> None:
    path, baseline = draw(name, tmp_path), BASELINE / f"{name}.png"
    shape = (*imread(baseline).shape[:2], 3)
    assert calculate_rms(coarse(baseline, shape), coarse(path, shape)) < ANY_VERSION
    with Image.open(baseline) as image:
        drawn_by = image.info["Software"]
    if drawn_by == mpl.__version__:
        assert compare_images(str(baseline), str(path), SAME_VERSION) is None


def test_baselines_are_small_and_all_used() -> None:
    assert {path.stem for path in BASELINE.iterdir()} == set(PICTURES)
    assert max(path.stat().st_size for path in BASELINE.iterdir()) < 30_000
