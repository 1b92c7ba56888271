"""A `Transformer` spread over processes, from outside: the model's own file knows nothing of it.

Two axes, alone or together: *tensor*, where each process has a share of the heads, of the feed-forward
layer and of the vocabulary; and *data* (FSDP2), where each has its own sequences and keeps a slice of
every weight between its uses.
"""

from __future__ import annotations

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from puna.errors import ConfigError
from puna.nn.fake_quantized import Int4Linear, Int8Embedding, Int8Linear
from puna.nn.model import Transformer

__all__ = ["parallelize"]


def parallelize(model: Transformer, mesh: DeviceMesh, *, dtype: torch.dtype | None = None) -> None:
    """Spread a model over a mesh, in place; call it in every process, before making the optimizer.

    Args:
        model: the whole model with the same weights everywhere, or one on the meta device.
        mesh: with axes named ``data``, ``tensor`` or both.
        dtype: to compute in over the data axis; gradients are summed in float32. None: as the weights are.

    Raises:
        ConfigError: the mesh has other axes, a size does not divide by the tensor axis, or there is one and
            the model is no plain Llama, or fake-quantized.
    """
    axes = mesh.mesh_dim_names or ()
    if not axes or not set(axes) <= {"data", "tensor"}:
        raise ConfigError(f"the mesh needs axes named `data`, `tensor` or both, got {axes!r}")
    if "tensor" in axes:
        _split_tensors(model, mesh["tensor"])
    if "data" in axes:
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32 if dtype else None)
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh["data"], mp_policy=policy)
        fully_shard(model, mesh=mesh["data"], mp_policy=policy)


def _split_tensors(model: Transformer, mesh: DeviceMesh) -> None:
    config, n = model.config, mesh.size()
    if config.additions:
        raise ConfigError(
            f"a model with {' and '.join(config.additions)} has no tensor axis; use `data` alone"
        )
    if any(isinstance(module, Int4Linear | Int8Linear | Int8Embedding) for module in model.modules()):
        raise ConfigError(
            "a fake-quantized model has no tensor axis, as rounding sees whole rows; use `data`"
        )
    for name in ("n_heads", "n_kv_heads", "ffn_dim", "vocab_size"):
        if getattr(config, name) % n:
            raise ConfigError(
                f"`{name}` ({getattr(config, name)}) must be a multiple of the tensor axis, got {n} processes"
            )
    # What a layer reads is whole everywhere; it makes a share of heads or columns, and sums at its end.
    for layer in model.model.layers:
        parallelize_module(
            layer,
            mesh,
            {
                "self_attn.q_proj": ColwiseParallel(),
                "self_attn.k_proj": ColwiseParallel(),
                "self_attn.v_proj": ColwiseParallel(),
                "self_attn.o_proj": RowwiseParallel(),
                "mlp.gate_proj": ColwiseParallel(),
                "mlp.up_proj": ColwiseParallel(),
                "mlp.down_proj": RowwiseParallel(),
            },
        )
    parallelize_module(
        model,
        mesh,
        {
            "model.embed_tokens": RowwiseParallel(input_layouts=Replicate()),
            "lm_head": ColwiseParallel(output_layouts=Replicate()),
        },
    )
    model.tie_weights()  # each of the two got a sharded parameter of its own
