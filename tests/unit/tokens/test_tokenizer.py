from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from puna.errors import TokenizerError
from puna.models.checkpoint import Vocabulary
from puna.models.gguf_vocabulary import tokenizer_json_from_gguf
from puna.models.tokenizer_json import TokenizerJson
from puna.tokens import Tokenizer

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=[]), max_size=80)


def vector_text(vector: dict[str, Any]) -> str:
    if vector["text_repeat"]:
        character, times = vector["text_repeat"]
        return str(character) * int(times)
    return str(vector["text"])


def test_llama3_golden_vectors(llama3: Tokenizer, golden: Any) -> None:
    vectors = golden("tokenizer.jsonl")
    assert len(vectors) == 263
    assert {vector["kind"] for vector in vectors} == {"encode", "decode"}
    for vector in vectors:
        if vector["kind"] == "decode":
            assert llama3.decode(vector["ids"], show_special=True) == vector["text"], vector["id"]
            continue
        encode = llama3.encode_with_special if vector["allowed_special"] == "all" else llama3.encode
        ids = [128000] * vector["bos"] + encode(vector_text(vector)) + [128001] * vector["eos"]
        if vector["ids"] is not None:
            assert ids == vector["ids"], vector["id"]
        else:
            digest = hashlib.sha256(json.dumps(ids).encode()).hexdigest()
            assert digest == vector["ids_sha256_of_json"], vector["id"]


def test_only_llama3_cuts_long_runs(llama3: Tokenizer, tiny: Tokenizer) -> None:
    # 25,001 letters: the cut leaves one alone that would be merged with the seven before it.
    text = "a" * 25_001
    assert llama3.encode(text) == llama3.encode("a" * 25_000) + llama3.encode("a")
    assert len(tiny.encode("x" + "ab" * 20_000)) == 20_001


