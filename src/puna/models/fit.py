"""What a model takes in memory and on disk, worked out from its architecture before anything is fetched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from puna import _native
from puna.errors import ConfigError
from puna.models.architectures import ClassifierArchitecture, VisionArchitecture
from puna.models.cache import cache_bytes_per_token, cache_format
from puna.models.config import ModelConfig
from puna.models.packed import FORMATS, is_float, weight_format
from puna.models.rows import CatalogueRow

__all__ = [
    "Fit",
    "Memory",
    "context_for",
    "fit_of_config",
    "fit_of_row",
    "memory",
]

_DEFAULT_CONTEXT = 8192  # what most conversations need; the cache of a 128k context is gigabytes
_STEP_TOKENS = 256  # the engine's, whose package lies above this one: a test holds both to the same
_LOGIT_ROWS = 8  # rows of logits, and what sampling needs beside them
# What a machine can give to one program, the rest being the system's and other programs'.
_USABLE_SHARE = 0.9
_BYTES_A_WEIGHT = {"BF16": 2, "F16": 2, "F32": 4}


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """What a model takes while it runs.

    Attributes:
        weight_bytes: packed weights, exactly as the engine holds them.
        cache_bytes: keys and values of one full context, and of one image where the model sees.
        workspace_bytes: activations of one step, about.
        fits: whether the machine has that much; None where its memory is not known.
    """

    weight_bytes: int
    cache_bytes: int
    workspace_bytes: int
    fits: bool | None = None

    @property
    def total_bytes(self) -> int:
        """All three together."""
        return self.weight_bytes + self.cache_bytes + self.workspace_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """What a model takes.

    Attributes:
        parameters: number of weights.
        source_bytes: size of the files as they are published; about, where it is worked out.
        context_tokens: the context that `memory` is for.
        memory: by format, one of `puna.models.packed.FORMATS`; about, for what does not run yet.
        fits_disk: whether files and a packed copy find room; None where the free space is not known.
    """

    parameters: int
    source_bytes: int
    context_tokens: int
    memory: dict[str, Memory]
    fits_disk: bool | None


def context_for(longest: int, wanted: int | None) -> int:
    """The context that the engine reserves, in tokens.

    Args:
        longest: the model's own.
        wanted: what is asked for; None: the model's own, at most 8192.

    Raises:
        ConfigError: the model does not have the one that is asked for.
    """
    context = min(longest, _DEFAULT_CONTEXT) if wanted is None else wanted
    if not 2 <= context <= longest:
        raise ConfigError(f"`context` must be 2 to {longest} tokens for this model, got {context}")
    return context


def fit_of_row(
    row: CatalogueRow,
    *,
    context_tokens: int | None = None,
    cache: str = "auto",
    memory_bytes: int | None = None,
    free_bytes: int | None = None,
) -> Fit:
    """Work out what a model of the catalogue takes.

    Args:
        row: the model.
        context_tokens: tokens of one conversation; default: as the engine reserves.
        cache: one of `puna.models.cache.CACHES`.
        memory_bytes: memory of the machine, None where it is not known.
        free_bytes: free space on the store's disk, None where it is not known.

    Raises:
        ConfigError: the model does not have that context.
    """
    config = row.architecture
    if not isinstance(config, ModelConfig):
        size = _source_bytes(row)
        context = context_for(row.context_tokens, context_tokens)
        return Fit(
            parameters=row.n_parameters,
            source_bytes=size,
            context_tokens=context,
            memory=_with_fits(_estimates(config, context, cache), memory_bytes),
            fits_disk=None if free_bytes is None else size <= free_bytes,
        )
    found = fit_of_config(
        _as_stored(row, config),
        _dtypes(row, config),
        source_bytes=_source_bytes(row),
        context_tokens=context_tokens,
        cache=cache,
        memory_bytes=memory_bytes,
        free_bytes=free_bytes,
    )
    return replace(found, parameters=row.n_parameters)


def fit_of_config(
    config: ModelConfig,
    dtypes: Mapping[str, str],
    *,
    source_bytes: int,
    context_tokens: int | None = None,
    cache: str = "auto",
    memory_bytes: int | None = None,
    free_bytes: int | None = None,
) -> Fit:
    """Work out what a checkpoint takes.

    Args:
        config: the architecture.
        dtypes: storage of every matrix by its Hugging Face name, as `Checkpoint.dtypes` has it.
        source_bytes: size of the files.
        context_tokens: tokens of one conversation; default: as the engine reserves.
        cache: one of `puna.models.cache.CACHES`.
        memory_bytes: memory of the machine, None where it is not known.
        free_bytes: free space on the store's disk, None where it is not known.

    Raises:
        ConfigError: the model does not have that context.
    """
    context = context_for(config.max_seq_len, context_tokens)
    needs = {wanted: memory(config, dtypes, wanted, context, cache) for wanted in FORMATS}
    on_disk = source_bytes + needs["auto"].weight_bytes
    return Fit(
        parameters=config.n_parameters,
        source_bytes=source_bytes,
        context_tokens=context,
        memory=_with_fits(needs, memory_bytes),
        fits_disk=None if free_bytes is None else on_disk <= free_bytes,
    )


def memory(
    config: ModelConfig, dtypes: Mapping[str, str], wanted: str, context_tokens: int, cache: str = "auto"
) -> Memory:
    """Work out the memory of a model in one format.

    Args:
        config: the architecture.
        dtypes: storage of every matrix by its Hugging Face name.
        wanted: one of `puna.models.packed.FORMATS`.
        context_tokens: tokens of one conversation.
        cache: one of `puna.models.cache.CACHES`.

    Raises:
        ConfigError: `wanted` or `cache` is unknown.
    """
    n_bytes, formats = 0, set()
    for name, shape in config.tensor_shapes().items():
        if len(shape) == 1:
            n_bytes += 4 * shape[0]  # norms stay float32
            continue
        formats.add(weight_format(name, dtypes[name], wanted))
        n_bytes += _native.packed_bytes(weight_format(name, dtypes[name], wanted), *shape)
    per_token = cache_bytes_per_token(config, cache_format(cache, formats))
    return Memory(
        weight_bytes=n_bytes,
        cache_bytes=per_token * context_tokens,
        workspace_bytes=_workspace_bytes(config),
    )


def _with_fits(needs: dict[str, Memory], memory_bytes: int | None) -> dict[str, Memory]:
    if memory_bytes is None:
        return needs
    usable = _USABLE_SHARE * memory_bytes
    return {wanted: replace(need, fits=need.total_bytes <= usable) for wanted, need in needs.items()}


def _estimates(
    architecture: VisionArchitecture | ClassifierArchitecture, context_tokens: int, cache: str
) -> dict[str, Memory]:
    """What a model that this version does not run will take, by format."""
    if isinstance(architecture, VisionArchitecture):
        return {wanted: _vision_memory(architecture, wanted, context_tokens, cache) for wanted in FORMATS}
    widths = {"auto": 4, "f32": 4, "bf16": 2}
    return {wanted: _classifier_memory(architecture, n, context_tokens) for wanted, n in widths.items()}


def _vision_memory(architecture: VisionArchitecture, wanted: str, context_tokens: int, cache: str) -> Memory:
    text = architecture.text
    trunk = memory(text, dict.fromkeys(text.tensor_shapes(), "BF16"), wanted, context_tokens, cache)
    width = 4 if wanted == "f32" else 2  # what is not the trunk's stays as it is published
    crossed = replace(text, n_layers=architecture.n_cross_layers)
    image_bytes = cache_bytes_per_token(crossed, cache_format(cache, ["f32" if width == 4 else "bf16"]))
    return replace(
        trunk,
        weight_bytes=trunk.weight_bytes + width * (architecture.n_parameters - text.n_parameters),
        cache_bytes=trunk.cache_bytes + image_bytes * architecture.image_positions,
    )


def _classifier_memory(architecture: ClassifierArchitecture, width: int, n_tokens: int) -> Memory:
    scores = 3 * architecture.n_heads * n_tokens  # by content, and by position each way
    row = scores + 4 * architecture.dim + architecture.ffn_dim
    return Memory(
        weight_bytes=width * architecture.n_parameters, cache_bytes=0, workspace_bytes=4 * n_tokens * row
    )


def _workspace_bytes(config: ModelConfig) -> int:
    """The buffers of csrc/model/runner.cpp: float rows, those that get an int8 form with a quarter more."""
    q_dim, kv_dim = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    plain = 2 * config.dim + q_dim + 2 * kv_dim + config.ffn_dim + config.head_dim
    quantized = config.dim + q_dim + config.ffn_dim
    if config.lora_rank:
        plain += max(q_dim + 2 * kv_dim, 2 * config.ffn_dim, config.dim)
        quantized += 3 * config.lora_rank
    return _STEP_TOKENS * (4 * plain + 5 * quantized) + _LOGIT_ROWS * 4 * config.vocab_size


def _as_stored(row: CatalogueRow, config: ModelConfig) -> ModelConfig:
    # Meta's quantized files hold embedding and head apart, each in numbers of its own.
    return replace(config, tied_embeddings=False) if row.stored == "INT4" else config


def _dtypes(row: CatalogueRow, config: ModelConfig) -> dict[str, str]:
    names = _as_stored(row, config).tensor_shapes()
    if row.stored != "INT4":
        return dict.fromkeys(names, row.stored)
    return {name: _official_format(name) for name in names}


def _official_format(name: str) -> str:
    """What the official quantized models hold a matrix as."""
    if is_float(name):
        return "BF16"
    return weight_format(name, "int4_group32_f32", "int4")


def _source_bytes(row: CatalogueRow) -> int:
    if row.wheel is not None:
        return row.wheel.member_bytes
    if row.file_bytes is not None:
        return row.file_bytes
    if row.stored in _BYTES_A_WEIGHT:
        return row.n_parameters * _BYTES_A_WEIGHT[row.stored]
    assert isinstance(row.architecture, ModelConfig), f"{row.name}: only text models are stored as INT4"
    return _official_int4_bytes(_as_stored(row, row.architecture))


def _official_int4_bytes(config: ModelConfig) -> int:
    """Meta's quantized files: a byte a weight, a float32 scale for 32 of them or, in tables, for a row."""
    total = 0
    for name, shape in config.tensor_shapes().items():
        if len(shape) == 1:
            total += 2 * shape[0]
        elif is_float(name):
            total += 2 * shape[0] * shape[1]
        elif weight_format(name, "", "int4") == "int8_channel":
            total += shape[0] * (shape[1] + 4)
        else:
            total += shape[0] * (shape[1] + shape[1] // 32 * 4)
    return total
