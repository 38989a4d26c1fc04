"""Many tiles at once on any device that torch knows: the files are those of wavefront.py, byte for byte.

The network and its mixtures are tensors of whole numbers on the device: float32 below 2^24 up to the last layer's sums,
int64 behind them. Only histograms and entropy coder, chains through all symbols of a tile, run on the CPU.

    encode  all pixels are known: contexts, matrix products and the mixture's mass below and above every symbol, strip
            by strip; they go to the CPU in the order of the waves, where histograms make intervals of them
    decode  wave by wave through all tiles together, tiles of other sizes too, and in each wave green, red, blue:
            the mixtures of its pixels go to the CPU, the symbols that it finds come back

Letters as in context.py: M pixels, N neighbours, K mixtures.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from modules.components.coding import logistic_mixture
from modules.components.coding.rans import (
    PRECISION,
    TOTAL,
    CorruptStreamError,
    check_exhausted,
    encode_intervals,
    open_stream,
    pop,
    slot_of,
)
from modules.components.exact import check_products
from modules.components.kernels import kernel
from modules.pixel_mlp.context import (
    GREEN,
    LOG_ACTIVITY,
    OFFSETS,
    REACH,
    SCALE_STEPS,
    Context,
    described,
    looked_up,
    nearest_mean,
    pad,
    tables_on,
    tensor_contexts,
)
from modules.pixel_mlp.histogram import (
    FIRST_STEP_END,
    NUM_SYMBOLS,
    SCALE_STEP,
    SCALES,
    context_at,
    corrected,
    find_corrected,
    learn,
    new_histograms,
)
from modules.pixel_mlp.nets import MEAN_STEPS, SKIP_BITS, ChannelPredictor, PixelMLP, whole_sums
from modules.pixel_mlp.wavefront import (
    FIRST_SCALE,
    LAG,
    LAST_BITS,
    LAST_SCALE,
    MEAN_LIMIT,
    pixels_of,
    rows_of,
)

Shape = tuple[int, int, int]
"""Height, width and channels, 1 or 3, of a tile."""

STRIP_PIXELS = 1 << 17
"""Pixels whose mixtures are computed together while encoding: about half a gigabyte."""
BATCH_PIXELS = 1 << 24
"""Pixels that are decoded together, each tile counted as the largest: about a hundred bytes a pixel."""
HISTOGRAM_PIXELS = 512
"""Pixels that take as much memory as the histograms of a tile: a smaller tile counts as so many."""


class Lookups(NamedTuple):
    """The tables of logistic_mixture.py and the log activity, int64 on the device."""

    weight: Tensor
    inverse_scale: Tensor
    logistic: Tensor
    log_activity: Tensor


class WholeNumbers(NamedTuple):
    """Weights of one channel on the device, as ``whole_sums`` takes them."""

    layers: list[tuple[Tensor, Tensor]]
    skip: Tensor

    @classmethod
    def of(cls, predictor: ChannelPredictor, device: torch.device) -> "WholeNumbers":
        layers = [(w.detach().to(device), b.detach().to(device)) for w, b in predictor.integer_layers()]
        return cls(layers, predictor.integer_skip().detach().to(device))


def _shifted(total: Tensor, bits: int) -> Tensor:
    """Whole numbers in float32, divided by 2^bits, halves upwards."""
    return (total.long() + (1 << (bits - 1))) >> bits


class Wave(NamedTuple):
    """Positions, in one plane of a stack of padded tiles [tiles, H + 3, W + 6], that have to do with one wave."""

    pixels: Tensor
    """[P] of the wave's pixels, by tile and row."""
    sources: Tensor
    """Those of them that the frame around their tile repeats,"""
    targets: Tensor
    """and where it does."""


