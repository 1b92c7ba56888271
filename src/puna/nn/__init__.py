"""The Llama in torch: the reference for tests, the ground for training and quantization.

Owns the readable model, its fake-quantized layers, and how it is spread over processes. Imports torch,
`puna.models` and `puna.errors`; needs the extra ``train``. Start at `model.py`.
"""
