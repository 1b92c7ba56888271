"""Two processes over gloo compute the loss and the update of one."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import add_parts, save_tiny
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from puna.errors import ConfigError
from puna.nn.checkpoint import load
from puna.nn.fake_quantized import fake_quantize
from puna.nn.model import Transformer
from puna.nn.parallel import parallelize

TOKENS = torch.arange(4 * 32).reshape(4, 32) * 11 % 260


def loss_of(model: Transformer, tokens: Tensor) -> Tensor:
    logits = model(tokens)
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def two_steps(model: Transformer, tokens: Tensor) -> tuple[list[float], dict[str, Tensor]]:
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    losses = []
    for _ in range(2):
        loss = loss_of(model, tokens)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    weights = {
        name: (weight.full_tensor() if isinstance(weight, DTensor) else weight).detach()
        for name, weight in model.named_parameters()
    }
    return losses, weights


def worker(rank: int, port: int, folder: str, axis: str, out: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    model = load(folder)
    parallelize(model, init_device_mesh("cpu", (2,), mesh_dim_names=(axis,)))
    whole = sum(weight.numel() for weight in load(folder).parameters())
    own = sum(
        (weight.to_local() if isinstance(weight, DTensor) else weight).numel()
        for weight in model.parameters()
    )
    losses, weights = two_steps(model, TOKENS.chunk(2)[rank] if axis == "data" else TOKENS)
    torch.save((losses, weights, own / whole), f"{out}.{rank}")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("axis", ["data", "tensor"])
def test_two_processes_train_as_one(axis: str, is_tied: bool, tmp_path: Path) -> None:
    save_tiny(tmp_path / "in", tie_word_embeddings=is_tied)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    out = tmp_path / "out"
    arguments: Any = (port, str(tmp_path / "in"), axis, str(out))
    torch.multiprocessing.spawn(worker, arguments, nprocs=2)
    expected_losses, expected_weights = two_steps(load(str(tmp_path / "in")), TOKENS)
    results = [torch.load(f"{out}.{rank}") for rank in range(2)]
    losses = torch.tensor([losses for losses, _, _ in results])
    torch.testing.assert_close(losses.mean(0), torch.tensor(expected_losses), atol=1e-5, rtol=0)
    for _, weights, share in results:
        torch.testing.assert_close(weights, expected_weights, atol=1e-5, rtol=1e-4)
        assert share < 0.51  # norms are whole on the tensor axis


def test_a_wrong_mesh_is_refused(tmp_path: Path) -> None:
    class Mesh:
        mesh_dim_names = ("model",)

    save_tiny(tmp_path)
    with pytest.raises(ConfigError, match=r"axes named `data`, `tensor` or both, got \('model',\)"):
        parallelize(load(str(tmp_path)), Mesh())


class ThreeProcesses:
    mesh_dim_names = ("tensor",)

    def __getitem__(self, axis: str) -> ThreeProcesses:
        return self

    def size(self) -> int:
        return 3


def test_heads_that_cannot_be_shared_out_are_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    with pytest.raises(ConfigError, match=r"`n_heads` \(4\) must be a multiple of the tensor axis, got 3"):
        parallelize(load(str(tmp_path)), ThreeProcesses())


def test_a_rotation_needs_its_whole_input_in_one_process(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    model = add_parts(load(str(tmp_path)), has_down_rotation=True)
    with pytest.raises(ConfigError, match="a rotation before its down projections has no tensor axis"):
        parallelize(model, ThreeProcesses())


def test_a_fake_quantized_model_needs_whole_rows_in_one_process(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    model = load(str(tmp_path))
    fake_quantize(model)
    with pytest.raises(ConfigError, match="a fake-quantized model has no tensor axis"):
        parallelize(model, ThreeProcesses())