def with_replacements(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@settings(max_examples=300, deadline=None)
@given(text=ANY_TEXT)
@example(text="a\ude00b")
@example(text="\ud83e\udd99")
@example(text="  \n\n <|eot_id|> ")
def test_llama3_round_trip(llama3: Tokenizer, text: str) -> None:
    assert llama3.decode(llama3.encode(text)) == with_replacements(text)


@settings(max_examples=300, deadline=None)
@given(text=ANY_TEXT)
@example(text="a\x04b\x16")
@example(text="\U00050000")
def test_smollm_round_trip(smollm: Tokenizer, text: str) -> None:
    # This vocabulary lacks six control characters and planes 4 to 11, to which nothing is assigned.
    lost = {*"\x04\x06\x13\x14\x16\x1d"}
    expected = "".join(
        "\ufffd" if c in lost or 0x40000 <= ord(c) < 0xC0000 else c for c in with_replacements(text)
    )
    assert smollm.decode(smollm.encode(text)) == expected


@pytest.mark.parametrize("around", ["", " ", "\n", "x", "<", "<|", "|>", "  <|"])
def test_no_special_token_from_text(llama3: Tokenizer, smollm: Tokenizer, around: str) -> None:
    for tokenizer in (llama3, smollm):
        for text in tokenizer.special_tokens:
            framed = around + text + around
            ids = tokenizer.encode(framed)
            assert not any(map(tokenizer.is_special, ids)), framed
            assert tokenizer.decode(ids) == framed


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_special_token_from_any_mixture(llama3: Tokenizer, smollm: Tokenizer, data: st.DataObject) -> None:
    tokenizer = data.draw(st.sampled_from([llama3, smollm]))
    names = st.sampled_from(list(tokenizer.special_tokens))
    pieces = st.one_of(names, names.flatmap(lambda t: st.integers(0, len(t)).map(lambda n: t[:n])), st.text())
    text = "".join(data.draw(st.lists(pieces, max_size=12)))
    assert not any(map(tokenizer.is_special, tokenizer.encode(text)))


def test_special_tokens_where_a_person_writes_them(tiny: Tokenizer) -> None:
    text = "<|im_start|>ab<|im_<|im_end|>"
    assert tiny.encode_with_special(text) == [1, 260, *tiny.encode("<|im_"), 2]
    assert tiny.encode_with_special("") == []
    assert tiny.decode(tiny.encode_with_special(text), show_special=True) == text


def test_special_tokens_that_take_white_space(tiny_vocabulary: Vocabulary) -> None:
    def trim(document: dict[str, Any]) -> None:
        document["added_tokens"][1]["rstrip"] = True
        document["added_tokens"][2] |= {"lstrip": True, "rstrip": True}
        document["added_tokens"][3]["lstrip"] = True

    tokenizer = Tokenizer(changed(tiny_vocabulary, trim))
    assert dict(tokenizer.trims) == {1: (False, True), 2: (True, True)}
    # That of <think>, which is no special token, works on any text.
    assert tokenizer.encode("ab \n<think>") == [260, 3]


def test_special_tokens_by_name_and_id(smollm: Tokenizer) -> None:
    assert smollm.special_id("<|im_start|>") == 1
    assert smollm.special_id("Hello") is None
    assert smollm.special_text(2) == "<|im_end|>"
    assert smollm.is_special(16)
    assert not smollm.is_special(17)
    with pytest.raises(TokenizerError, match="token 17 is not one of the 17 special tokens"):
        smollm.special_text(17)


def test_decode_hides_special_tokens_unless_asked(smollm: Tokenizer) -> None:
    ids = [1, 19556, 905, 2]
    assert smollm.decode(ids) == "Hello world"
    assert smollm.decode(ids, show_special=True) == "<|im_start|>Hello world<|im_end|>"
    assert [smollm.token_bytes(i) for i in ids] == [b"<|im_start|>", b"Hello", b" world", b"<|im_end|>"]


def test_what_the_vocabulary_says(smollm: Tokenizer, llama3: Tokenizer) -> None:
    assert (smollm.vocab_size, smollm.bos_id, smollm.eos_ids, smollm.add_bos) == (
        49152,
        1,
        smollm.eos_ids,
        False,
    )
    assert 2 in smollm.eos_ids
    assert (llama3.vocab_size, llama3.bos_id, llama3.eos_ids, llama3.add_bos) == (
        128256,
        128000,
        (128001,),
        True,
    )


def test_no_bos_without_a_token_for_it(tiny_vocabulary: Vocabulary) -> None:
    assert Tokenizer(Vocabulary(tokenizer_json=tiny_vocabulary.tokenizer_json, add_bos=True)).add_bos is False


@pytest.mark.parametrize("token_id", [-1, 263, 2**40])
def test_ids_out_of_range_are_refused(tiny: Tokenizer, token_id: int) -> None:
    for use in (tiny.token_bytes, lambda i: tiny.decode([i])):
        with pytest.raises(TokenizerError, match=f"token id {token_id} is not in the .* from 0 to 262"):
            use(token_id)


def test_ids_that_are_left_out(tiny_vocabulary: Vocabulary) -> None:
    def add(document: Any) -> None:
        document["added_tokens"].append({"id": 265, "content": "<|late|>", "special": True})

    tokenizer = Tokenizer(changed(tiny_vocabulary, add))
    assert tokenizer.left_out(263) == []
    assert tokenizer.left_out(268) == [263, 264, 266, 267]


def test_end_token_outside_of_the_vocabulary_is_refused(tiny_vocabulary: Vocabulary) -> None:
    with pytest.raises(TokenizerError, match="token id 263 is not in the vocabulary"):
        Tokenizer(Vocabulary(tokenizer_json=tiny_vocabulary.tokenizer_json, eos_ids=(2, 263)))


def changed(vocabulary: Vocabulary, change: Any, **fields: Any) -> Vocabulary:
    document = json.loads(vocabulary.tokenizer_json.to_bytes())
    change(document)
    return Vocabulary(tokenizer_json=TokenizerJson.from_text(json.dumps(document)), **fields)


def test_truncation_and_padding_of_the_file_are_ignored(tiny_vocabulary: Vocabulary) -> None:
    def limit(document: dict[str, Any]) -> None:
        document["truncation"] = {
            "max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right",
        }  # fmt: skip
        document["padding"] = {
            "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>",
        }  # fmt: skip

    tokenizer = Tokenizer(changed(tiny_vocabulary, limit))
    assert len(tokenizer.encode("xyz")) == 3


def test_tokens_that_act_as_control_tokens_are_special(tiny_vocabulary: Vocabulary) -> None:
    # Many fine-tuned models add <|im_start|> without saying that it is special.
    def forget(document: dict[str, Any]) -> None:
        for token in document["added_tokens"]:
            token["special"] = False

    tokenizer = Tokenizer(changed(tiny_vocabulary, forget))
    assert dict(tokenizer.special_tokens) == {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    assert not {0, 1, 2} & {*tokenizer.encode("<|im_start|><|im_end|><|endoftext|>")}
    assert tokenizer.encode("<think>") == [3]
    ending = Tokenizer(changed(tiny_vocabulary, forget, eos_ids=(3,)))
    assert 3 not in ending.encode("<think>")


def test_text_that_merges_into_a_special_token_is_an_error(tiny_vocabulary: Vocabulary) -> None:
    def corrupt(document: dict[str, Any]) -> None:
        entry = {**document["added_tokens"][0], "id": 261, "content": "abc"}
        document["added_tokens"].append(entry)

    tokenizer = Tokenizer(changed(tiny_vocabulary, corrupt))
    assert tokenizer.encode("ab c")
    with pytest.raises(TokenizerError, match=r"became the special token 'abc' \(261\)"):
        tokenizer.encode("xabc")


def set_key(*path: Any) -> Any:
    *keys, last, value = path

    def apply(document: dict[str, Any]) -> None:
        for key in keys:
            document = document[key]
        document[last] = value

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (set_key("decoder", None), "the decoder must be ByteLevel, .* got None"),
        (set_key("decoder", {"type": "Fuse"}), r"got \['Fuse'\]"),
        (set_key("decoder", {"type": "Sequence", "decoders": "x"}), "the decoder must be ByteLevel"),
        (set_key("model", "type", "Unigram"), "model type must be 'BPE', as in every Llama, got 'Unigram'"),
        (set_key("model", 3), "model type must be 'BPE', as in every Llama, got 3"),
        (set_key("model", "merges", 0, "a zz"), "merge 0 needs tokens of the vocabulary, got 'zz'"),
        (
            set_key("model", "merges", 0, "<|im_start|> <|im_end|>"),
            "merge 0 needs tokens of the vocabulary, got '<|im_start|><|im_end|>'",
        ),
        (
            set_key("model", "merges", 0, "a b c"),
            "a merge must be two tokens with one space between, got 'a b c'",
        ),
        (set_key("model", "merges", 0, 5), "needs '\"'"),
        (set_key("model", "merges", None), "the model's `merges` must be"),
        (set_key("model", "vocab", ["a"]), "the model's `vocab` must be"),
        (set_key("model", "vocab", "a", -1), "a token's id must be a whole number that is not negative"),
        (set_key("model", "vocab", "a", 1.0), "a token's id must be a whole number that is not negative"),
        (set_key("model", "vocab", "a", 7), "two tokens have the id 7"),
        (set_key("model", "vocab", "\ud800", 999), "half of a surrogate pair"),
        (set_key("model", "vocab", "a", 2**31), "ids must lie from 0 to 1048575, got 2147483648"),
        (set_key("added_tokens", 0, "id", 7), "'<|endoftext|>' must have the id 7 in the vocabulary, got 0"),
        (set_key("added_tokens", None), "each of `added_tokens` must have .* got None"),
        (set_key("added_tokens", 0, 5), "each of `added_tokens` must have .* got 5"),
        (set_key("added_tokens", 0, "id", [1]), "each of `added_tokens` must have a number `id`"),
        (set_key("added_tokens", 0, "content", None), "each of `added_tokens` must have"),
        (
            set_key("model", "unk_token", "<nope>"),
            "`unk_token` must be null or in the vocabulary, got '<nope>'",
        ),
        (set_key("model", "dropout", 0.5), "the model's `dropout` must be null, got 0.5"),
        (
            set_key("model", "continuing_subword_prefix", "##"),
            "`continuing_subword_prefix` must be null, got '##'",
        ),
        (
            set_key("pre_tokenizer", {"type": "Nothing"}),
            "`pre_tokenizer` must be one of ByteLevel, .* got 'Nothing'",
        ),
        (set_key("pre_tokenizer", None), "both `pre_tokenizer` and `decoder` must be ByteLevel"),
        (
            set_key("normalizer", {"type": "Lowercase"}),
            "`normalizer` must be one of Prepend, .* got 'Lowercase'",
        ),
        (set_key("added_tokens", 0, "single_word", True), "`single_word` false, as in every Llama"),
    ],
)
def test_damaged_files_are_refused(tiny_vocabulary: Vocabulary, damage: Any, message: str) -> None:
    with pytest.raises(TokenizerError, match=message.replace("|", r"\|")):
        Tokenizer(changed(tiny_vocabulary, damage))


