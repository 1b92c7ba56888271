"""Run by Alembic: works in the transaction of the connection that it is given."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], version_table="puna_version")
context.run_migrations()
