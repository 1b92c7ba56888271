"""What a Llama is and where it lies: config, checkpoint readers and writers, catalogue, local store.

Imports only `puna.errors` and the native extension (to pack weights). Start reading at `config.py`
(the architecture in numbers), then `checkpoint.py` (the interface over all file formats).
"""
