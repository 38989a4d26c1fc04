"""Dead leaves: random images with natural-image statistics (Lee, Mumford and Huang, IJCV 2001), coloured and textured.

Ellipses with power-law radii cover each other; every leaf has its own colour, shading and grain. Edges, flat parts,
occlusion and the scale invariance of photographs come out, without a single photograph.
"""

import numpy as np
from PIL import Image

SUPERSAMPLING = 2
SMALLEST_RADIUS = 8.0
"""Before scaling down."""
RADIUS_EXPONENT = 3.0
NOISE = 0.5
"""Deviation of the sensor noise, in grey levels."""
GRAIN = 4.0
"""Mean deviation of a leaf's texture, in grey levels."""
# Natural colours vary mostly in luminance, then along blue-yellow, least along green-magenta.
COLOUR_AXES = np.array([[1.0, 1.0, 1.0], [1.0, 0.1, -1.0], [0.5, -1.0, 0.5]], dtype=np.float32)
COLOUR_SPREAD = np.array([55.0, 22.0, 9.0], dtype=np.float32)
COLOUR_MEAN = np.array([114.0, 111.0, 103.0], dtype=np.float32)


def dead_leaves(height: int, width: int, seed: int) -> np.ndarray:
    """An image [height, width, 3] uint8; a function of its arguments.

    Leaves are laid front to back until nothing shows through, at twice the size; Lanczos scaling then gives the
    edges a camera's softness, and a little sensor noise comes on top.
    """
    rng = np.random.default_rng([seed, height, width])
    h, w = SUPERSAMPLING * height, SUPERSAMPLING * width
    canvas = np.zeros((h, w, 3), dtype=np.float32)
    uncovered = np.ones((h, w), dtype=bool)
    grain = power_law_noise(h, w, rng)
    largest = 0.35 * min(h, w)
    smallest = min(SMALLEST_RADIUS, largest)
    while uncovered.mean() > 0.1:
        for _ in range(16):
            place = (rng.uniform(0, h), rng.uniform(0, w), power_law_radius(rng, smallest, largest))
            lay_leaf(canvas, uncovered, grain, place, rng)
    while uncovered.any():  # the last holes: big leaves behind all others
        holes = np.argwhere(uncovered)
        y, x = holes[rng.integers(len(holes))]
        lay_leaf(canvas, uncovered, grain, (float(y), float(x), largest), rng)
    small = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8)).resize((width, height), Image.Resampling.LANCZOS)
    noisy = np.asarray(small, dtype=np.float32) + rng.normal(0, NOISE, (height, width, 1)).astype(np.float32)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def power_law_radius(rng: np.random.Generator, smallest: float, largest: float) -> float:
    """A radius with density r^-3 on [smallest, largest], by inverting the distribution function."""
    a, b = smallest ** (1 - RADIUS_EXPONENT), largest ** (1 - RADIUS_EXPONENT)
    return float((a + (b - a) * rng.uniform()) ** (1 / (1 - RADIUS_EXPONENT)))


def power_law_noise(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Noise [height, width] with amplitude 1 / frequency, of mean 0 and deviation 1, periodic."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=(height, width))) / frequency
    noise = np.fft.irfft2(spectrum, s=(height, width))
    return (noise / max(noise.std(), 1e-12)).astype(np.float32)


def lay_leaf(
    canvas: np.ndarray,
    uncovered: np.ndarray,
    grain: np.ndarray,
    place: tuple[float, float, float],
    rng: np.random.Generator,
) -> None:
    """Paint one ellipse (centre y, x and longer radius in ``place``) where ``canvas`` still shows through."""
    y, x, radius = place
    angle, aspect = rng.uniform(0, np.pi), rng.uniform(0.4, 1.0)
    colour = COLOUR_MEAN + (rng.normal(size=3) * COLOUR_SPREAD) @ COLOUR_AXES
    slope = rng.normal(0, 12, size=2)
    texture = rng.exponential(GRAIN)
    offset = rng.integers(grain.size)

    rows = slice(max(0, int(y - radius)), min(canvas.shape[0], int(y + radius) + 2))
    columns = slice(max(0, int(x - radius)), min(canvas.shape[1], int(x + radius) + 2))
    v = (np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - y) / radius
    u = (np.arange(columns.start, columns.stop, dtype=np.float32)[None] - x) / radius
    along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
    visible = uncovered[rows, columns] & (along**2 + (across / aspect) ** 2 <= 1)

    grain_rows = (np.arange(rows.start, rows.stop) + offset // grain.shape[1]) % grain.shape[0]
    grain_columns = (np.arange(columns.start, columns.stop) + offset) % grain.shape[1]
    light = slope[0] * v + slope[1] * u + texture * grain[np.ix_(grain_rows, grain_columns)]
    leaf = colour + light[..., None]
    canvas[rows, columns][visible] = leaf[visible]
    uncovered[rows, columns] &= ~visible
