"""The native engine's patterns beside those of the tokenizers library, which has Oniguruma's."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from puna._native import tokens
from puna.errors import TokenizerError
from puna.models.tokenizer_json import GPT2_PATTERN, LLAMA3_PATTERN

LLAMA4_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK_PATTERNS = [
    "[\r\n]",
    r"\s?\p{L}+",
    r"\s?\p{P}+",
    r"[一-龥ࠀ-一가-퟿]+",
    r"\p{N}{1,3}",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
]
# One of each thing that a pattern may have, and what is easily taken for it.
SMALL_PATTERNS = [
    "a", "ab|a", "a|ab", "a*", "a*?b", "a+?", "a??b", "(?:ab)+", "(?:ab)+?c", "(?:a|b){2,3}", "a{2}", "a{,2}",
    "a{2,}b", "a{1,2}+", "a++b", "a?+a", "a*+a", "(?>a|ab)c", "(a)(b)", "(?=a)[ab]", "(?!a)[ab]", "^a", "a$",
    "^$", ".", "[^a]", "[a-c1]", "[a-]", "[-a]", "[\\]a]", "[\\s\\S]", "[\\S ]", "[^\\S\n]", "\\d+", "\\D",
    "[^\\d\\s]+", "\\p{Lu}\\p{Ll}*", "\\P{L}", "\\p{^L}", "[\\P{L}a]", "\\x41", "\\x{1f999}", "\\u00e9",
    "\\.", "\\/", "a{", "a{x}", "{", "}", "]", "(?i:s)", "(?i:[k-s])", "(?i:'LL)", "(?i:K)", "é+", "[é-ü]",
    "", "a|", "|a", "(?:a|)b", "\\s+$", "\\t|\\n", "(?:(?:a{0,2}b){1,2}c|d)*e", "(?:a?b?c)+", "\\-", "#",
    "a b",
]  # fmt: skip
ALPHABET = "aabbccdeABLKSs'lk12 3\t\n\r\u00a0\u3000.-_/!{}[]éüſK中🦙\u0301\u0085\x1c"
TEXTS = st.one_of(
    st.text(alphabet=ALPHABET, max_size=40), st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
)


def theirs(pattern: str, text: str) -> list[str]:
    """What the library finds; it drops matches of nothing."""
    pieces = Split(Regex(pattern), "removed", invert=True).pre_tokenize_str(text)
    return [text[begin:end] for _, (begin, end) in pieces]


def ours(pattern: str, text: str) -> list[str]:
    data = text.encode()
    found = tokens.matches(pattern.encode(), False, data)
    return [data[begin:end].decode() for begin, end in found if begin < end]


@pytest.mark.parametrize("pattern", [LLAMA3_PATTERN, GPT2_PATTERN, LLAMA4_PATTERN, *DEEPSEEK_PATTERNS])
def test_patterns_of_vocabularies(pattern: str) -> None:
    @settings(max_examples=100, deadline=None)
    @given(text=TEXTS)
    def check(text: str) -> None:
        assert ours(pattern, text) == theirs(pattern, text)

    check()


@pytest.mark.parametrize("pattern", SMALL_PATTERNS)
def test_small_patterns(pattern: str) -> None:
    @settings(max_examples=40, deadline=None)
    @given(text=TEXTS)
    def check(text: str) -> None:
        assert ours(pattern, text) == theirs(pattern, text)

    check()


PARTS = st.sampled_from(["a", "b", "ab", "[ab]", "[^a]", "\\s", "\\p{L}", ".", "é", "1", "\\S"])


@st.composite
def patterns(draw: st.DrawFn, depth: int = 3) -> str:
    if depth == 0:
        return draw(PARTS)
    inner = patterns(depth - 1)
    match draw(st.integers(0, 5)):
        case 0:
            return draw(inner) + draw(inner)
        case 1:
            return f"(?:{draw(inner)}|{draw(inner)})"
        case 2:
            return f"(?:{draw(inner)})" + draw(
                st.sampled_from(["+", "?", "{1,2}", "{2}", "+?", "??", "++", "*"])
            )
        case 3:
            return draw(st.sampled_from(["(?={})", "(?!{})", "(?>{})"])).format(draw(inner)) + draw(inner)
        case _:
            return draw(PARTS)


@settings(max_examples=600, deadline=None)
@given(pattern=patterns(), text=st.text(alphabet="aab é1\n", max_size=12))
def test_patterns_at_random(pattern: str, text: str) -> None:
    try:
        found = ours(pattern, text)
    except TokenizerError as error:
        assert "repeats what may be empty" in str(error)  # noqa: PT017
        return
    assert found == theirs(pattern, text)


def all_characters() -> list[str]:
    return [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]


@pytest.mark.parametrize("pattern", [r"\p{L}+", r"\p{N}+", r"\s+"])
def test_every_character_is_of_the_same_kind(pattern: str) -> None:
    # Both know Unicode 16.
    text = "".join(all_characters())
    assert ours(pattern, text) == theirs(pattern, text)


def test_characters_are_of_the_same_categories() -> None:
    # The characters where a category begins and ends, as Python knows them, and their neighbours.
    characters = all_characters()
    categories = [unicodedata.category(character) for character in characters]
    borders = {i for i, (a, b) in enumerate(pairwise(categories)) if a != b}
    chosen = sorted({i + shift for i in borders for shift in (-1, 0, 1, 2)} & {*range(len(characters))})
    text = "".join(characters[i] for i in chosen)
    for pattern in [rf"\p{{{name}}}" for name in [*sorted({*categories}), *"MPSZC"]] + [
        r"\d",
        "(?i:s)",
        "(?i:k)",
        ".",
    ]:
        assert ours(pattern, text) == theirs(pattern, text), pattern


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "a group does not end"),
        (")", "a ) that closes nothing"),
        ("[a", "it ends too early"),
        ("a\\", "it ends too early"),
        ("*a", "a repeat of nothing"),
        ("[b-a]", "a range that runs backwards"),
        ("(?<=a)b", "this kind of group is not supported"),
        (r"(a)\1", "this escape is not supported"),
        (r"\bword", "this escape is not supported"),
        (r"\w+", "this escape is not supported"),
        (r"\p{Han}", "other than a general category"),
        ("[a[b]]", "a set within a set is not supported"),
        ("[a&&b]", "a set within a set is not supported"),
        ("(?i:é)", "other than ASCII letters"),
        ("(?i:ss)", "letters that have a ligature"),
        ("(?:a*)*", "repeats what may be empty"),
        ("a{1001}", "may count to 1000"),
        ("(?:(?:ab){1000}){1000}", "too large"),
        ("(" * 40 + ")" * 40, "nested 32 deep"),
        ("a" * 10_001, "may have 10000 bytes, got 10001"),
    ],
)
def test_what_is_not_supported_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(TokenizerError, match=re.escape(message)):
        tokens.matches(pattern.encode(), False, b"")


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(?:a*a*a*a*)b", "((?:a|aa)+)+c"])
def test_a_pattern_that_takes_for_ever_is_an_error(pattern: str) -> None:
    with pytest.raises(TokenizerError, match="too many steps"):
        tokens.matches(pattern.encode(), False, b"a" * 5_000 + b"d")


def test_a_literal_means_itself() -> None:
    assert tokens.matches(b"a+", True, b"aa+a+") == [(1, 3), (3, 5)]
    assert tokens.matches("中".encode(), True, "x中".encode()) == [(1, 4)]
