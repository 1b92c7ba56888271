"""A Llama as a program for ExecuTorch: `Program`, the graph, and `lower`, which writes it.

ExecuTorch runs one fixed graph, so this one is written to be traced: a batch of one, the keys and values so
far are buffers of the module, attention and cache are ExecuTorch's own operators, and quantized matrices
are integers and scales, in the pattern that its XNNPACK backend knows as "8da4w". Everything else is
`puna.nn.model`'s. Needs the extra ``export``; letters of shapes are those of `puna.nn.model`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from puna.models.config import ModelConfig
from puna.nn.model import RMSNorm, rotary_tables, rotate

__all__ = [
    "Adapted",
    "Attention",
    "Block",
    "Embedding",
    "FeedForward",
    "Integers",
    "Program",
    "QuantizedLinear",
    "Source",
    "lower",
]

Integers = tuple[NDArray[np.int8], NDArray[np.float32]]
"""``[out, in]``, and scales: ``[out, in / 32]``, or ``[out]`` for 8 bits a row."""


class Source:
    """Where the weights of a `Program` come from, one at a time."""

    def __init__(
        self, integers: Callable[[str], Integers], values: Callable[[str], NDArray[np.float32]]
    ) -> None:
        """Keep two functions.

        Args:
            integers: gives a quantized matrix by its Hugging Face name.
            values: gives any other tensor as float32.
        """
        self._integers, self._values = integers, values

    def linear(self, name: str) -> QuantizedLinear:
        """The named matrix as a layer."""
        return QuantizedLinear(*self.integers(name))

    def integers(self, name: str) -> tuple[Tensor, Tensor]:
        """The named matrix's integers and scales."""
        q, scales = self._integers(name)
        return torch.from_numpy(q), torch.from_numpy(scales)

    def plain(self, name: str) -> nn.Linear:
        """The named matrix as a layer of floats."""
        values = torch.from_numpy(self._values(name))
        layer = nn.Linear(values.shape[1], values.shape[0], bias=False, device="meta")
        layer.weight = nn.Parameter(values, requires_grad=False)
        return layer

    def norm(self, name: str, eps: float) -> RMSNorm:
        """The named norm."""
        values = torch.from_numpy(self._values(name))
        norm = RMSNorm(len(values), eps)
        norm.weight = nn.Parameter(values, requires_grad=False)
        return norm


