"""Training a Llama: the loop, its data, its losses, and quantization-aware training on top of them.

Owns everything between a file of texts or conversations and a trained `puna.nn.Transformer`. Imports torch,
`puna.nn`, `puna.quantize` and what lies below them; needs the extra ``train``. Start at `loop.py`, then
`data.py`.
"""
