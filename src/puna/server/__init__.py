"""The HTTP server behind ``puna serve``: OpenAI's and Llama Stack's routes on the native engine.

Owns routes, their schemas, who may come in, and which models are in memory. Imports every package above it
but no command line; never torch. Start at `app.py`, which puts it together; then `routes/chat.py`, which
shows what a route is, `hosting/` (models in memory and who may run) and `answers/` (from a checked body to
events and back).
"""
