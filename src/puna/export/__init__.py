"""Models as the files of other people's programs, a file a target.

Owns the writers of GGUF, Hugging Face's layout and compressed-tensors; Meta's is beside its reader. May
import `puna.models` and what is above it, and no torch. Start at `targets.py`.
"""
