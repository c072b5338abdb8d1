"""Draws the demo's picture, a lake in rain at dusk: ``make_picture.py OUT.jpg``.

Needs numpy and Pillow, which nothing else here does; the picture it made lies beside it.
"""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Array = npt.NDArray[np.float64]

WIDTH, HEIGHT = 1600, 1066
HORIZON = 640


def fractal_noise(rng: np.random.Generator, height: int, width: int, rough: float) -> Array:
    """Return noise in 0..1 whose spectrum falls as 1/f**rough: clouds, ridges, ripples."""
    frequencies_y = np.fft.fftfreq(height)[:, None] * height
    frequencies_x = np.fft.rfftfreq(width)[None, :] * width
    radius = np.maximum(1.0, np.hypot(frequencies_y, frequencies_x))
    phases = np.exp(2j * np.pi * rng.random(radius.shape))
    field = np.fft.irfft2(phases / radius**rough, s=(height, width))
    return np.asarray((field - field.min()) / (field.max() - field.min()))


def sky(rng: np.random.Generator) -> Array:
    """Return the picture with its sky alone: a gradient, a low sun, torn clouds."""
    y = np.linspace(0, 1, HEIGHT)[:, None, None]
    high, low = np.array([0.16, 0.25, 0.42]), np.array([0.98, 0.66, 0.42])
    picture = high + (low - high) * np.clip(y * HEIGHT / HORIZON, 0, 1) ** 1.6
    picture = np.broadcast_to(picture, (HEIGHT, WIDTH, 3)).copy()
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    distance = np.hypot(rows - HORIZON + 70, columns - WIDTH * 0.68)
    glow = np.exp(-distance / 210)[..., None]
    picture += glow * np.array([0.55, 0.36, 0.16])
    picture[distance < 34] = [1.0, 0.93, 0.78]
    clouds = fractal_noise(rng, HEIGHT, WIDTH, 1.75)
    stretched = np.repeat(clouds[:, ::4], 4, axis=1)[:, :WIDTH]
    cover = np.clip((stretched - 0.5) * 3.2, 0, 1)[..., None]
    lit = np.array([0.62, 0.48, 0.5]) + glow * 0.5
    return np.asarray(picture * (1 - 0.7 * cover) + lit * 0.7 * cover)


def ridges(rng: np.random.Generator, picture: Array) -> None:
    """Draw five ranges of hills, each nearer, darker and rougher than the one behind it."""
    haze = np.array([0.62, 0.5, 0.5])
    near = np.array([0.07, 0.1, 0.11])
    for layer in range(5):
        share = layer / 4
        profile = fractal_noise(rng, 2, WIDTH * 2, 1.9 - 0.35 * share)[0, :WIDTH]
        top = HORIZON - (210 - 150 * share) * profile - 30 * (1 - share)
        texture = fractal_noise(rng, HEIGHT, WIDTH, 1.1) * 0.09
        colour = haze + (near - haze) * (0.35 + 0.65 * share)
        inside = np.arange(HEIGHT)[:, None] >= top[None, :]
        shaded = colour + (texture[..., None] - 0.04) * (0.3 + share)
        picture[inside] = shaded[inside]


def lake(rng: np.random.Generator, picture: Array) -> None:
    """Mirror what stands above the horizon, broken by ripples that grow towards us."""
    ripples = fractal_noise(rng, HEIGHT, WIDTH, 1.2) - 0.5
    for row in range(HORIZON, HEIGHT):
        depth = (row - HORIZON) / (HEIGHT - HORIZON)
        mirrored = HORIZON - 1 - (row - HORIZON)
        shift = (ripples[row] * (6 + 90 * depth)).astype(int)
        source = np.clip(mirrored + shift, 0, HORIZON - 1)
        columns = np.clip(np.arange(WIDTH) + shift // 3, 0, WIDTH - 1)
        tint = np.array([0.05, 0.09, 0.13])
        picture[row] = picture[source, columns] * (0.78 - 0.3 * depth) + tint
        picture[row] += (ripples[row] * 0.10 * depth)[:, None]


def rain_and_grain(rng: np.random.Generator, picture: Array) -> None:
    """Add slanted streaks of rain and the grain of a sensor."""
    for _ in range(900):
        length = int(rng.integers(14, 46))
        row, column = int(rng.integers(0, HEIGHT - length)), int(rng.integers(12, WIDTH))
        rows = np.arange(row, row + length)
        columns = np.clip(column - (rows - row) // 5, 0, WIDTH - 1)
        picture[rows, columns] += rng.uniform(0.03, 0.11)
    picture += rng.normal(0, 0.018, picture.shape)


def main(path: str) -> None:
    """Draw the picture and write it as a JPEG."""
    rng = np.random.default_rng(20261123)
    picture = sky(rng)
    ridges(rng, picture)
    lake(rng, picture)
    rain_and_grain(rng, picture)
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    image.filter(ImageFilter.GaussianBlur(0.6)).save(path, quality=94, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])
