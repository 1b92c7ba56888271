"""How the database came to be as it is now, step by step, run by Alembic.

A step is a file in `versions`, named in `REVISIONS`; it imports SQLAlchemy and Alembic only, since it must
stay as it is while `tables.py` changes. Start at `versions/v0001_first.py`.
"""

REVISIONS = ("0001", "0002", "0003")
"""Every step, the first one first."""
