"""From another format's tensor names to Hugging Face's, which this package uses: `translate`."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["translate"]


def translate(
    name: str, names: Mapping[str, str], layer_tensor: re.Pattern[str], layer_names: Mapping[str, str]
) -> str:
    """The Hugging Face name of a tensor.

    Args:
        name: the file's own.
        names: Hugging Face names of the tensors outside the layers.
        layer_tensor: matches tensors of a layer; its groups are the layer's number and the part.
        layer_names: Hugging Face names of the parts.

    Returns:
        Where there is none, the name itself, for `check_names` to refuse; marked where it would pass for
        a Hugging Face name, whose rows may be in another order.
    """
    layer = layer_tensor.fullmatch(name)
    if layer and layer[2] in layer_names:
        return f"model.layers.{layer[1]}.{layer_names[layer[2]]}.weight"
    if name in names:
        return names[name]
    return f"{name} (a Hugging Face name)" if name.startswith(("model.", "lm_head.")) else name