def waves_of(shapes: Sequence[Shape], rows: int, columns: int, device: torch.device) -> Iterator[Wave]:
    """All waves of tiles that lie in planes of ``rows`` times ``columns`` each, whatever their own sizes are."""
    pixels, sources, targets = [], [], []
    for number, (height, width, _) in enumerate(shapes):
        y, x = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
        place = (number * rows + y + REACH) * columns + x + REACH
        own = torch.stack((place, (LAG * y + x).expand_as(place)))  # position and wave
        right, left = own[:, :, -1:].repeat(1, 1, REACH), own[:, :-1, :1].repeat(1, 1, REACH)
        steps = torch.arange(1, REACH + 1, device=device)
        pixels.append(own.flatten(1))
        sources += [right.flatten(1), left.flatten(1)]
        targets += [(right[0] + steps).flatten(), (left[0] + columns - steps).flatten()]
    (place, wave), (source, source_wave) = torch.cat(pixels, dim=1), torch.cat(sources, dim=1)
    count = wave.bincount()
    frame_count = source_wave.bincount(minlength=len(count))
    order, frame_order = wave.argsort(stable=True), source_wave.argsort(stable=True)
    frame = (tensor[frame_order].split(frame_count.tolist()) for tensor in (source, torch.cat(targets)))
    return itertools.starmap(Wave, zip(place[order].split(count.tolist()), *frame, strict=True))


@kernel()
def _intervals(below, above, steps, symbols, height, width, histograms, starts, frequencies):
    """Intervals of a tile's symbols, which come with masses and scale steps, all [n], in the order of coding."""
    num_channels, n = len(symbols) // (height * width), 0
    for wave in range(width + LAG * (height - 1)):
        top, count = rows_of(wave, height, width)
        for channel in range(num_channels):
            for y in range(top, top + count):
                x = wave - LAG * y
                context = context_at(histograms, 0, channel, y, x, steps[n])
                curve = histograms.curves[0, channel, context]
                start = corrected(below[n], symbols[n], curve)
                starts[n] = start
                frequencies[n] = corrected(above[n], symbols[n] + 1, curve) - start
                learn(histograms, 0, channel, y, x, context, below[n], above[n])
                n += 1


def stream_of(parts: np.ndarray, height: int, width: int) -> bytes:
    """The stream of one tile, from mass below, mass above, scale step and value [4, n] in the order of coding."""
    starts, frequencies = np.empty(parts.shape[1], np.uint16), np.empty(parts.shape[1], np.uint16)
    _intervals(*parts.astype(np.int64), height, width, new_histograms(1, height, width), starts, frequencies)
    return encode_intervals(starts, frequencies)


@kernel()
def _pop_wave(wave, channel, shapes, mixtures, histograms, words, ends, states, positions, symbols):
    """Symbols [P] of one wave and channel of all tiles, their mixtures [P, 3 K + 1]; states and positions go on."""
    num, n = mixtures.shape[1] // 3, 0
    for tile in range(len(shapes)):
        own = words[ends[tile - 1] if tile > 0 else 0 : ends[tile]]
        top, count = rows_of(wave, shapes[tile, 0], shapes[tile, 1])
        for y in range(top, top + count):
            weights, means, inverses = mixtures[n, :num], mixtures[n, num : 2 * num], mixtures[n, 2 * num : 3 * num]
            x, total, slot = wave - LAG * y, weights.sum(), slot_of(states[tile])
            context = context_at(histograms, tile, channel, y, x, mixtures[n, 3 * num])
            symbols[n], start, stop, below, above = find_corrected(
                slot, num, weights, total, means, inverses, histograms.curves[tile, channel, context]
            )
            states[tile], positions[tile] = pop(states[tile], positions[tile], own, start, stop - start)
            learn(histograms, tile, channel, y, x, context, below, above)
            n += 1


class Streams:
    """The entropy decoders of several tiles, which go from wave to wave together.

    Raises:
        CorruptStreamError: if one is too short or starts impossibly.
    """

    def __init__(self, streams: Sequence[bytes], shapes: Sequence[Shape]) -> None:
        states, words = zip(*map(open_stream, streams), strict=True)
        self.shapes = np.array(shapes)
        self.states, self.positions = np.array(states), np.zeros(len(states), np.int64)
        self.histograms = new_histograms(len(states), *self.shapes[:, :2].max(0))
        self.words, self.ends = np.concatenate(words), np.cumsum([len(own) for own in words])

    def pop(self, wave: int, channel: int, mixtures: np.ndarray) -> np.ndarray:
        """Symbols int16 [P] of one wave and channel. Raises CorruptStreamError if a stream ends before they do."""
        symbols = np.empty(len(mixtures), np.int16)
        coder = self.words, self.ends, self.states, self.positions
        _pop_wave(wave, channel, self.shapes, mixtures, self.histograms, *coder, symbols)
        if (self.positions > np.diff(self.ends, prepend=0)).any():
            raise CorruptStreamError("an entropy-coded stream ends before its symbols do")
        return symbols

    def check_exhausted(self) -> None:
        """Raises CorruptStreamError unless all ended where their encoders began."""
        for state, position, own in zip(self.states, self.positions, np.split(self.words, self.ends[:-1]), strict=True):
            check_exhausted(int(state), int(position), own)


