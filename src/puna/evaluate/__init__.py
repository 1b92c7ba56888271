"""What a model is worth and what it costs.

Owns measurements of speed and memory. May import everything up to `puna.engine` and `puna.llama`, but
no command line and no server. Start at `speed.py`.
"""
