"""A 70B model converts in bounded memory: one layer of its true shape, in Meta's layout of two files."""

from __future__ import annotations

import json
import resource
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.unit.models.pickles import model, storage, tensor

# 70B's params.json with one layer, and a short vocabulary in place of 128256 tokens.
PARAMS = {
    "dim": 8192, "n_layers": 1, "n_heads": 64, "n_kv_heads": 8, "vocab_size": 512, "multiple_of": 4096,
    "ffn_dim_multiplier": 1.3, "norm_eps": 1e-5, "rope_theta": 500000.0,
}  # fmt: skip
# What each of two files has; bfloat16.
PIECES = {
    "tok_embeddings": (256, 8192),
    "layers.0.attention_norm": (8192,),
    "layers.0.attention.wq": (4096, 8192),
    "layers.0.attention.wk": (512, 8192),
    "layers.0.attention.wv": (512, 8192),
    "layers.0.attention.wo": (8192, 4096),
    "layers.0.ffn_norm": (8192,),
    "layers.0.feed_forward.w1": (14336, 8192),
    "layers.0.feed_forward.w3": (14336, 8192),
    "layers.0.feed_forward.w2": (8192, 14336),
    "norm": (8192,),
    "output": (256, 8192),
}
LARGEST = 28672 * 8192
# Beside the interpreter: the largest matrix put together from its pieces (2 bytes a weight).
LIMIT_BYTES = 2 * LARGEST + 400 * 2**20

READ_ALL = """
import json, resource, sys
from pathlib import Path
limit = int(sys.argv[2])
from puna.models.open import open_checkpoint
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
checkpoint = open_checkpoint(Path(sys.argv[1]))
read = {name: list(checkpoint.tensor(name).data.shape) for name in checkpoint.dtypes}
print(json.dumps([checkpoint.config.n_parameters, read]))
"""


def write_sparse(path: Path) -> None:
    """A file of torch.save with holes in place of the numbers: all zero, and taking no room on the disk."""
    bfloat = b"ctorch\nBFloat16Storage\n"
    described, sizes = {}, {}
    for i, (name, shape) in enumerate(PIECES.items()):
        n_elements = shape[0] * (shape[1] if len(shape) == 2 else 1)
        strides = (shape[1], 1) if len(shape) == 2 else (1,)
        described[f"{name}.weight"] = tensor(shape, strides, 0, storage(str(i), n_elements, bfloat))
        sizes[f"m/data/{i}"] = 2 * n_elements
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", model(**described))
    # Members behind the first, with their headers and the directory written by hand, for their holes.
    pickle_entry = _directory_entry("m/data.pkl", len(model(**described)), 0)
    with path.open("r+b") as file:
        position = 30 + len("m/data.pkl") + len(model(**described))
        entries = [pickle_entry]
        for name, size in sizes.items():
            file.seek(position)
            file.write(struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 0, 0, size, size, len(name), 0))
            file.write(name.encode())
            entries.append(_directory_entry(name, size, position))
            position += 30 + len(name) + size
        file.seek(position)
        directory = b"".join(entries)
        count = len(entries)
        end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), position, 0)
        file.write(directory + end)


def _directory_entry(name: str, size: int, position: int) -> bytes:
    numbers = (20, 20, 0, 0, 0, 0, 0, size, size, len(name), 0, 0, 0, 0, 0, position)
    return struct.pack("<4s6H3L5H2L", b"PK\x01\x02", *numbers) + name.encode()


@pytest.fixture
def sparse_70b(tmp_path: Path) -> Path:
    if shutil.disk_usage(tmp_path).free < 4 * 2**30:
        pytest.skip("needs 4 GB of free disk, should the file system not keep holes")
    for number in (0, 1):
        write_sparse(tmp_path / f"consolidated.{number:02d}.pth")
    (tmp_path / "params.json").write_text(json.dumps(PARAMS))
    return tmp_path


def run(folder: Path, limit: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", READ_ALL, str(folder), str(limit)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts mapped memory in RLIMIT_DATA")
def test_a_layer_of_70b_is_put_together_in_the_memory_of_one_tensor(sparse_70b: Path) -> None:
    assert hasattr(resource, "RLIMIT_DATA")
    done = run(sparse_70b, LIMIT_BYTES)
    assert done.returncode == 0, done.stderr[-2000:]
    n_parameters, read = json.loads(done.stdout)
    assert n_parameters == 864_051_200
    assert read["model.layers.0.mlp.down_proj.weight"] == [8192, 2 * 28672]
    assert read["model.layers.0.self_attn.q_proj.weight"] == [8192, 2 * 8192]
    # The limit does limit: with less room than one tensor takes it does not work.
    short = run(sparse_70b, LARGEST)
    assert short.returncode != 0
    assert "MemoryError" in short.stderr
