"""Images as arrays: load, resize as Pillow does, crop, normalise.

Only loading needs Pillow; the arithmetic is NumPy.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Most pixels an image may have; a small file can unpack into a huge one.
MAX_PIXELS = 1 << 26

#: Channel means and standard deviations of ImageNet, the usual ones.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def load_image(path: str | Path) -> NDArray[np.uint8]:
    """Load an image file.

    Parameters
    ----------
    path : str or pathlib.Path
        A file in any format Pillow reads. Greyscale, palette, CMYK, 16-bit and transparent images
        become RGB (transparency over white); the orientation a camera noted is applied.

    Returns
    -------
    numpy.ndarray, (H, W, 3) uint8
        The image.

    Raises
    ------
    ValueError
        If the file is missing, is no image, is damaged or has more than `MAX_PIXELS` pixels.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ImportError(
            "images need the Pillow package: pip install minitransformer[image]"
        ) from None
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such image file")
    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ValueError(
                    f"{path}: {width} x {height} pixels, at most {MAX_PIXELS} are read"
                )
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I") or image.mode == "F":
                return _grey(np.asarray(image))
            if image.has_transparency_data:
                image = image.convert("RGBA")
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image)
            return np.asarray(image.convert("RGB"))
    except ValueError as error:
        message = str(error)
        raise ValueError(
            message if message.startswith(str(path)) else f"{path}: {message}"
        ) from None
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        kind = type(error).__name__
        raise ValueError(f"{path}: not a readable image ({kind}: {str(error)[:120]})") from None


def _grey(values: NDArray[Any]) -> NDArray[np.uint8]:
    """16-bit or float greyscale to RGB: full scale is 65535 for integers, 1 for floats."""
    full = 65535.0 if values.dtype.kind in "iu" else 1.0
    scaled = np.nan_to_num(values.astype(np.float64) / full * 255.0)
    level = np.clip(np.round(scaled), 0, 255).astype(np.uint8)
    return np.repeat(level[:, :, None], 3, axis=2)


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _cubic(x: NDArray[np.float64], a: float) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with the parameter `a`."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def resize_weights(
    size: int,
    new_size: int,
    *,
    mode: str = "bicubic",
    antialias: bool = True,
    cubic_coefficient: float = -0.5,
) -> NDArray[np.float64]:
    """Weights of the old samples in each new one, along one axis.

    Parameters
    ----------
    size, new_size : int
        Number of samples before and after.
    mode : {"bilinear", "bicubic"}
        The interpolation.
    antialias : bool
        Widen the kernel when shrinking, as Pillow does; PyTorch's ``interpolate`` does not unless
        it is asked to.
    cubic_coefficient : float
        Keys' parameter: -0.5 in Pillow, -0.75 in PyTorch.

    Returns
    -------
    numpy.ndarray, (new_size, size) float64
        Every row sums to 1.

    Raises
    ------
    ValueError
        If a size is not positive or `mode` is unknown.

    Notes
    -----
    Sample `i` lies at ``i + 1/2``. With antialiasing, samples outside the image are left out and
    the rest is rescaled; without, the border sample is repeated.

    References
    ----------
    R. G. Keys, "Cubic convolution interpolation for digital image processing", IEEE Transactions
    on Acoustics, Speech, and Signal Processing 29 (1981), equation 15.

    Examples
    --------
    >>> resize_weights(4, 2, mode="bilinear")
    array([[0.42857143, 0.42857143, 0.14285714, 0.        ],
           [0.        , 0.14285714, 0.42857143, 0.42857143]])
    """
    if size < 1 or new_size < 1:
        raise ValueError(f"sizes must be positive, found {size} and {new_size}")
    if mode not in ("bilinear", "bicubic"):
        raise ValueError(f"mode is {mode!r}, not 'bilinear' or 'bicubic'")
    support = 1.0 if mode == "bilinear" else 2.0
    scale = size / new_size
    widen = max(scale, 1.0) if antialias else 1.0
    centre = (np.arange(new_size) + 0.5) * scale  # (new_size,)
    reach = math.ceil(support * widen) + 1
    offsets = np.arange(-reach, reach + 1)
    sample = np.floor(centre)[:, None] + offsets  # (new_size, 2 reach + 1)
    distance = (sample + 0.5 - centre[:, None]) / widen
    if mode == "bilinear":
        weight = _triangle(distance)
    else:
        weight = _cubic(distance, cubic_coefficient)
    inside = (sample >= 0) & (sample < size)
    if antialias:
        weight = np.where(inside, weight, 0.0)
    weights = np.zeros((new_size, size))
    column = np.clip(sample, 0, size - 1).astype(np.int64)
    np.add.at(weights, (np.arange(new_size)[:, None], column), weight)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def resize(image: NDArray[Any], size: tuple[int, int], *, mode: str = "bicubic") -> NDArray[Any]:
    """Resize an image as Pillow does, to within one level of 255.

    Parameters
    ----------
    image : numpy.ndarray, (H, W, C) uint8 or floating
        The image.
    size : tuple of int
        New height and width.
    mode : {"bilinear", "bicubic"}
        The interpolation.

    Returns
    -------
    numpy.ndarray, (height, width, C), dtype of `image`
        The resized image.

    Raises
    ------
    ValueError
        If `image` has no three axes, is empty, too large, or neither uint8 nor floating.
    """
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"an image is (height, width, channels), found {image.shape}")
    if image.dtype != np.uint8 and image.dtype.kind != "f":
        raise ValueError(f"an image is uint8 or floating, found {image.dtype}")
    height, width = size
    if max(image.shape[0] * height, image.shape[1] * width) > MAX_PIXELS:
        raise ValueError(f"{image.shape[0]} x {image.shape[1]} to {height} x {width} is too large")
    across = resize_weights(image.shape[1], width, mode=mode)
    down = resize_weights(image.shape[0], height, mode=mode)
    # Two passes, rounded between, the one first that leaves less for the other, as Pillow does.
    if image.shape[0] * width <= height * image.shape[1]:
        return _down(down, _across(across, image))
    return _across(across, _down(down, image))


