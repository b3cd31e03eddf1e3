"""Speak a text into a WAV file with espeak-ng, from the shared library in a Python package."""

import ctypes
from pathlib import Path

import espeakng_loader
import numpy as np

from dreamhead.errors import InputError
from dreamhead.media.audio import write_wav

WORDS_PER_MINUTE = 150

# From espeak-ng's speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_CHARS_UTF8 = 1
_POSITION_CHARACTER = 1
_PARAMETER_RATE = 1
_OK = 0
_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def speak(text: str, voice: str, path: Path) -> None:
    """Write `text` as mono 16-bit WAV at espeak-ng's own rate; `voice` is one of its languages, as `en-us` or `es`.

    Raises InputError for a voice that it doesn't have.
    """
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    data_path = espeakng_loader.get_data_path().encode()
    sample_rate = library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, data_path, 0)
    if sample_rate <= 0:
        raise InputError(f"espeak-ng can't start with its data in {data_path.decode()}")
    pieces: list[bytes] = []

    def keep(samples: "ctypes._Pointer[ctypes.c_short]", count: int, events: object) -> int:
        if samples and count > 0:
            pieces.append(ctypes.string_at(samples, 2 * count))
        return _OK

    callback = _SynthCallback(keep)
    library.espeak_SetSynthCallback(callback)
    try:
        if library.espeak_SetVoiceByName(voice.encode()) != _OK:
            raise InputError(f"espeak-ng has no voice {voice!r}; allowed are the files of {data_path.decode()}/lang")
        library.espeak_SetParameter(_PARAMETER_RATE, WORDS_PER_MINUTE, 0)
        _synthesise(library, text.encode())
    finally:
        library.espeak_Terminate()
    samples = np.frombuffer(b"".join(pieces), np.int16).astype(np.float32)
    write_wav(path, samples / np.float32(32767), sample_rate)


def _synthesise(library: ctypes.CDLL, text: bytes) -> None:
    status = library.espeak_Synth(
        text,
        ctypes.c_size_t(len(text) + 1),
        ctypes.c_uint(0),
        _POSITION_CHARACTER,
        ctypes.c_uint(0),
        ctypes.c_uint(_CHARS_UTF8),
        None,
        None,
    )
    if status != _OK:
        raise InputError(f"espeak-ng can't speak {text.decode()!r}: status {status}")