def test_a_pattern_that_takes_for_ever_is_an_error(tiny_vocabulary: Vocabulary) -> None:
    pattern = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    damage = set_key("pre_tokenizer", "pretokenizers", 0, pattern)
    tokenizer = Tokenizer(changed(tiny_vocabulary, damage))
    with pytest.raises(TokenizerError, match="pattern takes too many steps"):
        tokenizer.encode("a" * 40 + "b")


@pytest.mark.parametrize("extra", ["abc", 5, [None]])
def test_keys_that_a_section_does_not_have_are_ignored(tiny_vocabulary: Vocabulary, extra: object) -> None:
    section = {"type": "ByteLevel", "add_prefix_space": False, "pretokenizers": extra}
    assert Tokenizer(changed(tiny_vocabulary, set_key("pre_tokenizer", section))).encode("ab") == [260]


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "null", '{"model": 1}'])
def test_files_that_are_no_tokenizer_are_refused(text: str) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: "):
        TokenizerJson.from_text(text)


def test_tokens_outside_the_byte_alphabet_mean_themselves(tiny_metadata: dict[str, Any]) -> None:
    tiny_metadata["tokenizer.ggml.tokens"].append("中 x")
    tiny_metadata["tokenizer.ggml.token_type"].append(1)
    tokenizer = Tokenizer(Vocabulary(tokenizer_json=tokenizer_json_from_gguf(tiny_metadata)))
    assert tokenizer.decode([263]) == "中 x"


@pytest.mark.parametrize("package", ["puna.tokens", "puna.prompt"])
def test_importing_is_cheap(package: str) -> None:
    heavy = {"tokenizers", "jinja2", "jsonschema", "torch"}
    code = f"import sys, {package}; print(*sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
