"""What an answer may be, and which tokens keep it so.

Owns the forms of a constraint (`forms.py`, where to start reading), what each comes to as a grammar
(`grammar.py`), and the matcher that says which tokens may come next (`matcher.py`), over the library
``llguidance``, which is loaded with the first constraint. Imports `puna.errors` and `puna.tokens`.
"""

from puna.constraints.compiler import Compiler
from puna.constraints.forms import Choices, Constraint, JsonSchema, Lark, Regex
from puna.constraints.matcher import Matcher

__all__ = ["Choices", "Compiler", "Constraint", "JsonSchema", "Lark", "Matcher", "Regex"]
