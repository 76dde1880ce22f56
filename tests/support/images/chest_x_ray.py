"""Draw a frontal chest X-ray: the attenuation of simple bodies of soft tissue, air and bone, added up."""

from itertools import pairwise

import numpy as np
from PIL import Image, ImageFilter

_RIBS = 9


def chest_x_ray(side: int = 320, *, seed: int = 3) -> np.ndarray:
    """Return grey values [side, side], uint8; bone is bright."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    depth = _trunk(x, y) + _lungs(x, y) + _heart(x, y) + _bones(x, y)
    chance = np.random.default_rng(seed)
    # More tissue lets fewer photons through, which is more noise.
    depth += chance.normal(0, 0.012, depth.shape) * (0.5 + depth)
    low, high = np.quantile(depth[np.abs(x) < 0.8], (0.01, 0.999))
    grey = 255 * np.clip((depth - low) / (high - low), 0, 1) ** 0.85
    return np.asarray(Image.fromarray(grey.astype(np.uint8)).filter(ImageFilter.GaussianBlur(side / 450)))


def _ball(x: np.ndarray, y: np.ndarray, cx: float, cy: float, wide: float, high: float, turn: float = 0) -> np.ndarray:
    """Return the depth of an ellipsoid seen from the front, 1 in its middle."""
    cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    along, across = (x - cx) * cos + (y - cy) * sin, (y - cy) * cos - (x - cx) * sin
    return np.sqrt(np.clip(1 - (along / wide) ** 2 - (across / high) ** 2, 0, None))


def _tube(x: np.ndarray, y: np.ndarray, path: np.ndarray, radius: float) -> np.ndarray:
    """Return the depth of a tube around the points of `path` [points, 2], 1 in its middle."""
    nearest = np.full(x.shape, np.inf, np.float32)
    for (ax, ay), (bx, by) in pairwise(path):
        length = (bx - ax) ** 2 + (by - ay) ** 2
        at = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length, 0, 1)
        nearest = np.minimum(nearest, (x - ax - at * (bx - ax)) ** 2 + (y - ay - at * (by - ay)) ** 2)
    return np.sqrt(np.clip(1 - nearest / radius**2, 0, None))


def _trunk(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    shoulder = 1 / (1 + np.exp(-(y + 0.72) * 16))
    half = 0.2 + 0.76 * shoulder - 0.1 * np.clip(y, 0, 1)
    body = np.sqrt(np.clip(1 - (x / half) ** 2, 0, None))
    return body * (0.72 + 0.35 * np.clip(y + 0.2, 0, 1))


def _lungs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    found = np.zeros_like(x)
    for side, floor in ((-1, 0.42), (1, 0.5)):
        lung = _ball(x, y, side * 0.40, -0.02, 0.36, 0.74, side * 4) ** 0.6
        dome = floor + 0.9 * (x - side * 0.36) ** 2
        found += 0.62 * lung / (1 + np.exp((y - dome) * 60))
    return -0.95 * found


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    heart = 0.42 * _ball(x, y, 0.13, 0.24, 0.33, 0.25, 28) + 0.2 * _ball(x, y, -0.08, 0.2, 0.15, 0.22)
    middle = 0.3 * _ball(x, y, 0, -0.15, 0.14, 0.75) + 0.2 * _ball(x, y, 0.11, -0.3, 0.09, 0.11)
    windpipe = -0.16 * _tube(x, y, np.array([(0, -0.95), (0, -0.32)]), 0.05)
    vessels = np.zeros_like(x)
    for side in (-1, 1):
        for turn in (-0.9, -0.5, -0.1, 0.3, 0.7):
            reach = np.linspace(0.12, 0.5, 6)
            path = np.stack([side * reach, -0.02 + turn * (reach - 0.1) * 0.9 + 0.02 * turn], axis=1)
            for part in range(5):
                vessels += 0.055 * (1 - part / 6) * _tube(x, y, path[part : part + 2], 0.028 - 0.004 * part)
    return heart + middle + windpipe + vessels


def _bones(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    spine = 0.1 * _ball(x, y * 0, 0, 0, 0.085, 1) * (1 + 0.35 * np.cos(y * 2 * np.pi / 0.145))
    found = spine.astype(np.float32)
    bend = np.linspace(0, 1, 14)
    for side in (-1, 1):
        for rib in range(_RIBS):
            top, out = -0.62 + 0.135 * rib, 0.5 + 0.3 * np.sin(np.pi * (rib + 1.5) / (_RIBS + 3))
            back = np.stack([side * (0.07 + out * np.sin(bend * np.pi / 2)), top - 0.07 * np.sin(bend * np.pi)
                             + 0.2 * bend**1.7], axis=1)  # fmt: skip
            front = np.stack([side * (0.07 + out * np.cos(bend * 1.1)), top + 0.2 + 0.24 * np.sin(bend * 1.1)], axis=1)
            found += 0.085 * _tube(x, y, back, 0.033) + 0.04 * _tube(x, y, front, 0.032)
        collar = np.array([(0.1, -0.6), (0.3, -0.67), (0.52, -0.69), (0.68, -0.66)]) * (side, 1)
        blade = np.array([(0.66, -0.6), (0.72, -0.3), (0.8, -0.02)]) * (side, 1)
        found += 0.11 * _tube(x, y, collar, 0.034) + 0.04 * _tube(x, y, blade, 0.07)
    return found
