"""Images to bytes and back with a trained encoder and generator.

    compress    image (SC: labels, what to keep) -> pad -> encoder -> symbols -> payload
    decompress  payload -> symbols (SC: labels, kept cells) -> generator -> crop

A lossy codec cannot promise pixels. It promises what payload.py codes: symbols, label map and kept cells are the
encoder's, whatever the machine, and the file holds their checksum. The generator computes in floating point, so that
decoded pixels are equal within one level on one machine, and close on others.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from modules.components.cityscapes_labels import annotation_paths, label_ids, label_of_instance
from modules.components.coding.container import Container, CorruptFileError, Tile, digest
from modules.components.coding.model_file import fingerprint
from modules.components.devices import usable_device
from modules.extreme_gan.masks import scene_channels
from modules.extreme_gan.nets import MULTIPLE, CompressionNet
from modules.extreme_gan.payload import Choice, Code, Grid, kept_cells, read_gc, read_sc, write_gc, write_sc
from modules.extreme_gan.polygons import Polygon, draw, read_polygons

MAX_PIXELS = 1 << 22
"""The generator looks at the whole image at once: about 1 KiB a pixel at full width."""
SHORTEST_SIDE = 32
"""Images are padded to at least this: instance normalisation needs more than one position."""
NOISE_SEED = 0


class SideInformation(NamedTuple):
    """What SC is told of an image of H x W pixels."""

    instances: np.ndarray
    """int64 [H, W], ids of Cityscapes."""
    choice: Choice = Choice()
    polygons: list[Polygon] | None = None
    """If given, they draw ``instances``."""


class Codec:
    """Codec of 8-bit RGB [H, W, 3] and grayscale [H, W] images; grayscale is coded as RGB.

    Args:
        network: a trained ``GCNet`` or ``SCNet``; it is put into eval mode and moved.
        device: where the network runs.
        precision: "float32" or "float64", of the network.
    """

    extension = ".gan"

    def __init__(self, network: CompressionNet, device: str = "cpu", precision: str = "float32") -> None:
        self.fingerprint = fingerprint(network)
        self.prior = network.prior.detach().cpu().float().numpy()
        self.network = network.eval()
        self.device = usable_device(device)
        self.precision = precision

    def compress(
        self,
        image: np.ndarray,
        metadata: dict[str, bytes] | None = None,
        side: SideInformation | None = None,
    ) -> Container:
        """The image as a container, not yet decoded again.

        Raises:
            ValueError: for other than uint8 [H, W] or [H, W, 3] with at least one pixel, for more pixels than a
                decoder accepts, or side information that SC lacks, GC does not take, or that does not fit.
        """
        gray = image.ndim == 2
        if image.dtype != np.uint8 or image.size == 0 or not (gray or (image.ndim == 3 and image.shape[2] == 3)):
            raise ValueError(f"need uint8 pixels [H, W] or [H, W, 3], got {image.dtype} {image.shape}")
        grid = self._grid(*image.shape[:2])
        if grid.padded_height * grid.padded_width > MAX_PIXELS:
            raise ValueError(f"{image.shape[1]} x {image.shape[0]} pixels are more than the {MAX_PIXELS} of this codec")
        self._check_side(side, image.shape[:2])
        symbols = self._encode(image[..., None].repeat(3, -1) if gray else image, grid)
        if side is None:
            code = Code(symbols, np.ones(grid.cells, bool), None)
            payload = write_gc(symbols, self.prior)
        else:
            keep = kept_cells(side.choice, side.instances, grid)
            code = Code(np.where(keep, symbols, 2), keep, side.instances.astype(np.int64))
            payload = write_sc(code, side.choice, side.polygons, grid, self.prior)
        return Container(
            "extreme_gan",
            self.fingerprint,
            "L" if gray else "RGB",
            self.precision,
            0,
            image.shape[1],
            image.shape[0],
            digest_of(code),
            metadata or {},
            [Tile(0, 0, image.shape[1], image.shape[0], payload)],
            lossy=True,
        )

    def side_information(
        self, source: Path, shape: tuple[int, int], keep: str | None = None, box: str | None = None
    ) -> SideInformation | None:
        """What SC is told of the image file ``source`` of that height and width; None for GC.

        Raises:
            FileNotFoundError, ValueError: see ``side_information``; also if GC is asked to keep something.
        """
        if self.network.num_labels:
            return side_information(source, shape, keep=keep, box=box)
        if keep is not None or box is not None:
            raise ValueError("generative compression keeps everything: leave out --keep and --box")
        return None

    def read(self, container: Container) -> Code:
        """What the file holds exactly, without any network.

        Raises:
            CorruptFileError: if the file was written by another model or is damaged.
        """
        if container.model != self.fingerprint:
            raise CorruptFileError(f"the file needs model {container.model.hex()}, this is {self.fingerprint.hex()}")
        grid = self._grid(container.height, container.width)
        if grid.padded_height * grid.padded_width > MAX_PIXELS or len(container.tiles) != 1:
            raise CorruptFileError("the file has more tiles or pixels than this codec writes")
        read = read_sc if self.network.num_labels else read_gc
        code = read(container.tiles[0].payload, grid, self.prior)
        if digest_of(code) != container.pixels:
            raise CorruptFileError("the payload does not decode to what the file was made from")
        return code

    def decompress(self, container: Container) -> np.ndarray:
        """The pixels, uint8 [H, W] or [H, W, 3].

        Raises:
            CorruptFileError: as ``read``.
        """
        code = self.read(container)
        grid = self._grid(container.height, container.width)
        pixels = self._decode(code, grid)[: grid.height, : grid.width]
        return pixels.mean(-1).round().astype(np.uint8) if container.mode == "L" else np.ascontiguousarray(pixels)

    def _grid(self, height: int, width: int) -> Grid:
        rows, columns = (max(-(-side // MULTIPLE) * MULTIPLE, SHORTEST_SIDE) for side in (height, width))
        return Grid(height, width, rows, columns, self.network.stride)

    def _check_side(self, side: SideInformation | None, shape: tuple[int, ...]) -> None:
        if self.network.num_labels and side is None:
            raise ValueError("selective compression needs a label map beside the image")
        if side is not None and not self.network.num_labels:
            raise ValueError("generative compression codes the whole image: it takes no labels")
        if side is not None and side.instances.shape != shape:
            raise ValueError(f"the label map {side.instances.shape} is not as large as the image {tuple(shape)}")

    def _place(self) -> torch.dtype:
        dtype = getattr(torch, self.precision)
        self.network.to(self.device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return dtype

    @torch.inference_mode()
    def _encode(self, image: np.ndarray, grid: Grid) -> np.ndarray:
        """Symbols int64 [C, h, w] of pixels [H, W, 3], which are reflected beyond the borders."""
        dtype = self._place()
        padding = (0, grid.padded_height - grid.height), (0, grid.padded_width - grid.width), (0, 0)
        padded = np.pad(image, padding, mode="reflect")
        x = torch.from_numpy(padded).to(self.device, dtype).permute(2, 0, 1)[None] / 127.5 - 1
        return self.network.encode(x).symbols[0].cpu().numpy()

    @torch.inference_mode()
    def _decode(self, code: Code, grid: Grid) -> np.ndarray:
        """Pixels uint8 of the padded size."""
        dtype = self._place()
        keep = torch.from_numpy(code.keep).to(self.device, dtype)
        values = self.network.quantizer.levels[torch.from_numpy(code.symbols).to(self.device)] * keep
        labels = None if code.instances is None else self._labels(code.instances, grid).to(dtype)
        noise = self.network.noise(1, grid.padded_height, grid.padded_width, NOISE_SEED)
        x_hat = self.network.decode(values[None].to(dtype), labels, noise)[0]
        return ((x_hat.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()

    def _labels(self, instances: np.ndarray, grid: Grid) -> Tensor:
        padding = (0, grid.padded_height - grid.height), (0, grid.padded_width - grid.width)
        padded = np.pad(instances, padding, mode="edge")
        labels = torch.from_numpy(label_of_instance(padded).astype(np.int64))[None].to(self.device)
        return scene_channels(labels, torch.from_numpy(padded)[None].to(self.device), self.network.num_labels)


def digest_of(code: Code) -> bytes:
    """8 bytes of everything that the payload codes."""
    parts = [code.symbols.astype(np.int8), code.keep.astype(np.int8)]
    if code.instances is not None:
        parts.append(code.instances.astype("<i4"))
    return digest(b"".join(np.ascontiguousarray(part).tobytes() for part in parts))


def choose(instances: np.ndarray, keep: str | None = None, box: str | None = None) -> Choice:
    """What ``--keep person,car`` or ``--box x,y,w,h`` ask for.

    Raises:
        ValueError: for both, unknown labels, or other than four whole numbers.
    """
    if keep is not None and box is not None:
        raise ValueError("--keep and --box exclude each other")
    if box is not None:
        try:
            left, top, width, height = (int(number) for number in box.split(","))
        except ValueError as error:
            raise ValueError(f"--box takes x,y,width,height in pixels, not {box!r}") from error
        return Choice(box=(left, top, width, height))
    if keep is None:
        return Choice()
    wanted = label_ids([name.strip() for name in keep.split(",") if name.strip()])
    found = np.unique(instances)
    return Choice(instances=tuple(found[np.isin(label_of_instance(found), wanted)].tolist()))


def side_information(source: Path, shape: tuple[int, int], **wishes: Any) -> SideInformation:
    """Labels of an image in the layout of Cityscapes, from its polygons if they are there; ``wishes`` as ``choose``.

    Raises:
        FileNotFoundError: if there are no annotations, naming the file that is looked for.
        ValueError: if they do not fit the image.
    """
    from PIL import Image

    paths = annotation_paths(source)
    height, width = shape
    if paths.polygons.is_file():
        polygons = read_polygons(paths.polygons, height, width)
        instances = draw(polygons, height, width)
        return SideInformation(instances, choose(instances, **wishes), polygons)
    if not paths.instances.is_file():
        raise FileNotFoundError(f"selective compression needs {paths.polygons} or {paths.instances}, as in Cityscapes")
    try:
        with Image.open(paths.instances, formats=("PNG",)) as image:
            if image.size != (width, height) or image.mode not in ("I;16", "I;16B", "I"):
                raise ValueError(f"{image.size[0]} x {image.size[1]} pixels of mode {image.mode}")
            instances = np.array(image).astype(np.int64)
    except Exception as error:  # Pillow's parsers raise nearly anything on damaged bytes
        raise ValueError(f"{paths.instances} is no instance map of {width} x {height} pixels: {error}") from error
    return SideInformation(instances, choose(instances, **wishes))
