"""The ground floor: NumPy or CuPy arrays, threads over row blocks, random numbers.

Everything above writes its formulas against ``xp = array_module(x)`` and knows
of devices, cores and random streams only what this package exports.
"""

from .arrays import (
    Array,
    Device,
    array_module,
    device_of,
    is_cuda,
    is_cuda_available,
    parse_device,
    quiet,
    to_device,
    to_numpy,
)
from .dtypes import default_dtype, is_floating, lowest, resolve_dtype, set_default_dtype
from .random import (
    Key,
    get_random_state,
    initial_seed,
    manual_seed,
    next_key,
    normal,
    random_bits,
    random_integers,
    set_random_state,
    set_random_step,
    uniform,
)
from .threads import (
    ELEMENTS,
    blocks,
    even_blocks,
    get_num_threads,
    map_blocks,
    row_blocks,
    run_blocks,
    run_rows,
    set_num_threads,
    single_threaded_blas,
)

__all__ = [
    "ELEMENTS",
    "Array",
    "Device",
    "Key",
    "array_module",
    "blocks",
    "default_dtype",
    "device_of",
    "even_blocks",
    "get_num_threads",
    "get_random_state",
    "initial_seed",
    "is_cuda",
    "is_cuda_available",
    "is_floating",
    "lowest",
    "manual_seed",
    "map_blocks",
    "next_key",
    "normal",
    "parse_device",
    "quiet",
    "random_bits",
    "random_integers",
    "resolve_dtype",
    "row_blocks",
    "run_blocks",
    "run_rows",
    "set_default_dtype",
    "set_num_threads",
    "set_random_state",
    "set_random_step",
    "single_threaded_blas",
    "to_device",
    "to_numpy",
    "uniform",
]
