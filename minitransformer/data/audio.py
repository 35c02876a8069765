"""Sound as arrays: load WAV files, resample, and the log-mel spectrogram of Whisper."""

from __future__ import annotations

import functools
import math
import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Most samples a file may have: six hours at 48 kHz.
MAX_SAMPLES = 48000 * 3600 * 6


def load_wav(path: str | Path, rate: int = 16000) -> NDArray[np.float32]:
    """Load a WAV file as one channel at a given rate.

    Parameters
    ----------
    path : str or pathlib.Path
        An uncompressed WAV file of 8, 16, 24 or 32 bits; channels are averaged.
    rate : int
        Samples per second of the result.

    Returns
    -------
    numpy.ndarray, (N,) float32
        Samples between -1 and 1.

    Raises
    ------
    ValueError
        If the file is missing, damaged, of another format, or too long.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such sound file")
    try:
        with wave.open(str(path), "rb") as file:
            channels, width = file.getnchannels(), file.getsampwidth()
            source, frames = file.getframerate(), file.getnframes()
            if channels < 1 or source < 1 or frames * channels > MAX_SAMPLES:
                raise ValueError(f"{frames} frames of {channels} channels at {source} Hz")
            raw = file.readframes(frames)
    except (wave.Error, EOFError, ValueError, RuntimeError) as error:
        reason = str(error) or "it ends too early"
        raise ValueError(f"{path}: not a readable WAV file ({reason})") from None
    frames = len(raw) // (width * channels)
    samples = _samples(raw[: frames * width * channels], width, path)
    mono = samples.reshape(frames, channels).mean(axis=1)
    return resample(mono, source, rate)


def _samples(raw: bytes, width: int, path: Path) -> NDArray[np.float64]:
    if width == 1:
        return (np.frombuffer(raw, dtype=np.uint8).astype(np.float64) - 128.0) / 128.0
    if width in (2, 4):
        return np.frombuffer(raw, dtype=f"<i{width}").astype(np.float64) / 2.0 ** (8 * width - 1)
    if width == 3:
        parts = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 3).astype(np.int32)
        wide = parts[:, 0] | parts[:, 1] << 8 | parts[:, 2] << 16
        return (wide - ((wide & 0x800000) << 1)).astype(np.float64) / 2.0**23
    raise ValueError(f"{path}: samples of {width} bytes are not read")


def resample(samples: NDArray[Any], source: int, target: int) -> NDArray[np.float32]:
    """Change the sampling rate with a windowed sinc filter.

    Parameters
    ----------
    samples : numpy.ndarray, (N,) float
        The sound.
    source, target : int
        Samples per second before and after.

    Returns
    -------
    numpy.ndarray, (ceil(N target / source),) float32
        The sound at the new rate, low-passed at half the lower rate.

    Raises
    ------
    ValueError
        If a rate is not positive, or their ratio in lowest terms is too large to filter.

    Notes
    -----
    Output sample `i` lies at ``i source / target``. Only ``target / gcd`` different sets of
    weights occur, so each is made once: a polyphase filter with a Kaiser window of 24 zero
    crossings on either side.
    """
    if source < 1 or target < 1:
        raise ValueError(f"rates must be positive, found {source} and {target}")
    samples = np.asarray(samples, dtype=np.float64)
    if source == target or len(samples) == 0:
        return samples.astype(np.float32)
    divisor = math.gcd(source, target)
    up, down = target // divisor, source // divisor
    cutoff = min(1.0, up / down)  # of the source's half rate
    reach = math.ceil(24 / cutoff)
    if up * reach > 1 << 22:
        raise ValueError(f"{source} to {target} samples per second is not a usual ratio")
    count = -(-len(samples) * up // down)
    padded = np.concatenate([np.zeros(reach), samples, np.zeros(reach + 1)])
    out = np.empty(count, dtype=np.float32)
    offsets = np.arange(-reach + 1, reach + 1)
    for phase in range(up):
        position = np.arange(phase, count, up) * down  # in units of 1 / up
        whole, part = position // up, (phase * down % up) / up
        distance = offsets - part
        window = np.i0(8.6 * np.sqrt(np.clip(1 - (distance / reach) ** 2, 0, None))) / np.i0(8.6)
        weights = cutoff * np.sinc(cutoff * distance) * window
        for begin in range(0, len(whole), 65536):  # blocks: the windows are copies
            block = whole[begin : begin + 65536, None] + offsets + reach
            out[phase + begin * up : phase + (begin + len(block)) * up : up] = (
                padded[block] @ weights
            )
    return out


@functools.cache
def mel_filters(bands: int, rate: int = 16000, size: int = 400) -> NDArray[np.float64]:
    """Triangles on the mel scale, each of the same area.

    Parameters
    ----------
    bands : int
        Number of triangles.
    rate : int
        Samples per second.
    size : int
        Samples in a window.

    Returns
    -------
    numpy.ndarray, (bands, size // 2 + 1) float64
        One row per band; read-only.

    References
    ----------
    M. Slaney, "Auditory toolbox", Technical report 1998-010, Interval Research, 1998
    (the mel scale that is linear below 1 kHz, and the normalisation by area).
    """
    step, corner, ratio = 200.0 / 3, 1000.0, math.log(6.4) / 27

    def to_mel(hertz: float) -> float:
        linear = hertz / step
        return linear if hertz < corner else corner / step + math.log(hertz / corner) / ratio

    mel = np.linspace(to_mel(0.0), to_mel(rate / 2), bands + 2)
    hertz = np.where(
        mel < corner / step, mel * step, corner * np.exp(ratio * (mel - corner / step))
    )
    frequency = np.linspace(0, rate / 2, size // 2 + 1)
    rising = (frequency - hertz[:-2, None]) / np.diff(hertz)[:-1, None]
    falling = (hertz[2:, None] - frequency) / np.diff(hertz)[1:, None]
    filters = np.maximum(0.0, np.minimum(rising, falling))
    filters *= 2.0 / (hertz[2:] - hertz[:-2])[:, None]
    filters.flags.writeable = False
    return filters


def log_mel(
    samples: NDArray[Any], *, bands: int = 80, seconds: int = 30, rate: int = 16000
) -> NDArray[np.float32]:
    """The spectrogram Whisper reads.

    Parameters
    ----------
    samples : numpy.ndarray, (N,) float
        At most `seconds` of sound; silence is added.
    bands : int
        Mel bands.
    seconds : int
        Length of the spectrogram.
    rate : int
        Samples per second.

    Returns
    -------
    numpy.ndarray, (bands, seconds rate / 160) float32
        A column for every 10 ms.

    Raises
    ------
    ValueError
        If there are more samples than `seconds`.

    References
    ----------
    Radford et al., "Robust speech recognition via large-scale weak supervision", 2022,
    section 2.2.
    """
    size, hop, length = 400, 160, seconds * rate
    if len(samples) > length:
        raise ValueError(f"{len(samples)} samples are more than {seconds} seconds at {rate} Hz")
    sound = np.zeros(length)
    sound[: len(samples)] = samples
    sound = np.pad(sound, size // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * math.pi * np.arange(size) / size)
    frames = np.lib.stride_tricks.sliding_window_view(sound, size)[::hop][: length // hop]
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2  # (frames, size / 2 + 1)
    mel = np.log10(np.maximum(mel_filters(bands, rate, size) @ power.T, 1e-10))
    mel = np.maximum(mel, mel.max() - 8.0)
    out: NDArray[np.float32] = ((mel + 4.0) / 4.0).astype(np.float32)
    return out