class BatchCoder:
    """Streams of many tiles with one network on one device.

    Args:
        network: it stays where it is.
        device: of the whole numbers.

    Raises:
        InexactWeightsError: for weights whose sums float32 could not hold.
    """

    def __init__(self, network: PixelMLP, device: torch.device) -> None:
        network.check_bounds()
        self.device = device
        self.tables = tables_on(device)
        self.lookups = Lookups(
            *(
                torch.from_numpy(table).to(device, torch.int64)
                for table in (
                    logistic_mixture.WEIGHT,
                    logistic_mixture.INVERSE_SCALE,
                    logistic_mixture.LOGISTIC,
                    LOG_ACTIVITY,
                )
            )
        )
        self.channels = [WholeNumbers.of(channel, device) for channel in network.channels]  # type: ignore[arg-type]

    def mixtures(self, context: Context, channel: int) -> Tensor:
        """int64 [M, 3 K + 1]: weights, means in 1/256 grey level, inverse scales, scale step, as in ``wavefront``."""
        with torch.autocast(self.device.type, enabled=False):
            raw, linear = whole_sums(*self.channels[channel], context.inputs, context.differences)
        logits, offsets, log_scales = raw.chunk(3, dim=1)
        activity = context.activity.long()[:, None]
        logits = _shifted(logits, LAST_BITS - 5)
        below = logits.amax(1, keepdim=True) - logits
        weights = looked_up(self.lookups.weight, below.clamp(max=len(self.lookups.weight) - 1))
        centre = context.base.long() * MEAN_STEPS + _shifted(linear, SKIP_BITS - 8)
        means = centre[:, None] + (((activity + 4) * _shifted(offsets, LAST_BITS - 6)) >> 1)
        scale = looked_up(self.lookups.log_activity, activity) + _shifted(log_scales, LAST_BITS - 5)
        scale = scale.clamp(FIRST_SCALE, LAST_SCALE)
        inverses = looked_up(self.lookups.inverse_scale, scale + 7 * SCALE_STEPS)
        average = (weights * scale).sum(1, keepdim=True) // weights.sum(1, keepdim=True)
        step = ((average - FIRST_STEP_END) // SCALE_STEP + 1).clamp(0, SCALES - 1)
        return torch.cat((weights, means.clamp(-MEAN_LIMIT, MEAN_LIMIT), inverses, step), dim=1)

    def mass_at(self, edge: Tensor, mixtures: Tensor) -> Tensor:
        """Mass 0..65536 [M] below symbols int64 [M]: ``histogram.mass_at`` by tensor operations."""
        weights, means, inverses = mixtures[:, :-1].chunk(3, dim=1)
        limit = logistic_mixture.LOGISTIC_LIMIT
        t = ((edge[:, None] * MEAN_STEPS - MEAN_STEPS // 2 - means) * inverses) >> 16
        t = t.clamp(-limit, limit) + limit
        index = t >> 10
        below, above = looked_up(self.lookups.logistic, index), looked_up(self.lookups.logistic, index + 1)
        mass = (weights * (below + (((above - below) * (t & 1023)) >> 10))).sum(1)
        inside = mass // (weights.sum(1) << (28 - PRECISION))
        return torch.where(edge <= 0, 0, torch.where(edge >= NUM_SYMBOLS, TOTAL, inside))

    @torch.inference_mode()
    def encode(self, tiles: Sequence[np.ndarray]) -> Iterator[bytes]:
        """The streams of tiles uint8 [h, w, 1 or 3], in their order; neighbours of one size are taken together.

        Raises:
            RuntimeError: if the device rounds matrix products.
        """
        check_products(self.device)
        for (height, width, channels), group in itertools.groupby(tiles, key=lambda tile: tile.shape):
            order = _order(height, width, channels, self.device)
            while together := list(itertools.islice(group, max(1, STRIP_PIXELS // (height * width)))):
                image = torch.from_numpy(np.stack(together)).to(self.device).permute(0, 3, 1, 2).expand(-1, 3, -1, -1)
                parts = self._parts(image, channels).flatten(2).index_select(2, order).cpu().numpy()
                for own in parts.swapaxes(0, 1):
                    yield stream_of(own, height, width)

    def _parts(self, image: Tensor, channels: int) -> Tensor:
        """What ``stream_of`` takes, for images uint8 [B, 3, H, W]: int32 [4, B, channels, H, W]."""
        padded = pad(image)
        number, _, height, width = image.shape
        rows = max(1, STRIP_PIXELS // (number * width))
        strips = []
        for top in range(0, height, rows):
            parts = []
            known = tensor_contexts(padded[:, :, top : top + rows + REACH], self.tables)
            for channel, context in enumerate(known[:channels]):
                mixtures, symbol = self.mixtures(context, channel), context.target.long()
                below, above = self.mass_at(symbol, mixtures), self.mass_at(symbol + 1, mixtures)
                own = torch.stack((below, above, mixtures[:, -1], symbol)).int()
                parts.append(own.view(4, number, -1, width))
            strips.append(torch.stack(parts, dim=2))
        return torch.cat(strips, dim=3)

    @torch.inference_mode()
    def decode(self, streams: Sequence[bytes], shapes: Sequence[Shape]) -> list[np.ndarray]:
        """Pixels uint8 of streams of tiles of these shapes, all with the same number of channels.

        Raises:
            CorruptStreamError: if a stream does not fit the network.
            RuntimeError: if the device rounds matrix products.
        """
        check_products(self.device)
        known, channels = Streams(streams, shapes), shapes[0][2]
        rows, columns = max(shape[0] for shape in shapes) + REACH, max(shape[1] for shape in shapes) + 2 * REACH
        planes = torch.zeros(3, len(shapes) * rows * columns, dtype=torch.int16, device=self.device)
        planes[GREEN] = 128
        offsets = torch.tensor([y * columns + x for y, x in OFFSETS], device=self.device)
        for number, wave in enumerate(waves_of(shapes, rows, columns, self.device)):
            around = planes[:, wave.pixels[:, None] + offsets].float()
            mean = nearest_mean(around)
            for channel in range(channels):
                context = described(around, planes[:, wave.pixels].float(), mean, channel, self.tables)
                symbols = known.pop(number, channel, self.mixtures(context, channel).cpu().numpy())
                values = torch.from_numpy(symbols).to(self.device)
                planes[channel, wave.pixels] = values if channel == GREEN else values - planes[GREEN, wave.pixels]
            planes[:, wave.targets] = planes[:, wave.sources]
        known.check_exhausted()
        stack = planes.view(3, len(shapes), rows, columns).permute(1, 2, 3, 0).cpu().numpy()
        return [
            pixels_of(own[: height + REACH, : width + 2 * REACH], channels)
            for own, (height, width, _) in zip(stack, shapes, strict=True)
        ]


def _order(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Positions in [channels, height, width] in the order of coding: wave, channel, row."""
    y, x = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    key = torch.stack([((LAG * y + x) * channels + channel) * height + y for channel in range(channels)])
    return key.flatten().argsort()


def batches(shapes: Sequence[Shape]) -> Iterator[range]:
    """Runs of consecutive tiles to decode together: of one number of channels, within ``BATCH_PIXELS``."""
    start, height, width = 0, 0, 0
    for i, shape in enumerate(shapes):
        height, width = max(height, shape[0]), max(width, shape[1])
        pixels = (i + 1 - start) * max(height * width, HISTOGRAM_PIXELS)
        if i > start and (shape[2] != shapes[start][2] or pixels > BATCH_PIXELS):
            yield range(start, i)
            start, (height, width) = i, shape[:2]
    if len(shapes) > start:
        yield range(start, len(shapes))
