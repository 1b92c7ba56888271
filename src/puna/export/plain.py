"""Models that other programs have: `require_plain`."""

from __future__ import annotations

from puna.errors import CheckpointError
from puna.models.checkpoint import Checkpoint

__all__ = ["require_plain"]


def require_plain(checkpoint: Checkpoint, target: str) -> None:
    """Refuse a model with parts that another program would leave out, and compute something else.

    Args:
        checkpoint: the model.
        target: what has no place for those parts, for the message.

    Raises:
        CheckpointError: the model has `ModelConfig.additions`.
    """
    additions = checkpoint.config.additions
    if additions:
        raise CheckpointError(
            f"{checkpoint.path}: {target} cannot say that a model has {' and '.join(additions)}; keep it as "
            "a Puna checkpoint, or quantize the model without them: `puna quantize --method gptq`"
        )
