"""Packing: nothing is lost, nothing sees its neighbour, and the loss is that of each text alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.tiny import save_tiny, save_tiny_llama3

from puna.errors import ConfigError
from puna.models.open import open_checkpoint
from puna.nn.checkpoint import load
from puna.nn.model import Transformer
from puna.train.data import load_pairs, load_rows
from puna.train.encode import Example
from puna.train.losses import cross_entropy
from puna.train.rows import NOT_COUNTED, Batch, Rows, cut_into_rows, pack_into_rows


def examples(*lengths: int) -> list[Example]:
    generator = torch.Generator().manual_seed(0)
    return [
        Example(torch.randint(0, 256, (n,), generator=generator).tolist(), [i >= n // 2 for i in range(n)])
        for n in lengths
    ]


def alone(example: Example) -> Batch:
    targets = [i if s else NOT_COUNTED for i, s in zip(example.ids[1:], example.said[1:], strict=True)]
    return Batch(torch.tensor([example.ids[:-1]]), torch.tensor([targets]))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Transformer:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder)
    return load(str(folder), dtype=torch.float64)


def test_packed_rows_have_the_loss_and_gradient_of_each_text_alone(tiny: Transformer) -> None:
    given = examples(9, 30, 12, 5, 21, 2)
    rows = pack_into_rows(given, 32)
    assert len(rows) == 3
    results = []
    for batches in ([rows.batch(list(range(len(rows))))], [alone(example) for example in given]):
        tiny.zero_grad()
        total, count = torch.zeros(()), 0
        for batch in batches:
            loss, n = cross_entropy(tiny, batch)
            total, count = total + loss, count + n
        total.backward()
        results.append((count, total, tiny.model.layers[0].self_attn.k_proj.weight.grad.clone()))
    assert results[0][0] == results[1][0] == sum(len(e.ids) - max(1, len(e.ids) // 2) for e in given)
    torch.testing.assert_close(results[0][1:], results[1][1:], rtol=1e-5, atol=1e-5)


def test_all_layers_keep_one_mask(tiny: Transformer) -> None:
    batch = pack_into_rows(examples(17, 17, 17), 32).batch([0, 1])
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape[-2:] == (32, 32) and tensor.isinf().any():
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        cross_entropy(tiny, batch)
    assert list(kept.values()) == [2 * 32 * 32]


def test_each_text_goes_into_the_first_row_that_has_room() -> None:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 34, (300,), generator=generator).tolist()
    rows = pack_into_rows([Example([i] * n, [True] * n) for i, n in enumerate(lengths)], 32)
    room, expected = [], []
    for i in sorted(range(300), key=lambda i: -lengths[i]):
        place = next((p for p, left in enumerate(room) if left >= lengths[i] - 1), len(room))
        if place == len(room):
            room.append(32)
            expected.append([])
        room[place] -= lengths[i] - 1
        expected[place] += [i] * (lengths[i] - 1)
    assert [row[: len(e)] for row, e in zip(rows.tokens.tolist(), expected, strict=True)] == expected


def test_rows_of_one_text_need_no_mask() -> None:
    rows = pack_into_rows(examples(33, 33), 32)
    assert rows.batch([0, 1]).segments is None
    assert pack_into_rows(examples(17, 17), 32).batch([0]).segments is not None


def test_a_long_text_is_cut_into_rows_that_follow() -> None:
    rows = cut_into_rows(list(range(10)), 3)
    assert rows.tokens.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert rows.targets.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    with pytest.raises(ConfigError, match="has 3 tokens, a row of 3 needs 4"):
        cut_into_rows([0, 1, 2], 3)


def test_held_out_rows_are_spread_and_not_learned() -> None:
    rows = Rows(torch.arange(10)[:, None], torch.arange(10)[:, None])
    kept, held_out = rows.split(3)
    assert held_out.tokens.flatten().tolist() == [1, 5, 8]
    assert kept.tokens.flatten().tolist() == [0, 2, 3, 4, 6, 7, 9]
    with pytest.raises(ConfigError, match="10 rows are to be held out, and there are 10"):
        rows.split(10)


def test_files_become_rows_and_pairs(tmp_path: Path) -> None:
    save_tiny_llama3(tmp_path / "model")
    vocabulary = open_checkpoint(tmp_path / "model").vocabulary()
    chat = {"messages": [{"role": "user", "content": "Hum?"}, {"role": "assistant", "content": "Hum."}]}
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.jsonl").write_text((json.dumps(chat) + "\n") * 5)
    (data / "b.txt").write_text("Llamas hum. " * 10)
    rows = load_rows(data, vocabulary, 64)
    assert rows.tokens.shape[1] == 64
    whole = rows.targets[(rows.targets != NOT_COUNTED).all(1)]
    assert len(whole) == 1  # of the text: 120 bytes
    chats = rows.targets[(rows.targets == NOT_COUNTED).any(1)]
    assert int((chats != NOT_COUNTED).sum()) == 5 * len("Hum.!")
    with pytest.raises(
        ConfigError, match=r"5 examples are longer than 9 tokens, the first is .*a\.jsonl, line 1"
    ):
        load_rows(data, vocabulary, 8)
    (data / "b.txt").write_text("Hum.")
    with pytest.raises(ConfigError, match="the text has 5 tokens, a row of 64 needs 65; give more text"):
        load_rows(data, vocabulary, 64)

    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"prompt": "Hum?", "chosen": "Yes.", "rejected": "No"}))
    [(chosen, rejected)] = load_pairs(pairs, vocabulary, 64)
    assert (sum(chosen.said), sum(rejected.said)) == (5, 3)
    with pytest.raises(ConfigError, match="line 1: needs `prompt`"):
        load_pairs(data / "a.jsonl", vocabulary, 64)
    with pytest.raises(ConfigError, match="is a preference"):
        load_rows(pairs, vocabulary, 64)
    (tmp_path / "empty.jsonl").write_text("\n")
    for load_it in (load_rows, load_pairs):
        with pytest.raises(ConfigError, match="is empty"):
            load_it(tmp_path / "empty.jsonl", vocabulary, 64)


def test_a_model_without_a_chat_format_names_the_line(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    vocabulary = open_checkpoint(tmp_path).vocabulary()
    path = tmp_path / "a.jsonl"
    path.write_text(
        json.dumps({"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]})
    )
    with pytest.raises(
        ConfigError, match=r"a\.jsonl, line 1: messages\[1\]: the chat format ends answers with no"
    ):
        load_rows(path, vocabulary, 64)
