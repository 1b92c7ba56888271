"""Stop texts in a stream."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from puna.engine.stop import StopTexts


def feed(stops: list[str], pieces: list[str]) -> tuple[list[str], bool]:
    watcher, out = StopTexts(stops), []
    for piece in pieces:
        text, met = watcher.push(piece)
        out.append(text)
        if met:
            return out, True
    return [*out, watcher.finish()], False


def test_text_that_may_be_the_beginning_of_a_stop_is_held_back() -> None:
    assert feed(["END"], ["a E", "N", "x", "b"]) == (["a ", "", "ENx", "b", ""], False)
    assert feed(["END"], ["a E", "ND b"]) == (["a ", ""], True)
    assert feed(["END"], ["a E"]) == (["a ", "E"], False)


def test_the_first_of_several_wins() -> None:
    assert feed(["\n\n", "User:"], ["Hi\nUser: no\n\n"]) == (["Hi\n"], True)


def test_without_stop_texts_everything_passes_at_once() -> None:
    assert feed([], ["a", "b"]) == (["a", "b", ""], False)


@given(st.lists(st.text("ab", max_size=4)), st.lists(st.text("ab", min_size=1, max_size=3), max_size=3))
def test_equals_a_search_in_the_whole_text(pieces: list[str], stops: list[str]) -> None:
    out, met = feed(stops, pieces)
    whole = "".join(pieces)
    found = [(whole.find(stop) + len(stop), len(stop)) for stop in stops if stop in whole]
    assert met == bool(found)
    if not met:
        assert "".join(out) == whole
    else:
        # What is let out ends where the stop text that is complete first begins, the longest of several.
        end = min(end for end, _ in found)
        assert "".join(out) == whole[: end - max(length for at, length in found if at == end)]
