"""The steps, a file each; they import SQLAlchemy and Alembic only. Start at `v0001_first.py`."""
