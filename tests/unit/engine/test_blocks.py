"""Cache blocks: against a simple model of who owns what, and what a prefix may share."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.engine.blocks import BlockManager, digest_of_owner

SIZE = 4


def compute(manager: BlockManager, tokens: list[int]) -> list[int]:
    """Take blocks for a text as the scheduler does, and make the full ones known."""
    shared = manager.find_prefix(tokens)
    blocks = manager.acquire(shared, manager.blocks_for(len(tokens)) - len(shared))
    assert blocks is not None
    digest = b""
    for i in range(len(tokens) // SIZE):
        digest = manager.remember(blocks[i], digest, tokens[i * SIZE : (i + 1) * SIZE])
    return blocks


def test_a_prefix_is_shared_and_the_last_token_never() -> None:
    manager = BlockManager(8, SIZE)
    first = compute(manager, list(range(12)))
    assert manager.find_prefix(list(range(12))) == first[:2]
    assert manager.find_prefix([*range(12), 99]) == first
    assert manager.find_prefix([*range(8), 99, 98, 97, 96, 95]) == first[:2]
    assert manager.find_prefix([99, *range(1, 12)]) == []


def test_the_same_tokens_behind_another_beginning_are_not_shared() -> None:
    manager = BlockManager(8, SIZE)
    compute(manager, [1, 1, 1, 1, 2, 2, 2, 2, 3])
    assert manager.find_prefix([9, 9, 9, 9, 2, 2, 2, 2, 3]) == []


def test_released_blocks_are_known_until_they_are_needed() -> None:
    manager = BlockManager(4, SIZE)
    first = compute(manager, list(range(8)))
    manager.release(first)
    assert manager.n_free == 4
    assert manager.find_prefix([*range(8), 9]) == first
    again = compute(manager, [*range(8), 9])
    assert again[:2] == first
    # One block is left free, so a text of two blocks does not fit, and nothing is taken.
    assert manager.acquire([], 2) is None
    assert manager.n_free == 1
    manager.release(again)
    taken = manager.acquire([], 4)
    assert taken is not None
    assert sorted(taken) == [0, 1, 2, 3]
    assert manager.find_prefix([*range(8), 9]) == []


def test_blocks_of_another_owner_are_not_found() -> None:
    manager = BlockManager(4, SIZE)
    ours = digest_of_owner("ada")
    (block,) = manager.acquire([], 1) or []
    manager.remember(block, ours, list(range(SIZE)))
    prompt = list(range(SIZE + 1))
    assert manager.find_prefix(prompt, ours) == [block]
    assert manager.find_prefix(prompt, digest_of_owner("bob")) == []
    assert manager.find_prefix(prompt, digest_of_owner("")) == []


def test_a_block_released_twice_is_our_own_bug() -> None:
    manager = BlockManager(2, SIZE)
    blocks = manager.acquire([], 1)
    assert blocks is not None
    manager.release(blocks)
    with pytest.raises(AssertionError, match="released more often"):
        manager.release(blocks)


texts = st.lists(st.integers(0, 1), min_size=1, max_size=20)
actions = st.lists(st.one_of(texts, st.integers(0, 5)), max_size=40)


@settings(max_examples=200)
@given(actions)
def test_no_block_ever_holds_two_texts(steps: list[list[int] | int]) -> None:
    """Texts come and go; the contents of every live block stay those of its owners."""
    manager = BlockManager(12, SIZE)
    live: list[tuple[list[int], list[int]]] = []
    contents: dict[int, tuple[int, ...]] = {}
    for step in steps:
        if isinstance(step, int):
            if step < len(live):
                manager.release(live.pop(step)[1])
            continue
        shared = manager.find_prefix(step)
        for i, block in enumerate(shared):
            assert contents[block] == tuple(step[: (i + 1) * SIZE]), "a shared block holds another text"
        blocks = manager.acquire(shared, manager.blocks_for(len(step)) - len(shared))
        if blocks is None:
            assert manager.blocks_for(len(step)) > manager.n_free
            continue
        in_use = {block for _, owned in live for block in owned}
        assert not in_use & set(blocks[len(shared) :]), "a fresh block has an owner already"
        digest = b""
        for i, block in enumerate(blocks):
            contents[block] = tuple(step[: (i + 1) * SIZE])
            if (i + 1) * SIZE <= len(step):
                digest = manager.remember(block, digest, step[i * SIZE : (i + 1) * SIZE])
        live.append((step, blocks))
        for text, owned in live:
            for i, block in enumerate(owned):
                assert contents[block] == tuple(text[: (i + 1) * SIZE])
        assert manager.n_free == 12 - len({b for _, owned in live for b in owned})
