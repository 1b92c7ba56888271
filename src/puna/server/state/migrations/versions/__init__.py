"""The steps, a file each, in the order of `REVISIONS`.

They import SQLAlchemy and Alembic only. Start at `v0001_first.py`.
"""
