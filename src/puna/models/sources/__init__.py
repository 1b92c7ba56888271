"""Where models come from: a source each, which says what is to be fetched and fetches no weights itself.

Imports what is below the store: the catalogue, `puna.models.download` and the errors. Start at `plan.py`,
what a source gives; then `huggingface.py`. `caches.py` finds what other programs have on this machine.
"""
