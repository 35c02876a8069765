"""Reading and writing weights: safetensors, GGUF, ONNX initialisers and CTranslate2.

All of them are treated as untrusted: sizes are compared before anything is allocated, pickles are
refused by their content, and a damaged file gives :class:`CheckpointError`.
"""

from .ctranslate2 import read_ctranslate2
from .directory import open_checkpoint, read_json, save_directory, verify_directory
from .entry import Checkpoint, CheckpointError, Entry
from .gguf import read_gguf
from .onnx import original_names, read_onnx
from .safetensors import read_safetensors, write_safetensors

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Entry",
    "open_checkpoint",
    "original_names",
    "read_ctranslate2",
    "read_gguf",
    "read_json",
    "read_onnx",
    "read_safetensors",
    "save_directory",
    "verify_directory",
    "write_safetensors",
]
