import io

import numpy as np
import pytest

from minitransformer.data import image as module
from minitransformer.data.image import (
    centre_crop,
    load_image,
    normalize,
    prepare,
    resize,
    resize_shorter,
    resize_weights,
)

Image = pytest.importorskip("PIL.Image")


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(37, 53), (10, 200), (90, 7), (1, 1), (38, 54), (224, 224)])
def test_resizes_as_pillow(mode, size, picture):
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    expected = np.asarray(Image.fromarray(picture).resize(size[::-1], filters[mode]))
    got = resize(picture, size, mode=mode)
    assert got.dtype == np.uint8 and got.shape == (*size, 3)
    assert np.abs(got.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize(("mode", "a"), [("bilinear", 0.0), ("bicubic", -0.75)])
@pytest.mark.parametrize("new", [1, 5, 16, 37, 50])
def test_weights_as_pytorch(mode, a, new):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((2, 3, 37, 37))
    w = resize_weights(37, new, mode=mode, antialias=False, cubic_coefficient=a)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(x), size=(new, new), mode=mode, align_corners=False
    ).numpy()
    np.testing.assert_allclose(w @ x @ w.T, expected, rtol=0, atol=512 * np.finfo(float).eps)


def test_float_images_keep_their_dtype(picture):
    floats = picture.astype(np.float32)
    assert resize(floats, (5, 6)).dtype == np.float32
    np.testing.assert_array_equal(resize(floats, (37, 53)), floats)


def test_prepare(picture):
    out = prepare(picture, 20)
    assert out.shape == (3, 20, 20) and out.dtype == np.float32 and out.flags.c_contiguous
    assert prepare(picture, 20, crop=False).shape == (3, 20, 20)
    assert resize_shorter(picture, 20).shape == (20, 28, 3)
    grey = np.full((4, 4, 3), 128, np.uint8)
    expected = (128 / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(normalize(grey)[:, 0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_every_mode_becomes_rgb(mode, tmp_path):
    path = tmp_path / ("m.tif" if mode in ("CMYK", "YCbCr", "I;16") else "m.png")
    if mode == "I;16":
        Image.fromarray(np.full((5, 4), 65535, np.uint16)).save(path)
    else:
        Image.new("RGB", (4, 5), "white").convert(mode).save(path)
    got = load_image(path)
    assert got.shape == (5, 4, 3) and got.dtype == np.uint8
    assert got.min() >= 250


def test_transparency_is_over_white(tmp_path):
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "m.png")
    assert load_image(tmp_path / "m.png").min() == 255


def test_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (4, 8)).save(tmp_path / "m.jpg", exif=exif)
    assert load_image(tmp_path / "m.jpg").shape == (4, 8, 3)


def test_bad_images(tmp_path, picture, monkeypatch):
    with pytest.raises(ValueError, match="no such image"):
        load_image(tmp_path / "no.png")
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ValueError, match="not a readable image"):
        load_image(tmp_path / "text.png")
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    whole = buffer.getvalue()
    for length in range(0, len(whole) - 20, 97):
        (tmp_path / "m.png").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"m\.png"):
            load_image(tmp_path / "m.png")
    monkeypatch.setattr(module, "MAX_PIXELS", 100)
    (tmp_path / "m.png").write_bytes(whole)
    with pytest.raises(ValueError, match="pixels"):
        load_image(tmp_path / "m.png")


def test_bad_arguments(picture):
    with pytest.raises(ValueError, match="channels"):
        resize(picture[0], (2, 2))
    with pytest.raises(ValueError, match="uint8 or floating"):
        resize(picture.astype(np.int32), (2, 2))
    with pytest.raises(ValueError, match="positive"):
        resize(picture, (0, 2))
    with pytest.raises(ValueError, match="mode"):
        resize_weights(2, 2, mode="nearest")
    with pytest.raises(ValueError, match="cut"):
        centre_crop(picture, (99, 1))
    with pytest.raises(ValueError, match="too long and thin"):
        resize_shorter(np.zeros((1, 60000, 3), np.uint8), 224)
    with pytest.raises(ValueError, match="too large"):
        resize(np.zeros((1, 900000, 3), np.uint8), (224, 224))
    with pytest.raises(ValueError, match="means"):
        normalize(picture[:, :, :2])
