"""
Puna's native engine. Its public face is puna.engine; nothing here is a stable interface.
"""

from collections.abc import Sequence
from typing import Annotated, overload

import numpy
from numpy.typing import NDArray

from puna._native import kernels as kernels, tokens as tokens
import puna.errors


class NativeError(puna.errors.NativeError):
    pass

def isa() -> str:
    """Name of the kernel table in use."""

def set_isa(name: str) -> None:
    """Use the named kernel table from the next step on."""

def isas() -> list[tuple[str, bool]]:
    """
    Kernel tables of this build, slowest first, and whether this machine runs them.
    """

def packed_bytes(format: str, rows: int, columns: int) -> int:
    """Bytes of a packed matrix."""

def pack_values(format: str, values: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)]) -> NDArray[numpy.uint8]:
    """float32 [rows, columns] to packed f32 or bf16 bytes."""

def pack_channels(q: Annotated[NDArray[numpy.int8], dict(shape=(None, None), order='C', device='cpu', writable=False)], scale: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> NDArray[numpy.uint8]:
    """int8 [rows, columns] and float32 [rows] to packed int8_channel bytes."""

def pack_groups(format: str, q: Annotated[NDArray[numpy.int8], dict(shape=(None, None), order='C', device='cpu', writable=False)], scale: Annotated[NDArray[numpy.uint16], dict(shape=(None, None), order='C', device='cpu', writable=False)]) -> NDArray[numpy.uint8]:
    """
    int8 [rows, columns] and float16 bits [rows, columns / 32] to packed int4_group32 or int8_group32 bytes.
    """

def pack_groups_f32(q: Annotated[NDArray[numpy.int8], dict(shape=(None, None), order='C', device='cpu', writable=False)], scale: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)]) -> NDArray[numpy.uint8]:
    """
    int8 [rows, columns] and float32 [rows, columns / 32] to packed int4_group32_f32 bytes.
    """

def unpack(format: str, data: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)], rows: int, columns: int) -> NDArray[numpy.float32]:
    """Packed bytes to float32 [rows, columns]."""

def unpack_groups(format: str, data: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)], rows: int, columns: int) -> tuple[NDArray[numpy.int8], NDArray[numpy.uint16]]:
    """The inverse of pack_groups."""

def unpack_groups_f32(data: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)], rows: int, columns: int) -> tuple[NDArray[numpy.int8], NDArray[numpy.float32]]:
    """The inverse of pack_groups_f32."""

def unpack_channels(data: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)], rows: int, columns: int) -> tuple[NDArray[numpy.int8], NDArray[numpy.float32]]:
    """The inverse of pack_channels."""

def round_groups(bits: int, values: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)]) -> tuple[NDArray[numpy.int8], NDArray[numpy.uint16]]:
    """
    Round float32 [rows, columns] to nearest in groups of 32: int8 values and float16 scale bits.
    """

def round_channels(values: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)]) -> tuple[NDArray[numpy.int8], NDArray[numpy.float32]]:
    """Round float32 [rows, columns] to int8 with a float32 scale a row."""

class ModelConfig:
    def __init__(self, *, dim: int, n_layers: int, n_heads: int, n_kv_heads: int, head_dim: int, ffn_dim: int, vocab_size: int, max_seq_len: int, norm_eps: float, rope_frequencies: Sequence[float], has_down_rotation: bool = False, has_output_rotation: bool = False, lora_rank: int = 0, lora_scale: float = 1.0) -> None: ...

class Model:
    def __init__(self, config: ModelConfig, tensors: dict[str, object], is_tied: bool) -> None:
        """
        tensors: name to (format, packed uint8) for matrices, to float32 for norms.
        """

class Cache:
    def __init__(self, config: ModelConfig, n_blocks: int, type: str) -> None: ...

    @property
    def n_blocks(self) -> int: ...

    @property
    def bytes_per_block(self) -> int: ...

def cache_block_bytes(type: str, head_dim: int) -> int:
    """Bytes of a block of BLOCK_TOKENS positions, of one layer and head."""

BLOCK_TOKENS: int = 16

class Sample:
    @property
    def token(self) -> int: ...

    @property
    def is_finite(self) -> bool: ...

    @property
    def logprob(self) -> float: ...

    @property
    def top(self) -> list[tuple[int, float]]: ...

class Sampler:
    def __init__(self, *, temperature: float, top_k: int, top_p: float, min_p: float, repetition_penalty: float, frequency_penalty: float, presence_penalty: float, seed: int, top_logprobs: int, logit_bias: Sequence[tuple[int, float]]) -> None: ...

    def observe(self, tokens: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> None:
        """Tokens of the prompt, for the repetition penalty."""

    def copy(self) -> Sampler:
        """
        A sampler that goes on from the same state: the same penalties, the same next draw.
        """

    def pick(self, logits: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], allowed: Annotated[NDArray[numpy.uint32], dict(shape=(None,), order='C', device='cpu', writable=False)] | None = None) -> Sample:
        """
        The next token for these logits, as in a step; `allowed` has a bit a token, from the lowest on.
        """

class Runner:
    @overload
    def __init__(self, model: Model, cache: Cache, n_threads: int, left_out: Sequence[int] = []) -> None:
        """`left_out`: ids that are never picked."""

    @overload
    def __init__(self, model: Model, cache: Cache, other: Runner, left_out: Sequence[int] = []) -> None:
        """On the threads of another runner; one of the two computes at a time."""

    @property
    def n_threads(self) -> int: ...

    def sample(self, tokens: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], slices: Annotated[NDArray[numpy.int64], dict(shape=(None, None), order='C', device='cpu', writable=False)], block_tables: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order='C', device='cpu', writable=False)], output_rows: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], samplers: Sequence[Sampler], allowed: Annotated[NDArray[numpy.uint32], dict(shape=(None, None), order='C', device='cpu', writable=False)] | None = None) -> list[list[Sample]]:
        """
        Run a batch and pick the next tokens of each sampler. A sampler of several output rows, which follow each other, has guessed the tokens in the later ones: it picks on while they are right. `allowed` [output rows, words] has a bit a token, from the lowest on.
        """

    def pick_again(self, output: int, sampler: Sampler, allowed: Annotated[NDArray[numpy.uint32], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> Sample:
        """
        Pick at an output row of the last call of `sample` as if only these tokens were allowed; only without temperature, bias and penalties, and where it had no mask. `allowed` [words] as there.
        """

    def logits(self, tokens: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], slices: Annotated[NDArray[numpy.int64], dict(shape=(None, None), order='C', device='cpu', writable=False)], block_tables: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order='C', device='cpu', writable=False)], output_rows: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> NDArray[numpy.float32]:
        """Run a batch; float32 logits [output rows, vocabulary]."""

    def hidden(self, tokens: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], slices: Annotated[NDArray[numpy.int64], dict(shape=(None, None), order='C', device='cpu', writable=False)], block_tables: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order='C', device='cpu', writable=False)], output_rows: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> NDArray[numpy.float32]:
        """Run a batch; final hidden states [output rows, dim]."""

def read_rate(threads: int, n_bytes: int, passes: int) -> float:
    """
    Bytes a second that so many threads read from memory: the best of several passes.
    """

def multiply_rate(threads: int, passes: int) -> float:
    """
    Products of bytes a second that so many threads compute and add up: the best of several passes.
    """
