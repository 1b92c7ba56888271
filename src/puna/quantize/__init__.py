"""From a checkpoint to one with 4-bit weights: rounding to nearest, GPTQ, SpinQuant and distillation.

Owns the methods of ``puna quantize``. Imports torch, `puna.nn`, `puna.tokens`, `puna.models` and
`puna.errors`; needs the extra ``train``. Start at `run.py`.
"""
