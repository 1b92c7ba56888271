"""The tokenizer: text to ids and ids to text, over any vocabulary that a checkpoint has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

from puna._native.tokens import AddedToken, Encoder, TokenTable
from puna.errors import TokenizerError
from puna.models.checkpoint import Vocabulary
from puna.models.tokenizer_json import BYTE_CHARACTERS
from puna.tokens.pieces import Spelling, find_spelling
from puna.tokens.steps import is_llama3, normalizer_steps, pre_tokenizer_steps

__all__ = ["Tokenizer"]

# Meta's reference cuts a text for Llama 3 there before it looks for tokens, which shows in the ids.
_LLAMA3_MAX_CHARACTERS = 400_000
_LLAMA3_MAX_RUN = 25_000


class Tokenizer:
    """Encodes text with a vocabulary and decodes ids; safe to use from several threads.

    Attributes:
        vocab_size: one more than the highest token id.
        bos_id: token that opens a text, None where there is none.
        eos_ids: tokens after which a model has said all it wants to.
        add_bos: whether a plain text starts with `bos_id`; False where there is none.
        special_tokens: text to id of every special token: those that the vocabulary marks so, and
            added tokens that end or open a text or are written ``<|...|>``.
        drops_first_space: whether a decoded text loses one leading space, which encoding had added.
        trims: special tokens that take white space with them where a template prints some next to them:
            id to (takes what is before it, takes what is behind it).
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Load a vocabulary.

        Args:
            vocabulary: what the checkpoint says about text.

        Raises:
            TokenizerError: the vocabulary is damaged, not byte-pair encoding, or spells text in a
                way that Puna does not know.
        """
        document, table = vocabulary.tokenizer_json.document, vocabulary.tokenizer_json.table
        self.bos_id = vocabulary.bos_id
        self.eos_ids = vocabulary.eos_ids
        self.add_bos = vocabulary.add_bos and vocabulary.bos_id is not None
        controls = {*vocabulary.eos_ids, *([] if vocabulary.bos_id is None else [vocabulary.bos_id])}
        spelling = find_spelling(document.get("decoder"))
        self.drops_first_space = spelling.drops_first_space
        added = _added_tokens(document.get("added_tokens", []), controls)
        self._encoder = _make_encoder(document, table, added, spelling)
        self._special: dict[int, str] = {e["id"]: e["content"] for e in added if e["special"]}
        self.special_tokens: Mapping[str, int] = MappingProxyType({t: i for i, t in self._special.items()})
        self.trims: Mapping[int, tuple[bool, bool]] = MappingProxyType(_trims(added))
        self.vocab_size = self._encoder.size
        for token_id in controls:
            self._check_id(token_id)
        self._unwritable = b""
        if spelling.is_byte_level:
            self._unwritable = bytes(b for b in range(256) if table.find(BYTE_CHARACTERS[b].encode()) < 0)

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """Turn a text into token ids; nothing is added, and nothing in it counts as a special token.

        Surrogates without a partner, and characters that the vocabulary has no bytes for, become
        U+FFFD. With Llama 3's vocabulary, texts of more than 400,000 characters and runs of more than
        25,000 characters without (or of nothing but) white space are cut as Meta's reference does.

        Args:
            text: any text.
            continues: there is something before this text, so that a vocabulary which puts a space before
                the first text, and only there (some of Llama 2's), puts none.

        Returns:
            The ids, none of them special.

        Raises:
            TokenizerError: the vocabulary lets ordinary text become a special token, which a sound
                one never does.
        """
        return self._encoder.encode(self._writable(text), continues)

    def encode_with_special(self, text: str) -> list[int]:
        """`encode`, but every special token that is written out in the text becomes that token.

        Only for prompts that a person writes by hand: with text from anybody else in it, that somebody
        could speak in any role.

        Args:
            text: a prompt, special tokens included.

        Returns:
            The ids.

        Raises:
            TokenizerError: as `encode`.
        """
        ids: list[int] = []
        for i, part in enumerate(self._special_pattern.split(text)):
            if i % 2:
                ids.append(self.special_tokens[part])
            elif part:
                ids += self.encode(part, continues=i > 0)
        return ids

    def has_tokens_of(self, other: Tokenizer) -> bool:
        """Whether the same ids stand for the same tokens, special ones included."""
        if (self.vocab_size, self.special_tokens) != (other.vocab_size, other.special_tokens):
            return False
        return all(self.bytes_or_none(i) == other.bytes_or_none(i) for i in range(self.vocab_size))

    def decode(self, ids: Iterable[int], *, show_special: bool = False) -> str:
        """Turn token ids back into text; bytes that are not UTF-8 become U+FFFD.

        Args:
            ids: token ids.
            show_special: whether special tokens are written out or left out.

        Returns:
            The text.

        Raises:
            TokenizerError: an id is not in the vocabulary.
        """
        shown = (i for i in ids if show_special or not self.is_special(i))
        text = b"".join(map(self.token_bytes, shown)).decode("utf-8", "replace")
        return text.removeprefix(" ") if self.drops_first_space else text

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for, maybe a part of a character; a special token's are its name.

        Args:
            token_id: the token.

        Returns:
            The bytes.

        Raises:
            TokenizerError: the id is not in the vocabulary.
        """
        self._check_id(token_id)
        return self._encoder.token_bytes(token_id)

    def is_special(self, token_id: int) -> bool:
        """Whether a token is special: it has a meaning to the model and no text encodes to it."""
        return token_id in self._special

    def special_id(self, text: str) -> int | None:
        """The id of the special token that is written so, None where there is none."""
        return self.special_tokens.get(text)

    def special_text(self, token_id: int) -> str:
        """How a special token is written.

        Args:
            token_id: the token.

        Returns:
            Its text, such as ``<|eot_id|>``.

        Raises:
            TokenizerError: the token is not special.
        """
        if token_id not in self._special:
            raise TokenizerError(f"token {token_id} is not one of the {len(self._special)} special tokens")
        return self._special[token_id]

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(filter(None, self.special_tokens), key=len, reverse=True)
        return re.compile("(" + ("|".join(map(re.escape, longest_first)) or "(?!)") + ")")

    def bytes_or_none(self, token_id: int) -> bytes | None:
        """`token_bytes`, but None for an id that the vocabulary leaves out."""
        return self._encoder.token_bytes(token_id) if self._encoder.has(token_id) else None

    def left_out(self, n: int) -> list[int]:
        """Ids under `n` that the vocabulary leaves out; their rows only pad an embedding of that size."""
        return [token_id for token_id in range(n) if not self._encoder.has(token_id)]

    def _check_id(self, token_id: int) -> None:
        if not (0 <= token_id < self.vocab_size and self._encoder.has(token_id)):
            raise TokenizerError(
                f"token id {token_id} is not in the vocabulary, whose ids go from 0 to {self.vocab_size - 1}"
            )

    def _writable(self, text: str) -> bytes:
        try:
            data = text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            data = text.encode()
        if len(data.translate(None, self._unwritable)) == len(data):
            return data
        missing = set(self._unwritable)
        return "".join("\ufffd" if missing.intersection(c.encode()) else c for c in text).encode()


def _added_tokens(entries: Any, controls: set[int]) -> list[dict[str, Any]]:
    """The file's added tokens; those that act as control tokens are special, whatever the file says."""
    added = []
    for entry in entries if isinstance(entries, list) else [entries]:
        _check_added_token(entry)
        acts = entry["id"] in controls or (entry["content"][:2] == "<|" and entry["content"][-2:] == "|>")
        added.append({**entry, "special": entry["special"] or acts})
    return added


def _check_added_token(entry: Any) -> None:
    fields = {"id": int, "content": str, "special": bool}
    if not isinstance(entry, dict) or any(type(entry.get(key)) is not kind for key, kind in fields.items()):
        raise TokenizerError(
            "tokenizer.json: each of `added_tokens` must have a number `id`, a text `content` and a flag "
            f"`special`, got {entry!r:.80}"
        )
    flags = {key: entry.get(key, False) for key in ("single_word", "lstrip", "rstrip", "normalized")}
    if flags["single_word"] or any(type(flag) is not bool for flag in flags.values()):
        raise TokenizerError(
            "tokenizer.json: `lstrip`, `rstrip` and `normalized` of an added token must be true or false, "
            f"and `single_word` false, as in every Llama, got {entry!r:.200}"
        )


def _make_encoder(
    document: Mapping[str, Any], table: TokenTable, added: Iterable[Mapping[str, Any]], spelling: Spelling
) -> Encoder:
    model = document["model"]
    # No Llama has these: dropout makes ids random, and prefixes change what a merge builds.
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise TokenizerError(f"tokenizer.json: the model's `{key}` must be null, got {model[key]!r:.80}")
    flags = {key: model.get(key) or False for key in ("ignore_merges", "byte_fallback", "fuse_unk")}
    if any(type(flag) is not bool for flag in flags.values()):
        raise TokenizerError(f"tokenizer.json: the model's flags must be true or false, got {flags!r:.200}")
    steps, is_byte_level = pre_tokenizer_steps(document.get("pre_tokenizer"))
    if is_byte_level != spelling.is_byte_level:
        raise TokenizerError(
            "tokenizer.json: both `pre_tokenizer` and `decoder` must be ByteLevel, or neither; what is "
            "encoded would be decoded to something else"
        )
    cuts = is_llama3(document.get("pre_tokenizer"))
    try:
        tokens = [
            AddedToken(
                id=min(max(e["id"], -1), 2**31 - 1),
                text=e["content"].encode(),
                is_special=e["special"],
                takes_left=e.get("lstrip", False),
                takes_right=e.get("rstrip", False),
                is_normalized=e.get("normalized", False),
            )
            for e in added
        ]
        return Encoder(
            table=table,
            normalizers=normalizer_steps(document.get("normalizer")),
            pre_tokenizers=steps,
            added_tokens=tokens,
            is_byte_level=is_byte_level,
            ignores_merges=flags["ignore_merges"],
            has_byte_fallback=flags["byte_fallback"],
            fuses_unknown=flags["fuse_unk"],
            unknown=_unknown(model.get("unk_token"), table),
            most_characters=_LLAMA3_MAX_CHARACTERS if cuts else 0,
            most_run=_LLAMA3_MAX_RUN if cuts else 0,
        )
    except UnicodeEncodeError as error:
        raise TokenizerError(f"tokenizer.json: an added token has half a surrogate pair: {error}") from error


def _unknown(token: Any, table: TokenTable) -> int:
    token_id = table.find(token.encode("utf-8", "replace")) if isinstance(token, str) else -1
    if token is not None and token_id < 0:
        raise TokenizerError(
            f"tokenizer.json: `unk_token` must be null or in the vocabulary, got {token!r:.80}"
        )
    return token_id


def _trims(added_tokens: Iterable[Mapping[str, Any]]) -> dict[int, tuple[bool, bool]]:
    sides = {e["id"]: (bool(e.get("lstrip")), bool(e.get("rstrip"))) for e in added_tokens if e["special"]}
    return {token_id: side for token_id, side in sides.items() if any(side)}
