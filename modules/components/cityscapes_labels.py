"""The label ids and files of Cityscapes, as the official scripts number and name them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

NAMES = (
    "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road",
    "sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole",
    "polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck",
    "bus", "caravan", "trailer", "train", "motorcycle", "bicycle",
)  # fmt: skip
"""Name of ids 0..33. The licence plate, -1, is 255 in an 8-bit map and counts as unknown here."""

NUM_LABELS = len(NAMES)
IGNORE = 255
INSTANCE_BASE = 1000
"""An instance map holds label * 1000 + n for the n-th object of a label, and the label alone for what has no number."""

COUNTED = frozenset(range(24, 34))
"""Labels whose objects have instances: people, vehicles."""

_EVALUATED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
NUM_TRAIN_LABELS = len(_EVALUATED)

TRAIN_IDS = np.full(256, IGNORE, np.uint8)
"""uint8 [256]: id -> 0..18 for the labels that are evaluated, 255 for all others."""
TRAIN_IDS[list(_EVALUATED)] = np.arange(NUM_TRAIN_LABELS)


class AnnotationPaths(NamedTuple):
    labels: Path
    instances: Path
    polygons: Path


def annotation_paths(image: Path) -> AnnotationPaths:
    """Annotations, below ``<root>/gtFine``, of ``<root>/leftImg8bit/<split>/<city>/<name>_leftImg8bit.png``."""
    name = image.name.removesuffix("_leftImg8bit.png")
    split, city = image.absolute().parents[1].name, image.absolute().parent.name
    stem = image.absolute().parents[3] / "gtFine" / split / city
    ends = ("labelIds.png", "instanceIds.png", "polygons.json")
    return AnnotationPaths(*(stem / f"{name}_gtFine_{end}" for end in ends))


def label_ids(names: list[str]) -> list[int]:
    """Ids of label names.

    Raises:
        ValueError: for an unknown name, with those there are.
    """
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise ValueError(f"no label is called {', '.join(map(repr, unknown))}; there are: {', '.join(NAMES)}")
    return [NAMES.index(name) for name in names]


def label_of_instance(instances: np.ndarray) -> np.ndarray:
    """Label ids, uint8, of an instance map; whatever is no label id becomes 255."""
    labels = np.where(instances >= INSTANCE_BASE, instances // INSTANCE_BASE, instances)
    return np.where((labels >= 0) & (labels < NUM_LABELS), labels, IGNORE).astype(np.uint8)
