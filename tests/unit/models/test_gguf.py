from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize
from numpy.typing import NDArray

from puna.errors import CheckpointError
from puna.models import gguf_file
from puna.models.blocks import bytes_of
from puna.models.checkpoint import Tensor
from puna.models.gguf import GgufCheckpoint
from puna.models.gguf_file import GgufFile

U32, U64, F32, BOOL, STRING, ARRAY = 4, 10, 6, 7, 8, 9


def test_default_model_equals_the_gguf_package(default_gguf: Path) -> None:
    """Every tensor in full, against the gguf package's reader and transformers' order of rows."""
    from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

    ours, theirs = GgufCheckpoint(default_gguf), gguf.GGUFReader(default_gguf)
    config = ours.config
    heads = {"num_attention_heads": config.n_heads, "num_key_value_heads": config.n_kv_heads}
    reorder = LlamaTensorProcessor(config=heads).process
    # The order of our names is that of the forward pass; theirs that of the file.
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.n_layers)
    by_name = {tensor.name: tensor for tensor in theirs.tensors}
    assert ours.dtypes.keys() == config.tensor_shapes().keys()
    assert len(ours.dtypes) == len(by_name) == 272
    for name, shape in config.tensor_shapes().items():
        their = by_name[names.get_name(name.removesuffix(".weight")) + ".weight"]
        expected = reorder(dequantize(their.data, their.tensor_type), their.name).weights
        tensor = ours.tensor(name)
        assert (tensor.dtype, tensor.shape) == (their.tensor_type.name, shape)
        np.testing.assert_array_equal(tensor.to_float32(), expected, err_msg=name)


