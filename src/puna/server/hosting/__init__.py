"""Models in memory, and who may run on them when.

Owns loading, unloading and the queue in front of each engine. Imports `puna.llama` and below. Start at
`pool.py` (all models), then `hosted.py` (one) and `admission.py` (its queue).
"""
