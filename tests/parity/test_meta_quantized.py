"""The official quantized models: the engine against a plain torch forward over the tensors of their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.meta_layout import quantized_piece, write_meta
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention, silu

from puna.engine.native import NativeEngine
from puna.models.config import ModelConfig
from puna.models.meta_writer import write_meta_quantized
from puna.models.open import open_checkpoint
from puna.models.packed import pack_checkpoint
from puna.tokens import Tokenizer

PARAMS = {
    "dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 520, "multiple_of": 16,
    "ffn_dim_multiplier": 0.75, "norm_eps": 1e-5, "rope_theta": 500000.0, "use_scaled_rope": True,
}  # fmt: skip
SCHEME = {"scheme": "int4_weight_int8_dynamic_activation", "group_size": 32}
SPINQUANT = PARAMS | {"quantization_args": SCHEME | {"spinquant": True}}
QLORA = PARAMS | {"quantization_args": SCHEME, "lora_args": {"rank": 16, "scale": 2.0}}
KINDS = {
    "spinquant": SPINQUANT,
    "qlora": QLORA,
    "both": QLORA | SPINQUANT,
    "neither": PARAMS | {"quantization_args": SCHEME},
}
TOKENS = np.random.default_rng(0).integers(0, 512, 60).tolist()  # the last 8 rows have no token


def config_of(params: dict[str, Any]) -> ModelConfig:
    return ModelConfig.from_meta(params, vocab_size=520, tied_embeddings=False)


def eight_bits(x: Tensor) -> Tensor:
    """Asymmetric int8 a token, as torchao's choose_qparams_per_token_asymmetric."""
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / 255).clamp(min=1.1920929e-07)
    zero = (-128 - (low / scale).round()).clamp(-128, 127)
    return ((x / scale).round().add(zero).clamp(-128, 127) - zero) * scale


def hadamard(x: Tensor) -> Tensor:
    """Evens and odds to sums and differences, log2(n) times, as llama-stack's hadamard_transform."""
    n = x.shape[-1]
    x = x[..., None]
    while x.shape[-2] > 1:
        even, odd = x[..., ::2, :], x[..., 1::2, :]
        x = torch.cat((even + odd, even - odd), -1) / 2**0.5
    return x.reshape(*x.shape[:-2], n)


def rope(x: Tensor, theta: float) -> Tensor:
    """Pairs side by side, Meta's order; stretched 32 times as Llama 3.2 is. ``[T, heads, D]``."""
    frequencies = 1 / theta ** (torch.arange(0, x.shape[-1], 2).double() / x.shape[-1])
    length = 2 * torch.pi / frequencies
    smooth = ((8192 / length - 1) / 3).clamp(0, 1)
    frequencies = (1 - smooth) * frequencies / 32 + smooth * frequencies
    angles = torch.arange(len(x)).double()[:, None] * frequencies
    turned = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)))
    turned = turned * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.view_as_real(turned).flatten(-2).float()