class QuantizedLinear(nn.Module):
    """Integers of 4 bits in groups of 32, or of 8 bits a row, times tokens of 8 bits."""

    def __init__(self, q: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.group = q.shape[1] // scales.shape[1] if scales.ndim == 2 else 0
        self.register_buffer("q", q)
        self.register_buffer("scales", scales)
        self.register_buffer("zeros", torch.zeros_like(scales, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` to ``[..., out]``."""
        ops = torch.ops.quantized_decomposed
        token = ops.choose_qparams_per_token_asymmetric.default(x, torch.int8)
        x = ops.quantize_per_token.default(x, *token, -128, 127, torch.int8)
        x = ops.dequantize_per_token.default(x, *token, -128, 127, torch.int8, torch.float32)
        stored = (self.q, self.scales, self.zeros)
        if self.group:
            weight = ops.dequantize_per_channel_group.default(
                *stored, -8, 7, torch.int8, self.group, torch.float32
            )
        else:
            weight = ops.dequantize_per_channel.default(*stored, 0, -128, 127, torch.int8)
        return linear(x, weight)


class Adapted(nn.Module):
    """A layer and its adaptor: ``W x + scale * B (A x)``, the adaptor's part in floats."""

    def __init__(self, source: Source, stem: str, config: ModelConfig) -> None:
        super().__init__()
        self.base, self.scale = source.linear(f"{stem}.weight"), config.lora_scale
        self.down = source.plain(f"{stem}.lora_A.weight")
        self.up = source.plain(f"{stem}.lora_B.weight")

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` to ``[..., out]``."""
        out: Tensor = self.base(x) + self.scale * self.up(self.down(x))
        return out


class Embedding(nn.Module):
    """Rows of 8 bits, a scale each."""

    def __init__(self, source: Source, name: str) -> None:
        super().__init__()
        q, scales = source.integers(name)
        self.register_buffer("q", q)
        self.register_buffer("scales", scales)

    def forward(self, tokens: Tensor) -> Tensor:
        """Ids ``[1, T]`` to ``[1, T, E]``."""
        rows: Tensor = torch.ops.quantized_decomposed.embedding_byte.dtype(
            self.q, self.scales, None, -128, 127, tokens, dtype=torch.float32
        )
        return rows


class Attention(nn.Module):
    """Attention over a cache of `capacity` positions, by ExecuTorch's operators."""

    def __init__(
        self, source: Source, config: ModelConfig, layer: Callable[[str], nn.Module], capacity: int
    ) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (layer(f"self_attn.{x}_proj") for x in "qkvo")
        room = (1, capacity, config.n_kv_heads, config.head_dim)
        self.register_buffer("keys", torch.zeros(room), persistent=True)
        self.register_buffer("values", torch.zeros(room), persistent=True)

    def forward(self, x: Tensor, start: int, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """``[1, T, E]`` to the same; the tokens are at the positions from `start` on."""
        q, k, v = (
            projection(x).unflatten(-1, (-1, self.head_dim))
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, rotary), rotate(k, rotary)
        torch.ops.llama.update_cache(k, self.keys, start)
        torch.ops.llama.update_cache(v, self.values, start)
        mixed = torch.ops.llama.custom_sdpa(q, self.keys, self.values, start, None, 0.0, True)
        out: Tensor = self.o_proj(mixed.flatten(-2))
        return out


class FeedForward(nn.Module):
    """As `puna.nn.model.FeedForward`; the rotation is ExecuTorch's operator."""

    def __init__(self, config: ModelConfig, layer: Callable[[str], nn.Module]) -> None:
        super().__init__()
        self.block = config.rotation_block if config.has_down_rotation else 0
        self.gate_proj, self.up_proj, self.down_proj = (
            layer(f"mlp.{x}_proj") for x in ("gate", "up", "down")
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[1, T, E]`` to the same."""
        wide = silu(self.gate_proj(x)) * self.up_proj(x)
        if self.block:
            blocks = wide.unflatten(-1, (-1, self.block))
            wide = torch.ops.llama.fast_hadamard_transform(blocks).flatten(-2)
        out: Tensor = self.down_proj(wide)
        return out


class Block(nn.Module):
    """One block of the model, with its cache."""

    def __init__(self, source: Source, config: ModelConfig, index: int, capacity: int) -> None:
        super().__init__()
        stem = f"model.layers.{index}."

        def layer(name: str) -> nn.Module:
            if config.lora_rank:
                return Adapted(source, stem + name, config)
            return source.linear(f"{stem}{name}.weight")

        self.input_layernorm = source.norm(f"{stem}input_layernorm.weight", config.norm_eps)
        self.self_attn = Attention(source, config, layer, capacity)
        self.post_attention_layernorm = source.norm(f"{stem}post_attention_layernorm.weight", config.norm_eps)
        self.mlp = FeedForward(config, layer)

    def forward(self, x: Tensor, start: int, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """``[1, T, E]`` to the same."""
        x = x + self.self_attn(self.input_layernorm(x), start, rotary)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Program(nn.Module):
    """A Llama with its cache inside, as ExecuTorch's runners call it.

    Attributes:
        capacity: positions that there is room for.
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        config: ModelConfig,
        source: Source,
        capacity: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Build the graph and fetch the weights; they are held as bytes, one an integer.

        Args:
            config: the architecture.
            source: gives the weights.
            capacity: positions of the cache.
            progress: told of every block.
        """
        super().__init__()
        _register_operators()
        self.capacity = capacity
        self.embed_tokens = Embedding(source, "model.embed_tokens.weight")
        self.layers = nn.ModuleList()
        for index in range(config.n_layers):
            self.layers.append(Block(source, config, index, capacity))
            if progress is not None:
                progress(index + 1, config.n_layers + 1)
        self.norm = source.norm("model.norm.weight", config.norm_eps)
        rotated = config.has_output_rotation
        self.rotation = source.plain("model.norm.rotation.weight") if rotated else nn.Identity()
        self.lm_head = source.linear(
            "model.embed_tokens.weight" if config.tied_embeddings else "lm_head.weight"
        )
        cos, sin = rotary_tables(config, torch.arange(capacity))
        self.register_buffer("cos", cos[:, None])
        self.register_buffer("sin", sin[:, None])

    def forward(self, tokens: Tensor, input_pos: Tensor) -> Tensor:
        """Go on by some tokens.

        Args:
            tokens: ids ``[1, T]``, int64.
            input_pos: the position of the first, ``[1]``, int64; what was at later ones is forgotten.

        Returns:
            Logits of the last token, ``[1, V]``.
        """
        start, n_tokens = cast(int, input_pos[0].item()), tokens.shape[1]
        torch._check(start >= 0)  # type: ignore[no-untyped-call]
        torch._check(start < self.capacity)  # type: ignore[no-untyped-call]
        rotary = (torch.narrow(self.cos, 0, start, n_tokens), torch.narrow(self.sin, 0, start, n_tokens))
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, start, rotary)
        out: Tensor = self.lm_head(self.rotation(self.norm(x[:, -1])))
        return out


def _register_operators() -> None:
    """Load the operators of quantization, cache and attention, which torch does not have by itself."""
    with _quiet():
        import executorch.exir.passes._quant_patterns_and_replacements
        import executorch.extension.llm.custom_ops.custom_ops
        import executorch.kernels.quantized  # noqa: F401
        import torch.ao.quantization.fx._decomposed  # noqa: F401


def lower(program: Program, path: Path, metadata: Mapping[str, Any]) -> None:
    """Trace a program, give its quantized matrices to XNNPACK, and write it.

    Args:
        program: what to trace.
        path: the file; there must be nothing yet.
        metadata: methods of the file that return constants, as runners ask for them.

    Raises:
        OSError: the file cannot be written.
    """
    with _quiet():
        from executorch.exir import (
            EdgeCompileConfig,
            ExecutorchBackendConfig,
            to_edge_transform_and_lower,
        )
        from executorch.exir.passes import MemoryPlanningPass
        from executorch.exir.passes.sym_shape_eval_pass import ConstraintBasedSymShapeEvalPass

        # Three tokens, as torch takes a size of one to be one for ever.
        example = (torch.zeros((1, 3), dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
        any_number = torch.export.Dim("tokens", max=program.capacity - 1)
        with torch.no_grad():
            traced = torch.export.export(program.eval(), example, dynamic_shapes=({1: any_number}, None))
        edge = to_edge_transform_and_lower(
            traced,
            # The quantized matrices. What is between them is little, ExecuTorch's own kernels have it, and
            # as XNNPACK's it would take several times as long to write.
            partitioner=[_quantized_matrices()],
            constant_methods=dict(metadata),
            # Without the check, as it knows no operators but torch's own.
            compile_config=EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True),
        )
        made = edge.to_executorch(
            ExecutorchBackendConfig(
                memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False),
                sym_shape_eval_pass=ConstraintBasedSymShapeEvalPass(),
            )
        )
        with path.open("xb") as file:
            made.write_to_file(file)


def _quantized_matrices() -> Any:
    """What finds the matrices for XNNPACK, and has each rewritten by the one pass that it needs.

    XNNPACK's other passes, a dozen and more, are for networks of other kinds. They would go over every matrix
    in turn, to no effect, and take as long as all the rest.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
        XnnpackDynamicallyQuantizedPartitioner,
    )
    from executorch.exir.backend.compile_spec_schema import CompileSpec
    from executorch.exir.backend.partitioner import DelegationSpec

    found = XnnpackDynamicallyQuantizedPartitioner()
    only_linear = CompileSpec("dqlinear_partitioner", b"")
    found.delegation_spec = DelegationSpec(found.delegation_spec.backend_id, [only_linear])
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what ExecuTorch and torchao say about themselves when they are imported and used."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