def test_default_model_settings(default_gguf: Path) -> None:
    checkpoint = GgufCheckpoint(default_gguf)
    config = checkpoint.config
    assert (config.dim, config.n_layers, config.n_heads, config.n_kv_heads, config.head_dim) == (
        576,
        30,
        9,
        3,
        64,
    )
    assert (config.ffn_dim, config.vocab_size, config.max_seq_len) == (1536, 49152, 8192)
    assert (config.rope_theta, config.tied_embeddings) == (100_000.0, True)
    assert config.n_parameters == 134_515_008
    vocabulary = checkpoint.vocabulary()
    assert (vocabulary.bos_id, vocabulary.eos_ids, vocabulary.add_bos) == (1, (2,), False)
    assert vocabulary.special_tokens == {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    assert vocabulary.chat_template is not None
    assert vocabulary.chat_template.startswith("{% for message in messages %}")


def test_default_model_metadata_equals_the_gguf_package(default_gguf: Path) -> None:
    theirs = gguf.GGUFReader(default_gguf).fields
    expected = {key: field.contents() for key, field in theirs.items() if not key.startswith("GGUF.")}
    assert GgufFile(default_gguf).metadata == expected


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_all_tensors_of_each_type(
    tmp_path: Path, write_gguf: Any, weights: dict[str, NDArray[np.float32]], dtype: str
) -> None:
    checkpoint = GgufCheckpoint(write_gguf(tmp_path / "m.gguf", dtype))
    assert list(checkpoint.dtypes) == list(weights)
    assert checkpoint.config.tied_embeddings is False
    kind = gguf.GGMLQuantizationType[dtype]
    for name, weight in weights.items():
        tensor = checkpoint.tensor(name)
        expected = weight if weight.ndim == 1 else dequantize(gguf.quants.quantize(weight, kind), kind)
        np.testing.assert_array_equal(tensor.to_float32(), expected, err_msg=name)
        assert not tensor.data.flags.writeable
        assert tensor.data.shape[:-1] == weight.shape[:-1]


@pytest.mark.parametrize("dtype", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL"])
def test_types_that_the_gguf_package_cannot_write(tmp_path: Path, dtype: str) -> None:
    kind = gguf.GGMLQuantizationType[dtype]
    data = np.random.default_rng(4).integers(0, 120, (3, bytes_of(dtype, (512,))), dtype=np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("t", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GgufFile(tmp_path / "m.gguf")
    info = file.tensors["t"]
    assert (info.dtype, info.shape) == (dtype, (3, 512))
    ours = Tensor("t", info.dtype, info.shape, file.data("t")).to_float32()
    np.testing.assert_array_equal(ours, dequantize(data, kind))


def test_groups_of_q_are_in_the_order_of_its_values(tmp_path: Path, write_gguf: Any) -> None:
    tensor = GgufCheckpoint(write_gguf(tmp_path / "m.gguf", "Q4_0")).tensor(
        "model.layers.1.self_attn.q_proj.weight"
    )
    groups = tensor.to_groups()
    assert groups is not None
    values = groups[0].astype(np.float32) * groups[1].astype(np.float32).repeat(32, axis=1)
    np.testing.assert_array_equal(values, tensor.to_float32())


def test_no_head_means_tied(tmp_path: Path, write_gguf: Any) -> None:
    checkpoint = GgufCheckpoint(write_gguf(tmp_path / "m.gguf", leave_out=("lm_head.weight",)))
    assert checkpoint.config.tied_embeddings is True
    assert "lm_head.weight" not in checkpoint.dtypes
    with pytest.raises(CheckpointError, match=r"m\.gguf has no tensor 'lm_head.weight'"):
        checkpoint.tensor("lm_head.weight")


def test_rope_factors_are_read(tmp_path: Path, write_gguf: Any) -> None:
    factors = np.linspace(1, 32, 8, dtype=np.float32)
    config = GgufCheckpoint(write_gguf(tmp_path / "m.gguf", tensors={"rope_freqs.weight": factors})).config
    assert config.rope_scaling is not None
    assert config.rope_scaling.factors == tuple(factors.tolist())
    plain = [10_000.0 ** (-i / 8) for i in range(8)]
    assert config.rope_frequencies() == [p / f for p, f in zip(plain, factors.tolist(), strict=True)]


@pytest.mark.parametrize(
    ("keys", "ends", "adds_bos"),
    [
        ({}, (1, 2), True),
        ({"tokenizer.ggml.add_bos_token": False}, (1, 2), False),
        ({"tokenizer.ggml.eot_token_id": 2, "tokenizer.ggml.eom_token_id": 5}, (1, 2, 5), True),
        ({"tokenizer.ggml.token_type": [3, 3] + [1] * 27}, (1,), True),
    ],
)
def test_vocabulary(
    tmp_path: Path, write_gguf: Any, monkeypatch: pytest.MonkeyPatch, keys: Any, ends: Any, adds_bos: bool
) -> None:
    monkeypatch.setattr("puna.models.gguf.tokenizer_json_from_gguf", lambda metadata: "made")
    checkpoint = GgufCheckpoint(write_gguf(tmp_path / "m.gguf"))
    checkpoint._metadata.update(keys)
    vocabulary = checkpoint.vocabulary()
    assert (vocabulary.bos_id, vocabulary.eos_ids, vocabulary.add_bos) == (0, ends, adds_bos)
    assert vocabulary.special_tokens == {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    assert (vocabulary.tokenizer_json, vocabulary.chat_template) == ("made", None)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("bos_token_id", 29, "must be a token id under 29, got 29"),
        ("eos_token_id", -1, "must be a token id under 29, got -1"),
        ("eot_token_id", True, "must be a token id under 29, got True"),
        ("add_bos_token", 1, "must be true or false, got 1"),
        ("tokens", ["a"] * 41, "must fit the embedding's 40 rows, got 41 tokens"),
        ("tokens", [1, 2], "must be a list of text"),
        ("tokens", None, "must be a list of text"),
    ],
)
def test_damaged_vocabulary(
    tmp_path: Path, write_gguf: Any, monkeypatch: pytest.MonkeyPatch, key: str, value: Any, words: str
) -> None:
    monkeypatch.setattr("puna.models.gguf.tokenizer_json_from_gguf", lambda metadata: "made")
    checkpoint = GgufCheckpoint(write_gguf(tmp_path / "m.gguf"))
    checkpoint._metadata[f"tokenizer.ggml.{key}"] = value
    with pytest.raises(CheckpointError) as caught:
        checkpoint.vocabulary()
    assert words in str(caught.value)
    assert key in str(caught.value) or key == "tokens"


def _model(**changes: Any) -> Callable[[Path, Any], Path]:
    return lambda path, write_gguf: write_gguf(path, **changes)


_EXTRA = np.zeros((2, 32), np.float32)
NOT_A_LLAMA = {
    "a tensor is missing": (
        _model(leave_out=("model.norm.weight", "model.layers.1.mlp.up_proj.weight")),
        "2 tensors are missing, the first is 'model.layers.1.mlp.up_proj.weight'",
    ),
    "a tensor too many": (
        _model(tensors={"blk.0.attn_q.bias": _EXTRA}),
        "1 tensors belong to no part of a Llama, the first is 'blk.0.attn_q.bias'",
    ),
    "an expert": (
        _model(tensors={"blk.0.ffn_gate_exps.weight": _EXTRA}),
        "the first is 'blk.0.ffn_gate_exps.weight'",
    ),
    "another spelling": (
        _model(tensors={"blk.00.attn_q.weight": _EXTRA}),
        "the first is 'blk.00.attn_q.weight'",
    ),
    "layer 7 of 2": (
        _model(tensors={"blk.7.attn_q.weight": _EXTRA}),
        "'model.layers.7.self_attn.q_proj.weight'",
    ),
    "a wrong shape": (
        _model(leave_out=("model.norm.weight",), tensors={"output_norm.weight": np.zeros(63, np.float32)}),
        "tensor 'model.norm.weight' needs shape (64,), got (63,)",
    ),
    "rope factors, two axes": (
        _model(tensors={"rope_freqs.weight": _EXTRA}),
        "needs F32 numbers along one axis, got F32 of shape (2, 32)",
    ),
    "rope factors, too few": (
        _model(tensors={"rope_freqs.weight": np.ones(7, np.float32)}),
        "needs 8 factors above 0, got 7",
    ),
    "one part of three": (_model(keys={"split.count": 3}), "is one of 3 parts of a model"),
    "an unknown setting": (_model(keys={"llama.expert_count": 8}), "unknown keys ['llama.expert_count']"),
}


@pytest.mark.parametrize("case", NOT_A_LLAMA)
def test_models_that_are_no_whole_llama(tmp_path: Path, write_gguf: Any, case: str) -> None:
    make, words = NOT_A_LLAMA[case]
    with pytest.raises(CheckpointError) as caught:
        GgufCheckpoint(make(tmp_path / "m.gguf", write_gguf))
    assert words in str(caught.value)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def pair(key: bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def array(kind: int, count: int, items: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + items


def info(name: bytes = b"t", shape: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def file(
    *parts: bytes,
    tensors: int = 0,
    keys: int = 0,
    version: int = 3,
    data: bytes = b"",
    magic: bytes = b"GGUF",
) -> bytes:
    header = magic + struct.pack("<IQQ", version, tensors, keys) + b"".join(parts)
    return header + bytes(-len(header) % 32) + data


def alignment(value: int) -> bytes:
    return pair(b"general.alignment", U32, struct.pack("<I", value))


HOSTILE = {
    "empty": (b"", "is empty"),
    "three bytes": (b"GGU", "the magic number needs 4 bytes at offset 0, got 3"),
    "other magic": (file(magic=b"GGML"), "begins with b'GGUF', got b'GGML'"),
    "no version": (b"GGUF", "the version needs 4 bytes at offset 4, got 0"),
    "version 1": (file(version=1), "must be one of (2, 3), got 1"),
    "version 4": (file(version=4), "must be one of (2, 3), got 4"),
    "big-endian": (file(version=3 << 24), "is big-endian"),
    "cut in the counts": (file()[:20], "the number of metadata keys needs 8 bytes at offset 16, got 4"),
    "2^64-1 tensors": (file(tensors=2**64 - 1), "at most 65536 tensors are read, got 18446744073709551615"),
    "2^64-1 keys": (file(keys=2**64 - 1), "at most 65536 metadata keys are read"),
    "keys that are not there": (file(keys=60_000), "needs 4 bytes at offset 32, got 0"),
    "a long key": (
        file(struct.pack("<Q", 65_536), keys=1, data=bytes(70_000)),
        "at most 1024 bytes of a key",
    ),
    "a key of 2^64-1 bytes": (
        file(struct.pack("<Q", 2**64 - 1), keys=1),
        "at most 1024 bytes of a key are read",
    ),
    "a key past the end": (file(struct.pack("<Q", 500), keys=1), "a key needs 500 bytes at offset 32"),
    "a key not UTF-8": (file(text(b"\xff\xfe"), keys=1), "a key is not UTF-8"),
    "a key twice": (file(alignment(32), alignment(32), keys=2), "the key 'general.alignment' is given twice"),
    "value type 13": (file(pair(b"k", 13, b"1234"), keys=1), "`k` has value type 13, known: 0 to 12"),
    "value type 2^32-1": (file(pair(b"k", 2**32 - 1, b""), keys=1), "has value type 4294967295"),
    "a boolean of 2": (file(pair(b"k", BOOL, b"\x02"), keys=1), "`k` needs booleans of 0 or 1, got 2"),
    "a string past the end": (
        file(pair(b"k", STRING, struct.pack("<Q", 1000)), keys=1),
        "`k` needs 1000 bytes at offset 45",
    ),
    "a string of 2^63 bytes": (
        file(pair(b"k", STRING, struct.pack("<Q", 2**63)), keys=1),
        "at most 67108864 bytes of `k` are read, got 9223372036854775808",
    ),
    "a string not UTF-8": (file(pair(b"k", STRING, text(b"\x80")), keys=1), "`k` is not UTF-8"),
    "an array of arrays": (
        file(pair(b"k", ARRAY, array(ARRAY, 1, array(U32, 1, bytes(4)))), keys=1),
        "`k` is an array of arrays",
    ),
    "an array of type 99": (file(pair(b"k", ARRAY, array(99, 1, bytes(8))), keys=1), "has value type 99"),
    "2^64-1 numbers": (
        file(pair(b"k", ARRAY, array(U64, 2**64 - 1)), keys=1),
        "at most 4194304 items of `k` are read, got 18446744073709551615",
    ),
    "2^61 numbers, a size that wraps to 0": (
        file(pair(b"k", ARRAY, array(U64, 2**61)), keys=1),
        "are read, got",
    ),
    "numbers past the end": (
        file(pair(b"k", ARRAY, array(U64, 1000)), keys=1),
        "`k` needs 8000 bytes at offset 49, got 15",
    ),
    "strings past the end": (
        file(pair(b"k", ARRAY, array(STRING, 3, text(b"a") + bytes(2))), keys=1),
        "`k` needs 3 items, the file ends after",
    ),
    "a string in an array past the end": (
        file(pair(b"k", ARRAY, array(STRING, 2, text(b"a") + struct.pack("<Q", 2**63))), keys=1),
        "item 1 of `k` reaches past the end of the file",
    ),
    "a string of 2^64-1 bytes in an array": (
        file(pair(b"k", ARRAY, array(STRING, 1, struct.pack("<Q", 2**64 - 1))), keys=1),
        "item 0 of `k` reaches past the end of the file",
    ),
    "an array not UTF-8": (
        file(pair(b"k", ARRAY, array(STRING, 2, text(b"a") + text(b"\xc3"))), keys=1),
        "item 1 of `k` is not UTF-8",
    ),
    "alignment 0": (file(alignment(0), keys=1), "must be a power of two from 8 to 65536, got 0"),
    "alignment 48": (file(alignment(48), keys=1), "must be a power of two from 8 to 65536, got 48"),
    "alignment 2^31": (
        file(alignment(2**31), keys=1),
        "must be a power of two from 8 to 65536, got 2147483648",
    ),
    "alignment of text": (
        file(pair(b"general.alignment", STRING, text(b"32")), keys=1),
        "must be a power of two from 8 to 65536, got '32'",
    ),
    "a long tensor name": (
        file(info(b"n" * 65), tensors=1, data=bytes(16)),
        "at most 64 bytes of a tensor name",
    ),
    "a tensor twice": (
        file(info(), info(offset=32), tensors=2, data=bytes(64)),
        "the tensor 't' is listed twice",
    ),
    "no axes": (file(info(shape=()), tensors=1, data=bytes(16)), "the tensor 't' needs 1 to 4 axes, got 0"),
    "five axes": (file(info(shape=(1,) * 5), tensors=1), "the tensor 't' needs 1 to 4 axes, got 5"),
    "2^32-1 axes": (file(text(b"t") + b"\xff" * 4, tensors=1), "needs 1 to 4 axes, got 4294967295"),
    "a size of 0": (
        file(info(shape=(4, 0)), tensors=1),
        "needs sizes of at least 1 that can be addressed, got (0, 4)",
    ),
    "a size of 2^63": (
        file(info(shape=(2**63,)), tensors=1),
        "needs sizes of at least 1 that can be addressed",
    ),
    "a product that wraps": (
        file(info(shape=(2**32, 2**32)), tensors=1),
        "that can be addressed, got (4294967296, 4294967296)",
    ),
    "a product of 2^62": (
        file(info(shape=(2**31, 2**31)), tensors=1),
        "needs a file of 18446744073709551712 bytes, got 96",
    ),
    "a type that no Llama is stored in": (
        file(info(kind=22, shape=(256,)), tensors=1),
        "storage type IQ2_S is not read yet",
    ),
    "a type of nowhere": (file(info(kind=4), tensors=1), "storage type number 4 is not read yet"),
    "no whole blocks": (file(info(kind=2, shape=(33,)), tensors=1), "Q4_0 needs rows of a multiple of 32"),
    "blocks across rows": (file(info(kind=2, shape=(16, 2)), tensors=1), "multiple of 32 elements, got 16"),
    "an offset of 16": (
        file(info(offset=16), tensors=1, data=bytes(64)),
        "the tensor 't' needs an offset that 32 divides, got 16",
    ),
    "an offset past the end": (
        file(info(offset=2**63), tensors=1, data=bytes(16)),
        "the tensor 't' needs a file of 9223372036854775888 bytes, got 80",
    ),
    "a byte too few": (
        file(info(), tensors=1, data=bytes(15)),
        "the tensor 't' needs a file of 80 bytes, got 79",
    ),
    "an overlap": (
        file(info(b"a", (16,)), info(b"b", offset=32), tensors=2, data=bytes(64)),
        "the tensor 'b' overlaps 'a'",
    ),
    "the same place": (
        file(info(b"a"), info(b"b"), tensors=2, data=bytes(16)),
        "the tensor 'b' overlaps 'a'",
    ),
    "cut in the tensor list": (
        file(info(), tensors=1)[:55],
        "the offset of 't' needs 8 bytes at offset 49, got 6",
    ),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run `git lfs pull`"),
    "web page": (b"<html><body>Sign in</body></html>", "is a web page"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(tmp_path: Path, case: str) -> None:
    data, words = HOSTILE[case]
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        GgufFile(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_damage_anywhere_is_refused_or_harmless(tmp_path: Path, write_gguf: Any) -> None:
    """Random bytes in the header and cuts everywhere give a model or a CheckpointError, nothing else."""
    path = write_gguf(tmp_path / "good", "Q4_0")
    good = path.read_bytes()
    header = min(info.start for info in GgufFile(path).tensors.values())
    rng = np.random.default_rng(5)
    outcomes = {"opened": 0, "refused": 0}
    for _ in range(600):
        data = bytearray(good)
        for position in rng.integers(0, header, rng.integers(1, 4)):
            data[position] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.integers(256)])
        if rng.random() < 0.2:
            del data[rng.integers(0, len(data)) :]
        (tmp_path / "bad").write_bytes(data)
        try:
            checkpoint = GgufCheckpoint(tmp_path / "bad")
            checkpoint.vocabulary()
            for name in checkpoint.dtypes:
                checkpoint.tensor(name).to_float32()
            outcomes["opened"] += 1
        except CheckpointError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20, outcomes


def test_items_of_all_arrays_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_file, "_MAX_ARRAY_ITEMS", 5)
    parts = [pair(key, ARRAY, array(0, 3, bytes(3))) for key in (b"a", b"b")]
    (tmp_path / "m").write_bytes(file(*parts, keys=2))
    with pytest.raises(CheckpointError, match="at most 2 items of `b` are read, got 3"):
        GgufFile(tmp_path / "m")


def test_metadata_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_file, "_MAX_METADATA_BYTES", 40)
    (tmp_path / "m").write_bytes(file(pair(b"k", STRING, text(b"x" * 99)), keys=1))
    with pytest.raises(CheckpointError, match="at most 40 bytes of metadata are read"):
        GgufFile(tmp_path / "m")


@pytest.mark.parametrize("version", [2, 3])
def test_a_good_file_made_by_hand(tmp_path: Path, version: int) -> None:
    """The builder that the hostile files come from makes files that are read."""
    parts = [
        alignment(64),
        pair(b"yes", BOOL, b"\x01"),
        pair(b"pi", F32, struct.pack("<f", 0.5)),
        pair(b"words", ARRAY, array(STRING, 2, text(b"a") + text("ä".encode()))),
        pair(b"none", ARRAY, array(STRING, 0)),
        pair(b"big", 11, struct.pack("<q", -(2**63))),
    ]
    values = np.arange(8, dtype=np.float32)
    header = file(*parts, info(b"t", (4, 2)), tensors=1, keys=6, version=version)
    header += bytes(-len(header) % 64)
    (tmp_path / "m").write_bytes(header + values.tobytes())
    opened = GgufFile(tmp_path / "m")
    assert opened.metadata == {
        "general.alignment": 64, "yes": True, "pi": 0.5, "words": ["a", "ä"], "none": [], "big": -(2**63),
    }  # fmt: skip
    place = opened.tensors["t"]
    assert (place.dtype, place.shape, place.start, place.n_bytes) == ("F32", (2, 4), len(header), 32)
    tensor = Tensor("t", place.dtype, place.shape, opened.data("t"))
    np.testing.assert_array_equal(tensor.to_float32(), values.reshape(2, 4))
