"""The tokenizer: text to ids and ids to text, over any vocabulary that a checkpoint has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from puna.errors import TokenizerError
from puna.models.checkpoint import Vocabulary
from puna.models.tokenizer_json import BYTE_CHARACTERS, LLAMA3_PATTERN, MAX_TOKENS
from puna.tokens.pieces import find_spelling

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

__all__ = ["Tokenizer"]

# Meta's reference cuts a text for Llama 3 there before it looks for tokens, which shows in the ids.
_LLAMA3_MAX_CHARACTERS = 400_000
_LLAMA3_MAX_RUN = 25_000
_RUN = re.compile(r"\s+|\S+")
# No token of Llama 3 reaches over the end of a line into what is no white space, so that long texts can be
# cut there to be encoded side by side.
_PART_CHARACTERS = 16_384
_LINE_END = re.compile(r"\n(?=\S)")


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
        document = _parse(vocabulary.tokenizer_json)
        self.bos_id = vocabulary.bos_id
        self.eos_ids = vocabulary.eos_ids
        self.add_bos = vocabulary.add_bos and vocabulary.bos_id is not None
        controls = {*vocabulary.eos_ids, *([] if vocabulary.bos_id is None else [vocabulary.bos_id])}
        spelling = find_spelling(document.get("decoder"))
        self._backend = _load(_mark_special(document, controls) or vocabulary.tokenizer_json)
        self.drops_first_space = spelling.drops_first_space
        self._spelled_bytes = spelling.to_bytes
        self._added: dict[int, str] = {entry["id"]: entry["content"] for entry in document["added_tokens"]}
        self._special: dict[int, str] = {
            e["id"]: e["content"] for e in document["added_tokens"] if e["special"]
        }
        self.special_tokens: Mapping[str, int] = MappingProxyType({t: i for i, t in self._special.items()})
        self.trims: Mapping[int, tuple[bool, bool]] = MappingProxyType(_trims(document["added_tokens"]))
        ids: dict[str, int] = document["model"]["vocab"]
        self.vocab_size = 1 + max([*ids.values(), *self._added], default=-1)
        self._check_ids(controls)
        self._bytes: dict[int, bytes] = {}
        self._unwritable = b""
        if spelling.is_byte_level:
            self._unwritable = bytes(b for b, character in enumerate(BYTE_CHARACTERS) if character not in ids)
        self._cuts_long_text = _is_llama3(document.get("pre_tokenizer"))
        self._spaces_first_text_only = _spaces_first_text_only(document.get("pre_tokenizer"))

    def _check_ids(self, controls: Iterable[int]) -> None:
        if not 1 <= self.vocab_size <= MAX_TOKENS:
            raise TokenizerError(
                f"tokenizer.json: token ids must lie from 0 to {MAX_TOKENS - 1}, got {self.vocab_size - 1}"
            )
        for token_id in controls:
            self._string(token_id)
        for token_id, text in self._added.items():
            found = self._backend.token_to_id(text)
            if found != token_id:
                raise TokenizerError(
                    f"tokenizer.json: added token {text!r} must have the id {token_id} in the vocabulary, "
                    f"got {found}; the file contradicts itself"
                )

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
        text = self._writable(text)
        backend = self._continuing if continues and self._spaces_first_text_only else self._backend
        parts = list(_cut_like_llama3(text)) if self._cuts_long_text else [text]
        # The fast kind keeps no account of where a token comes from; the library's threads share the parts.
        with _panics_as_errors():
            encodings = backend.encode_batch_fast(parts, add_special_tokens=False)
        ids = [token_id for encoding in encodings for token_id in encoding.ids]
        if not self._special.keys().isdisjoint(ids):
            token_id = next(i for i in ids if i in self._special)
            raise TokenizerError(
                f"vocabulary: ordinary text became the special token {self._special[token_id]!r} "
                f"({token_id}); the model file is not safe to use"
            )
        return ids

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
        data = self._bytes.get(token_id)
        if data is None:
            string = self._string(token_id)
            data = string.encode() if token_id in self._added else self._spelled_bytes(string)
            self._bytes[token_id] = data
        return data

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

    @cached_property
    def _continuing(self) -> Backend:
        document = json.loads(self._backend.to_str())
        document["pre_tokenizer"]["prepend_scheme"] = "never"
        return _load(json.dumps(document))

    def _string(self, token_id: int) -> str:
        string: str | None = None
        if 0 <= token_id < self.vocab_size:
            string = self._backend.id_to_token(token_id)
        if string is None:
            raise TokenizerError(
                f"token id {token_id} is not in the vocabulary, whose ids go from 0 to {self.vocab_size - 1}"
            )
        return string

    def _writable(self, text: str) -> str:
        try:
            data = text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            data = text.encode()
        if len(data.translate(None, self._unwritable)) == len(data):
            return text
        missing = set(self._unwritable)
        return "".join("\ufffd" if missing.intersection(c.encode()) else c for c in text)


def _parse(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"tokenizer.json: not readable as JSON: {error}") from error
    model = document.get("model") if isinstance(document, dict) else None
    if not isinstance(model, dict) or model.get("type") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else model
        raise TokenizerError(
            f"tokenizer.json: the model type must be 'BPE', as in every Llama, got {kind!r:.100}"
        )
    # No Llama has these: dropout makes ids random, and prefixes make the library panic on some files.
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise TokenizerError(f"tokenizer.json: the model's `{key}` must be null, got {model[key]!r:.80}")
    unknown, vocab = model.get("unk_token"), model.get("vocab")
    if unknown is not None and not (
        isinstance(unknown, str) and isinstance(vocab, dict) and unknown in vocab
    ):
        raise TokenizerError(
            f"tokenizer.json: `unk_token` must be null or in the vocabulary, got {unknown!r:.80}"
        )
    document = {"added_tokens": [], **document}
    added = document["added_tokens"]
    for entry in added if isinstance(added, list) else [added]:
        _check_added_token(entry)
    return document


def _check_added_token(entry: Any) -> None:
    fields = {"id": int, "content": str, "special": bool}
    if not isinstance(entry, dict) or any(type(entry.get(key)) is not kind for key, kind in fields.items()):
        raise TokenizerError(
            "tokenizer.json: each of `added_tokens` must have a number `id`, a text `content` and a flag "
            f"`special`, got {entry!r:.80}"
        )


def _mark_special(document: dict[str, Any], controls: set[int]) -> str | None:
    """Mark tokens that act as control tokens though the file does not say so; the new file if any."""
    changed = False
    for entry in document["added_tokens"]:
        acts = entry["id"] in controls or (entry["content"][:2] == "<|" and entry["content"][-2:] == "|>")
        if acts and not entry["special"]:
            entry["special"] = changed = True
    return json.dumps(document) if changed else None


def _load(text: str) -> Backend:
    from tokenizers import Tokenizer as Backend

    with _panics_as_errors():
        try:
            backend = Backend.from_str(text)
        except Exception as error:  # the library has no class of its own for its errors
            raise TokenizerError(f"tokenizer.json: {error!s:.500}") from error
    # The file may ask for these; Puna cuts and fills nothing unasked.
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return backend


@contextmanager
def _panics_as_errors() -> Iterator[None]:
    """Make an error of a panic in the library, which damaged merges and costly patterns bring about.

    Its panics are no `Exception`, so that nothing that answers for errors would catch them.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise TokenizerError(f"tokenizer.json: it is damaged or hostile: {error!s:.200}") from error


