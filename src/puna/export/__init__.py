"""Models as the files of other people's programs, a file a target.

Owns the writers of GGUF, Hugging Face's layout, compressed-tensors and ExecuTorch's programs; Meta's is
beside its reader. May import `puna.models` and `puna.nn`, the latter where a program is traced, and no torch
itself. Start at `targets.py`.
"""
