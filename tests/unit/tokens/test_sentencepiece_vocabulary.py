from __future__ import annotations

import io
import json
import random
import struct
from contextlib import suppress
from typing import Any

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from puna.errors import CheckpointError
from puna.models.checkpoint import Vocabulary
from puna.models.gguf_vocabulary import tokenizer_json_from_gguf
from puna.models.sentencepiece_vocabulary import is_sentencepiece, vocabulary_from_sentencepiece
from puna.models.tokenizer_json import TokenizerJson
from puna.tokens import Tokenizer

WORDS = [
    "llama",
    "alpaca",
    "puna",
    "grass",
    "the",
    "a",
    "of",
    "Andes",
    "high",
    "2023",
    "17",
    "café",
    "año",
    "ñ",
    "!",
    "wool",
]
# As Llama 2's was trained.
SETTINGS = {
    "model_type": "bpe",
    "vocab_size": 360,
    "byte_fallback": True,
    "split_digits": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "add_dummy_prefix": True,
    "character_coverage": 0.999,
    "num_threads": 1,
    "minloglevel": 2,
}


def train(**changes: Any) -> bytes:
    """A model trained on made-up sentences."""
    words = random.Random(5)
    lines = [" ".join(words.choices(WORDS, k=12)) for _ in range(400)]
    model = io.BytesIO()
    settings = {**SETTINGS, **changes}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, **settings)
    return model.getvalue()


@pytest.fixture(scope="module")
def model() -> bytes:
    return train()


@pytest.fixture(scope="module")
def theirs(model: bytes) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=model)


@pytest.fixture(scope="module")
def ours(model: bytes) -> Tokenizer:
    return Tokenizer(vocabulary_from_sentencepiece(model))


TEXTS = st.one_of(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40),
    st.lists(
        st.sampled_from([*WORDS, " ", "  ", "\n", "<s>", "</s>", "<0x0A>", "\u2581", "🦙"]), max_size=12
    ).map("".join),
)


@settings(max_examples=400, deadline=None)
@given(text=TEXTS)
@example(text="")
@example(text=" ")
@example(text="  the\u2581llama\n")
def test_same_ids_as_sentencepiece(
    ours: Tokenizer, theirs: sentencepiece.SentencePieceProcessor, text: str
) -> None:
    # The processor takes a NUL for the end of a text.
    text = text.replace("\0", "")
    ids = theirs.encode(text)
    assert ours.encode(text) == ids
    assert ours.decode(ids) == theirs.decode(ids)


def test_what_the_file_says(
    model: bytes, ours: Tokenizer, theirs: sentencepiece.SentencePieceProcessor
) -> None:
    vocabulary = vocabulary_from_sentencepiece(model)
    assert (vocabulary.bos_id, vocabulary.eos_ids, vocabulary.add_bos) == (1, (2,), True)
    assert ours.vocab_size == theirs.vocab_size() == 360
    assert dict(ours.special_tokens) == {"<unk>": 0, "<s>": 1, "</s>": 2}
    ids = json.loads(vocabulary.tokenizer_json.to_bytes())["model"]["vocab"]
    assert ids == {theirs.id_to_piece(i): i for i in range(360)}
    assert is_sentencepiece(model)
    assert not is_sentencepiece(b"IQ== 0\n")


def test_same_as_the_same_vocabulary_in_a_gguf_file(
    model: bytes, theirs: sentencepiece.SentencePieceProcessor
) -> None:
    def kind(i: int) -> int:
        return 2 if theirs.is_unknown(i) else 3 if theirs.is_control(i) else 6 if theirs.is_byte(i) else 1

    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [theirs.id_to_piece(i) for i in range(360)],
        "tokenizer.ggml.token_type": [kind(i) for i in range(360)],
        "tokenizer.ggml.scores": [theirs.get_score(i) for i in range(360)],
    }
    ours = vocabulary_from_sentencepiece(model).tokenizer_json
    assert tokenizer_json_from_gguf(metadata).to_bytes() == ours.to_bytes()


def test_no_dummy_prefix_and_other_controls() -> None:
    data = train(add_dummy_prefix=False, bos_id=-1, eos_id=1, pad_id=2, user_defined_symbols=["<think>"])
    vocabulary = vocabulary_from_sentencepiece(data)
    assert (vocabulary.bos_id, vocabulary.eos_ids, vocabulary.add_bos) == (None, (1,), False)
    tokenizer = Tokenizer(vocabulary)
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    for text in ("the llama", " the <think> llama", "<think>"):
        assert tokenizer.encode(text) == processor.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("scheme", ["first", "always"])