def _is_llama3(pre_tokenizer: Any) -> bool:
    steps = pre_tokenizer.get("pretokenizers", []) if isinstance(pre_tokenizer, dict) else []
    return any(step.get("pattern") == {"Regex": LLAMA3_PATTERN} for step in steps)


def _spaces_first_text_only(pre_tokenizer: Any) -> bool:
    scheme = pre_tokenizer.get("prepend_scheme") if isinstance(pre_tokenizer, dict) else None
    return scheme == "first"


def _trims(added_tokens: Iterable[Mapping[str, Any]]) -> dict[int, tuple[bool, bool]]:
    sides = {e["id"]: (bool(e.get("lstrip")), bool(e.get("rstrip"))) for e in added_tokens if e["special"]}
    return {token_id: side for token_id, side in sides.items() if any(side)}


def _cut_like_llama3(text: str) -> Iterator[str]:
    if len(text) <= _LLAMA3_MAX_RUN:
        yield text
        return
    for first in range(0, len(text), _LLAMA3_MAX_CHARACTERS):
        block = text[first : first + _LLAMA3_MAX_CHARACTERS]
        start = 0
        for run in _RUN.finditer(block):
            for end in range(run.start() + _LLAMA3_MAX_RUN, run.end(), _LLAMA3_MAX_RUN):
                yield from _cut_at_lines(block[start:end])
                start = end
        yield from _cut_at_lines(block[start:])


def _cut_at_lines(text: str) -> Iterator[str]:
    start = 0
    while match := _LINE_END.search(text, start + _PART_CHARACTERS):
        yield text[start : match.end()]
        start = match.end()
    yield text[start:]
