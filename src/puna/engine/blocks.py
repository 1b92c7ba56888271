"""Who owns which block of the key-value cache, and which prompts are cached already.

A block holds a fixed number of positions (`puna._native.BLOCK_TOKENS`). Full blocks are known by what
they hold: a digest over whose they are and all tokens from the start of the sequence. A new sequence of the
same owner that begins with the same tokens shares them. A released block keeps its contents until it is
needed for something else, the one released longest ago first.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

__all__ = ["BlockManager", "digest_of_owner"]


def digest_of_owner(owner: str) -> bytes:
    """The digest in front of the first block of a sequence.

    Args:
        owner: sequences of others share no blocks with its own; empty for those that are everybody's.
    """
    return hashlib.blake2b(owner.encode(), digest_size=16).digest() if owner else b""


class BlockManager:
    """Hands out cache blocks with reference counts and finds those that hold a known prefix."""

    def __init__(self, n_blocks: int, block_tokens: int) -> None:
        """Start with all blocks free.

        Args:
            n_blocks: blocks of the cache.
            block_tokens: positions a block.
        """
        self.n_blocks = n_blocks
        self.block_tokens = block_tokens
        self._n_owners = [0] * n_blocks
        self._free: OrderedDict[int, None] = OrderedDict((block, None) for block in range(n_blocks))
        self._digest_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}

    @property
    def n_free(self) -> int:
        """Blocks without an owner, those that still hold a known prefix included."""
        return len(self._free)

    def blocks_for(self, n_tokens: int) -> int:
        """Blocks that so many positions take."""
        return -(-n_tokens // self.block_tokens)

    def find_prefix(self, tokens: Sequence[int], digest: bytes = b"") -> list[int]:
        """Blocks that hold the beginning of a prompt, as many as are known.

        The last token is never among them: its logits are wanted, so it must be computed.

        Args:
            tokens: the prompt.
            digest: see `digest_of_owner`.
        """
        found: list[int] = []
        for start in range(0, len(tokens) - self.block_tokens, self.block_tokens):
            digest = self._digest(digest, tokens[start : start + self.block_tokens])
            block = self._block_of.get(digest)
            if block is None:
                break
            found.append(block)
        return found

    def acquire(self, shared: Sequence[int], n_new: int) -> list[int] | None:
        """Take the shared blocks and so many fresh ones, all or none.

        Args:
            shared: blocks that `find_prefix` gave.
            n_new: number of blocks with nothing in them.

        Returns:
            The shared blocks followed by the fresh ones; None where there are not enough.
        """
        n_revived = sum(self._n_owners[block] == 0 for block in shared)
        if n_new + n_revived > len(self._free):
            return None
        for block in shared:
            self._own(block)
        return [*shared, *(self._take_oldest() for _ in range(n_new))]

    def release(self, blocks: Sequence[int]) -> None:
        """Give blocks back; each was acquired once by the caller."""
        # The last first, so that a prefix outlives what follows it.
        for block in reversed(blocks):
            self._n_owners[block] -= 1
            assert self._n_owners[block] >= 0, f"block {block} was released more often than acquired"
            if self._n_owners[block] == 0:
                self._free[block] = None
                if block not in self._digest_of:
                    self._free.move_to_end(block, last=False)

    def remember(self, block: int, parent: bytes, tokens: Sequence[int]) -> bytes:
        """Make a full, computed block known by its contents.

        Args:
            block: the block.
            parent: digest of the block before it, `digest_of_owner` for the first.
            tokens: the tokens in it, `block_tokens` of them.

        Returns:
            Its digest, the parent of the next block.
        """
        digest = self._digest(parent, tokens)
        if digest not in self._block_of:
            self._block_of[digest] = block
            self._digest_of[block] = digest
        return digest

    def digest_of(self, block: int) -> bytes | None:
        """What a block is known to hold; None where it is not full yet."""
        return self._digest_of.get(block)

    def _own(self, block: int) -> None:
        self._free.pop(block, None)
        self._n_owners[block] += 1

    def _take_oldest(self) -> int:
        block, _ = self._free.popitem(last=False)
        digest = self._digest_of.pop(block, None)
        if digest is not None:
            del self._block_of[digest]
        self._n_owners[block] = 1
        return block

    @staticmethod
    def _digest(parent: bytes, tokens: Sequence[int]) -> bytes:
        # A strong hash: two different prefixes that collide would share a cache.
        return hashlib.blake2b(parent + np.asarray(tokens, np.int32).tobytes(), digest_size=16).digest()
