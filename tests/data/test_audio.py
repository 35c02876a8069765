import contextlib
import struct
import wave

import numpy as np
import pytest

from minitransformer.data.audio import load_wav, log_mel, mel_filters, resample


def tone(frequency, rate, seconds=0.5):
    return np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)


@pytest.mark.parametrize(("source", "target"), [(48000, 16000), (44100, 16000), (8000, 16000)])
def test_resampling_keeps_a_tone_and_drops_what_is_too_high(source, target):
    out = resample(tone(440, source), source, target)
    expected = tone(440, target)
    assert out.dtype == np.float32 and len(out) == len(expected)
    inner = slice(200, -200)
    np.testing.assert_allclose(out[inner], expected[inner], atol=2e-4)
    if source > target:
        assert np.abs(resample(tone(11000, source), source, target)[inner]).max() < 1e-3


def test_resampling_does_not_depend_on_its_blocks(monkeypatch):
    x = np.random.default_rng(0).standard_normal(200001)
    whole = resample(x, 32000, 16000)
    np.testing.assert_allclose(whole[5000:6000], resample(x[9000:13000], 32000, 16000)[500:1500],
                               atol=1e-6)  # fmt: skip
    assert len(whole) == 100001
    assert len(resample(x[:0], 8000, 16000)) == 0


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_wav_files_of_every_width(width, tmp_path):
    samples = np.array([0.0, 0.5, -0.5, 0.25])
    scale = 2 ** (8 * width - 1)
    raw = b"".join(
        struct.pack("<B", int(s * 128) + 128)
        if width == 1
        else int(s * scale).to_bytes(width, "little", signed=True)
        for s in samples
        for _ in range(2)
    )
    with wave.open(str(tmp_path / "m.wav"), "wb") as file:
        file.setnchannels(2), file.setsampwidth(width), file.setframerate(16000)
        file.writeframes(raw)
    np.testing.assert_allclose(load_wav(tmp_path / "m.wav"), samples, atol=1e-7)


def test_bad_files(tmp_path):
    with pytest.raises(ValueError, match="no such"):
        load_wav(tmp_path / "no.wav")
    with wave.open(str(tmp_path / "m.wav"), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000)
        file.writeframes(b"\0\1" * 50)
    whole = (tmp_path / "m.wav").read_bytes()
    for length in range(44):
        (tmp_path / "m.wav").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"m\.wav"):
            load_wav(tmp_path / "m.wav")
    for position in range(44 * 8):
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        (tmp_path / "m.wav").write_bytes(flipped)
        with contextlib.suppress(ValueError):
            assert np.isfinite(load_wav(tmp_path / "m.wav")).all()
    with pytest.raises(ValueError, match="positive"):
        resample(np.zeros(3), 0, 1)
    with pytest.raises(ValueError, match="usual ratio"):
        resample(np.zeros(3), 999983, 999979)


def test_mel_filters():
    filters = mel_filters(80)
    assert filters.shape == (80, 201) and (filters >= 0).all()
    assert (np.diff(filters.argmax(axis=1)) >= 0).all()
    # each triangle has the same area, as far as its samples show it
    np.testing.assert_allclose(filters[40:].sum(axis=1) * 40, 1, atol=0.2)


def test_log_mel():
    loud = log_mel(tone(1000, 16000, 1.0), seconds=2)
    assert loud.shape == (80, 200) and loud.dtype == np.float32
    assert loud.max() - loud.min() <= 2.0 + 1e-6
    assert abs(int(loud[:, 50].argmax()) - int(mel_filters(80)[:, 25].argmax())) <= 1
    assert loud[:, 150].max() == loud.min()
    with pytest.raises(ValueError, match="more than 1 seconds"):
        log_mel(np.zeros(16001), seconds=1)