def reference(state: dict[str, Tensor], params: dict[str, Any], tokens: list[int] = TOKENS) -> Tensor:
    """Logits ``[T, V]``: every weight dequantized, every input of a linear rounded."""
    heads, kv_heads = params["n_heads"], params["n_kv_heads"]
    is_rotated = params["quantization_args"].get("spinquant", False)
    lora_scale = params.get("lora_args", {}).get("scale", 0.0)

    def weight(stem: str) -> Tensor:
        q, scales = state[f"{stem}.weight"], state[f"{stem}.scales"]
        return q.float() * scales.repeat_interleave(q.shape[1] // scales.shape[1], 1)

    def project(x: Tensor, stem: str) -> Tensor:
        y = linear(eight_bits(x), weight(stem))
        if lora_scale:
            a, b = (state[f"{stem}.adaptor.{half}.weight"].float() for half in "AB")
            y = y + lora_scale * linear(linear(x, a), b)
        return y

    def norm(x: Tensor, stem: str) -> Tensor:
        return (
            x
            * torch.rsqrt(x.square().mean(-1, keepdim=True) + params["norm_eps"])
            * state[f"{stem}.weight"].float()
        )

    x = weight("tok_embeddings")[tokens]
    for i in range(params["n_layers"]):
        layer = f"layers.{i}."
        h = norm(x, f"{layer}attention_norm")
        q, k, v = (project(h, f"{layer}attention.{n}") for n in ("wq", "wk", "wv"))
        q, k = (rope(t.unflatten(-1, (n, -1)), params["rope_theta"]) for t, n in ((q, heads), (k, kv_heads)))
        q, k, v = (t.transpose(0, 1)[None] for t in (q, k, v.unflatten(-1, (kv_heads, -1))))
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + project(mixed[0].transpose(0, 1).flatten(1), f"{layer}attention.wo")
        h = norm(x, f"{layer}ffn_norm")
        h = silu(project(h, f"{layer}feed_forward.w1")) * project(h, f"{layer}feed_forward.w3")
        x = x + project(hadamard(h) if is_rotated else h, f"{layer}feed_forward.w2")
    return linear(eight_bits(norm(x, "norm")), weight("output"))


def engines_logits(folder: Path, tokens: list[int] = TOKENS) -> np.ndarray:
    checkpoint = open_checkpoint(folder)
    engine = NativeEngine(pack_checkpoint(checkpoint), Tokenizer(checkpoint.vocabulary()), cache="f32")
    logits = np.array(engine.logits(tokens))
    engine.close()
    return logits


@pytest.mark.parametrize("kind", KINDS)
def test_logits_equal_a_forward_over_the_files_tensors(kind: str, tmp_path: Path) -> None:
    params = KINDS[kind]
    state = quantized_piece(config_of(params))
    ours = engines_logits(write_meta(tmp_path, [state], params))
    error = np.abs(ours - reference(state, params).numpy())
    # An input at a tie may round the other way, which moves the logits of its place and those after it; the
    # engine's adaptors round what they read to bfloat16, so that with them some always do.
    exact = "lora_args" not in params
    assert np.median(error) < (1e-3 if exact else 0.05) * np.abs(ours).mean(), float(np.median(error))
    assert error.max() < 0.1 * np.abs(ours).max(), float(error.max())


@pytest.mark.parametrize("kind", ["spinquant", "qlora"])
def test_a_layer_of_the_true_shape(kind: str, tmp_path: Path) -> None:
    """Of the 1B: the rotation is of 8192, and each of four query heads shares a key head."""
    params = KINDS[kind] | {"dim": 2048, "n_layers": 1, "n_heads": 32, "n_kv_heads": 8}
    params |= {"multiple_of": 256, "ffn_dim_multiplier": 1.5}
    config = config_of(params)
    assert (config.ffn_dim, config.head_dim) == (8192, 64)
    state = quantized_piece(config)
    tokens = TOKENS[:7]
    written = write_meta(tmp_path / "in", [state], params)
    ours = engines_logits(written, tokens)
    error = np.abs(ours - reference(state, params, tokens).numpy())
    assert np.median(error) < (0.01 if kind == "spinquant" else 0.05) * np.abs(ours).mean()
    assert error.max() < 0.1 * np.abs(ours).max(), float(error.max())
    write_meta_quantized(open_checkpoint(written), tmp_path / "out")
    assert np.array_equal(engines_logits(tmp_path / "out", tokens), ours)
    again = torch.load(tmp_path / "out" / "consolidated.00.pth", weights_only=True)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


def test_the_parts_of_a_kind_matter(tmp_path: Path) -> None:
    """Without the rotation, or without the adaptors, the same weights are another model."""
    state = quantized_piece(config_of(QLORA))
    with_adaptors, without = reference(state, QLORA), reference(state, KINDS["neither"])
    rotated = reference(state, SPINQUANT)
    assert (with_adaptors - without).abs().mean() > 0.3 * without.abs().mean()
    assert (rotated - without).abs().mean() > 0.3 * without.abs().mean()
