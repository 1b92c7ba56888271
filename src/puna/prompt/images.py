"""Pictures in a prompt: their token, and which positions see which of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

__all__ = ["IMAGE_ID", "IMAGE_TOKEN", "image_ranges"]

IMAGE_TOKEN = "<|image|>"
IMAGE_ID = 128_256
"""The id that Llama 3.2 Vision reads as a picture: one behind the vocabulary, so that no model can say it."""


def image_ranges(ids: Sequence[int], image_id: int = IMAGE_ID) -> list[tuple[int, int]]:
    """Say which positions attend to each picture, by the rule of Meta's reference.

    Args:
        ids: a prompt.
        image_id: the token that stands for a picture.

    Returns:
        (first, end) for each picture in its order: the positions from its own up to the next picture, or to
        the end of the prompt. Pictures side by side share the end of the last of them. A lone picture has
        the end -1, which includes what is generated. With several the reference writes the length of the
        prompt instead and then loses sight of them while it generates; whoever builds a mask should take
        an end at the length of the prompt for -1 too.
    """
    places = [i for i, token in enumerate(ids) if token == image_id]
    if len(places) == 1:
        return [(places[0], -1)]
    ranges: list[tuple[int, int]] = []
    end = len(ids)
    for place, following in reversed(list(pairwise([*places, len(ids)]))):
        end = end if following == place + 1 else following
        ranges.append((place, end))
    return ranges[::-1]