def _across(weights: NDArray[np.float64], image: NDArray[Any]) -> NDArray[Any]:
    shape = (image.shape[0], len(weights), image.shape[2])
    out: NDArray[Any] = np.empty(shape, image.dtype)
    for top in range(0, len(image), 128):  # blocks: a photograph in float64 takes a gigabyte
        rows = image[top : top + 128].astype(np.float64)
        out[top : top + 128] = _levels(np.matmul(weights, rows), image.dtype)
    return out


def _down(weights: NDArray[np.float64], image: NDArray[Any]) -> NDArray[Any]:
    turned: NDArray[Any] = _across(weights, image.transpose(1, 0, 2))
    back: NDArray[Any] = turned.transpose(1, 0, 2)
    return back


def _levels(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[np.float64]:
    if dtype != np.uint8:
        return values
    levels: NDArray[np.float64] = np.clip(np.floor(values + 0.5), 0, 255)
    return levels


def resize_shorter(image: NDArray[Any], size: int, *, mode: str = "bicubic") -> NDArray[Any]:
    """Resize so that the shorter side is `size`, keeping the proportions.

    Parameters
    ----------
    image : numpy.ndarray, (H, W, C)
        The image.
    size : int
        New length of the shorter side.
    mode : {"bilinear", "bicubic"}
        The interpolation.

    Returns
    -------
    numpy.ndarray, (H', W', C)
        The resized image.

    Raises
    ------
    ValueError
        If the longer side would have more than `MAX_PIXELS` / `size` pixels.
    """
    height, width = image.shape[:2]
    shorter = min(height, width)
    if shorter < 1 or size * size * max(height, width) > MAX_PIXELS * shorter:
        raise ValueError(f"an image of {height} x {width} is too long and thin for size {size}")
    new = (size * height // shorter, size * width // shorter)
    return resize(image, new, mode=mode)


def centre_crop(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Cut the middle out of an image.

    Parameters
    ----------
    image : numpy.ndarray, (H, W, C)
        The image.
    size : tuple of int
        Height and width of the part.

    Returns
    -------
    numpy.ndarray, (height, width, C)
        A view of the part.

    Raises
    ------
    ValueError
        If the part is larger than the image.
    """
    (height, width), (h, w) = image.shape[:2], size
    if h > height or w > width or h < 1 or w < 1:
        raise ValueError(f"cannot cut {h} x {w} out of {height} x {width}")
    top, left = (height - h) // 2, (width - w) // 2
    return image[top : top + h, left : left + w]


def normalize(
    image: NDArray[np.uint8],
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> NDArray[np.float32]:
    """Levels to channels-first numbers of mean 0 and deviation 1.

    Parameters
    ----------
    image : numpy.ndarray, (H, W, C) uint8
        The image.
    mean, std : tuple of float
        One value per channel, of levels scaled to 0..1.

    Returns
    -------
    numpy.ndarray, (C, H, W) float32
        ``(image / 255 - mean) / std``.

    Raises
    ------
    ValueError
        If the numbers of channels differ.

    Examples
    --------
    >>> normalize(np.full((1, 1, 3), 255, np.uint8), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).ravel()
    array([1., 1., 1.], dtype=float32)
    """
    if image.ndim != 3 or image.shape[2] != len(mean) or len(mean) != len(std):
        raise ValueError(f"{image.shape} does not fit {len(mean)} means and {len(std)} deviations")
    scaled = image.astype(np.float32) / np.float32(255)
    scaled = (scaled - np.array(mean, np.float32)) / np.array(std, np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def prepare(
    image: NDArray[np.uint8],
    size: int,
    *,
    crop: bool = True,
    mode: str = "bicubic",
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> NDArray[np.float32]:
    """Resize, crop and normalise an image to a square the model reads.

    Parameters
    ----------
    image : numpy.ndarray, (H, W, 3) uint8
        The image.
    size : int
        Side of the square.
    crop : bool
        Resize the shorter side and cut the middle out; otherwise squeeze the whole image.
    mode : {"bilinear", "bicubic"}
        The interpolation.
    mean, std : tuple of float
        See :func:`normalize`.

    Returns
    -------
    numpy.ndarray, (3, size, size) float32
        The model's input.
    """
    if crop:
        image = centre_crop(resize_shorter(image, size, mode=mode), (size, size))
    else:
        image = resize(image, (size, size), mode=mode)
    return normalize(image, mean, std)