def test_only_a_first_text_gets_the_space_where_the_file_says_so(model: bytes, scheme: str) -> None:
    document = json.loads(vocabulary_from_sentencepiece(model).tokenizer_json.to_bytes())
    document["normalizer"] = None
    document["pre_tokenizer"] = {
        "type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": False,
    }  # fmt: skip
    text = json.dumps(document)
    tokenizer = Tokenizer(Vocabulary(tokenizer_json=TokenizerJson.from_text(text), bos_id=1, eos_ids=(2,)))
    theirs = Backend.from_str(text)
    for prompt in ("<s>the llama</s>the", "the llama</s> the", "a", "<s>"):
        assert tokenizer.encode_with_special(prompt) == theirs.encode(prompt, add_special_tokens=False).ids
    assert tokenizer.encode("the") == tokenizer.encode("the", continues=scheme == "always")
    assert (tokenizer.encode("the") != tokenizer.encode("the", continues=True)) == (scheme == "first")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_type": "unigram", "hard_vocab_limit": False},
            "must be of the kind BPE, as Llama 2's is, got 'unigram'",
        ),
        ({"model_type": "char", "vocab_size": 300}, "must be of the kind BPE, as Llama 2's is, got 'char'"),
        ({"normalization_rule_name": "nfkc"}, "it rewrites characters before encoding; no Llama does that"),
        ({"remove_extra_whitespaces": True}, "`remove_extra_whitespaces` must be False, got True"),
        ({"treat_whitespace_as_suffix": True}, "`treat_whitespace_as_suffix` must be False, got True"),
        (
            {"byte_fallback": False, "vocab_size": 100},
            "needs a token for every byte, 256 are missing, the first is '<0x00>'",
        ),
    ],
)
def test_other_kinds_of_model_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        vocabulary_from_sentencepiece(train(**changes))


def field(number: int, data: bytes | int) -> bytes:
    def varint(value: int) -> bytes:
        parts = []
        while value > 0x7F:
            parts.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*parts, value])

    if isinstance(data, int):
        return varint(number << 3) + varint(data)
    return varint(number << 3 | 2) + varint(len(data)) + data


def piece(text: bytes, score: bytes = struct.pack("<f", -1), kind: int = 1) -> bytes:
    return field(1, field(1, text) + b"\x15" + score + field(3, kind))


BYTES = b"".join(piece(b"<0x%02X>" % byte, kind=6) for byte in range(256))
TAIL = field(2, field(3, 2)) + field(3, field(4, 0))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "must be of the kind BPE, as Llama 2's is, got 'unigram'"),
        (b"\x0a\xff\xff\xff\xff\x0f", "the file ends early: a field needs 4294967295 bytes, 0 are left"),
        (b"\x0a" + b"\xff" * 11, "a number has more than 10 bytes"),
        (b"\x0a", "the file ends early, in the middle of a number"),
        (b"\x0b", "the file is damaged or no sentencepiece model: wire type 3"),
        (b"\x09\0\0\0", "the file ends early: a field needs 8 bytes, 3 are left"),
        (b"\x80\x04pickle", "tokenizer.model: "),
        (TAIL, "256 are missing"),
        (BYTES + piece(b"\xff") + TAIL, "token 256 is not UTF-8: b'.xff'"),
        (BYTES + piece(b"") + TAIL, "token 256 must have 1 to 1024 characters, got 0"),
        (BYTES + piece(b"x" * 1025) + TAIL, "token 256 must have 1 to 1024 characters, got 1025"),
        (BYTES + piece(b"x", kind=9) + TAIL, "the type of token 256 must be from 1 to 6, got 9"),
        (BYTES + piece(b"x", struct.pack("<f", float("nan"))) + TAIL, "every score must be a finite number"),
        (BYTES + piece(b"x") * 2 + TAIL, "1 tokens are there twice"),
        (BYTES + field(1, field(1, 5)) + TAIL, "token 256 must have a text and a score of 4 bytes"),
        (BYTES + field(1, field(1, b"x") + field(2, b"abc")) + TAIL, "a text and a score of 4 bytes"),
        (BYTES + field(1, b"\x0a\x7fx") + TAIL, "token 256 ends early: a field needs 127 bytes, 1 are left"),
        (BYTES + field(2, field(3, 2)) + field(3, field(2, b"map")), "it rewrites characters"),
        (BYTES + field(2, b"\x0a"), "the trainer's settings ends early|the trainer's settings"),
    ],
)
def test_damaged_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        vocabulary_from_sentencepiece(data)


def test_a_file_of_nothing_but_bytes_will_do() -> None:
    tokenizer = Tokenizer(vocabulary_from_sentencepiece(BYTES + TAIL))
    assert tokenizer.encode("é") == [0xE2, 0x96, 0x81, 0xC3, 0xA9]
    assert tokenizer.bos_id is None


def test_too_many_tokens_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("puna.models.sentencepiece_vocabulary.MAX_TOKENS", 256)
    assert vocabulary_from_sentencepiece(BYTES + TAIL)
    with pytest.raises(CheckpointError, match="may have 256 tokens, got more"):
        vocabulary_from_sentencepiece(BYTES + piece(b"x") + TAIL)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_bytes_changed_at_random_give_a_clear_error_or_a_vocabulary(
    model: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(model)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(model) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(model)) | st.just(len(model)))
    with suppress(CheckpointError):
        assert vocabulary_from_sentencepiece(bytes(damaged[:cut])).tokenizer_json
