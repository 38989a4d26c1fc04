"""Street scenes with label and instance maps in the layout of Cityscapes: finding, reading, resizing, drawing.

Layout, with ``*`` a city and ``name`` such as ``aachen_000000_000019``::

    <root>/leftImg8bit/<split>/*/<name>_leftImg8bit.png        8-bit RGB
    <root>/gtFine/<split>/*/<name>_gtFine_labelIds.png         8-bit label ids
    <root>/gtFine/<split>/*/<name>_gtFine_instanceIds.png      16-bit instance ids
    <root>/gtFine/<split>/*/<name>_gtFine_polygons.json        optional
"""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from datamodules.images.reading import UNREADABLE, SkippedImageError, decode, map_in_threads
from modules.components.cityscapes_labels import IGNORE, NUM_LABELS, TRAIN_IDS, AnnotationPaths, annotation_paths

log = logging.getLogger(__name__)

NO_MAPS = "without label or instance map"
WRONG_MAPS = "with maps of another size or type"

HOW_TO_GET = (
    "Expected is <root>/leftImg8bit/<split>/<city>/*_leftImg8bit.png and <root>/gtFine/<split>/<city>/"
    "*_gtFine_{labelIds,instanceIds}.png: unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip of "
    "https://www.cityscapes-dataset.com/downloads there. Set the folder by root or PARSIMONY_DATA"
)

Maps = dict[str, Tensor]
"""``image`` uint8 [3, H, W], ``mask`` uint8 [H, W], ``instance`` int32 [H, W]."""


class Scene(NamedTuple):
    name: str
    image: Path
    truth: AnnotationPaths


def find_scenes(root: Path, split: str) -> list[Scene]:
    """All scenes of a split, ordered by path; whether their maps exist is not looked at.

    Raises:
        FileNotFoundError: if a folder is missing.
        ValueError: if there is no image.
    """
    images, truth = root / "leftImg8bit" / split, root / "gtFine" / split
    for folder in (images, truth):
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}. {HOW_TO_GET}")
    paths = sorted(images.glob("*/*_leftImg8bit.png"))
    scenes = [Scene(path.name.removesuffix("_leftImg8bit.png"), path, annotation_paths(path)) for path in paths]
    if not scenes:
        raise ValueError(f"no *_leftImg8bit.png in the folders of {images}. {HOW_TO_GET}")
    return scenes


def _read_map(path: Path, modes: tuple[str, ...]) -> np.ndarray:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.mode not in modes:
                raise SkippedImageError(WRONG_MAPS)
            return np.array(image)
    except FileNotFoundError as error:
        raise SkippedImageError(NO_MAPS) from error
    except SkippedImageError:
        raise
    except Exception as error:  # Pillow's parsers raise nearly anything on damaged bytes
        raise SkippedImageError(UNREADABLE) from error


def read_scene(scene: Scene, size: tuple[int, int], train_ids: bool = False) -> Maps:
    """The scene at ``size`` (height, width): the image resized with antialiasing, its maps by the nearest pixel.

    Args:
        train_ids: labels 0..18 of the evaluated classes instead of ids 0..33; all others are 255 in both.

    Raises:
        SkippedImageError: for a damaged or missing file, or maps that do not belong to the image.
    """
    pixels = decode(scene.image)
    labels = _read_map(scene.truth.labels, ("L",))
    instances = _read_map(scene.truth.instances, ("I;16", "I;16B", "I")).astype(np.int32)
    if labels.shape != pixels.shape[:2] or instances.shape != pixels.shape[:2]:
        raise SkippedImageError(WRONG_MAPS)
    labels = TRAIN_IDS[labels] if train_ids else np.where(labels < NUM_LABELS, labels, IGNORE).astype(np.uint8)
    maps = {
        "image": tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1)),
        "mask": tv_tensors.Mask(torch.from_numpy(labels)),
        "instance": tv_tensors.Mask(torch.from_numpy(instances)),
    }
    return {name: functional.resize(item, list(size)).as_subclass(Tensor).contiguous() for name, item in maps.items()}


def random_view(maps: Maps, crop: tuple[int, int] | None, key: tuple[int, int, int]) -> Maps:
    """Image and maps cropped at one uniform position and mirrored together with probability 1/2.

    A function of ``key`` alone.
    """
    generator = np.random.default_rng(key)
    height, width = maps["image"].shape[-2:]
    rows, columns = crop or (height, width)
    top, left = int(generator.integers(height - rows + 1)), int(generator.integers(width - columns + 1))
    mirror = bool(generator.integers(2))
    view = {}
    for name, item in maps.items():
        item = functional.crop(item, top, left, rows, columns)
        view[name] = functional.horizontal_flip(item) if mirror else item
    return view


class Scenes(Dataset):
    """Scenes as dicts: ``image`` uint8 [3, H, W], ``mask`` and ``instance`` int64 [H, W], ``name``.

    A draw is (epoch, index), or only an index, which gives the whole scene unmirrored. A scene whose files turn out
    to be unusable is named once and replaced by the next usable one.

    Args:
        scenes: of one split.
        size: height and width that all are resized to.
        crop: height and width of random crops.
        train_ids: see ``read_scene``.
        seed: of positions and flips.
    """

    def __init__(
        self,
        scenes: list[Scene],
        size: tuple[int, int],
        crop: tuple[int, int] | None = None,
        train_ids: bool = False,
        seed: int = 0,
    ) -> None:
        self.scenes, self.size, self.crop = scenes, size, crop
        self.train_ids, self.seed = train_ids, seed
        self.loaded: list[Maps | None] = [None] * len(scenes)
        self.unusable = torch.zeros(len(scenes), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, draw: tuple[int, int] | int) -> dict[str, Any]:
        epoch, index = draw if isinstance(draw, tuple) else (None, draw)
        position, maps = self._usable(index)
        if epoch is not None:
            maps = random_view(maps, self.crop, (self.seed, epoch, index))
        return {
            "image": maps["image"].contiguous(),
            "mask": maps["mask"].long(),
            "instance": maps["instance"].long(),
            "name": self.scenes[position].name,
        }

    def drop_unusable(self, keep: bool, quiet: bool) -> dict[str, list[str]]:
        """Read every scene once, leave out what cannot be used, and ``keep`` the others in memory.

        Returns:
            names of the scenes left out, by reason.
        """

        def attempt(scene: Scene) -> Maps | str:
            try:
                maps = read_scene(scene, self.size, self.train_ids)
            except SkippedImageError as error:
                return error.reason
            return maps if keep else {}

        skipped: dict[str, list[str]] = {}
        scenes, loaded = [], []
        for scene, result in zip(
            self.scenes, map_in_threads(attempt, self.scenes, "reading scenes", quiet), strict=True
        ):
            if isinstance(result, str):
                skipped.setdefault(result, []).append(scene.name)
            else:
                scenes.append(scene)
                loaded.append(result or None)
        self.scenes, self.loaded = scenes, loaded
        self.unusable = self.unusable[: len(scenes)]
        return skipped

    def _usable(self, index: int) -> tuple[int, Maps]:
        for step in range(len(self.scenes)):
            position = (index + step) % len(self.scenes)
            maps = self.loaded[position]
            if maps is not None:
                return position, maps
            if not self.unusable[position]:
                try:
                    return position, read_scene(self.scenes[position], self.size, self.train_ids)
                except SkippedImageError as error:
                    self.unusable[position] = True
                    count = int(self.unusable.sum())
                    log.warning("skipping %s: %s (%d so far)", self.scenes[position].image, error.reason, count)
        raise ValueError(f"none of the {len(self.scenes)} scenes can be read")
