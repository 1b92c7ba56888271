"""Limits on what a chat template may do: it comes with a model, from anybody, and runs on every conversation.

Jinja's sandbox keeps a template away from Python's insides. It does not keep it from looping for hours or
from making a text of a gigabyte, so here every turn of a loop and every call costs fuel, and every value that
a template makes is held against a size before or after it is made, whichever is safe.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import wraps
from typing import Any, cast

from jinja2 import TemplateError, nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

__all__ = ["LimitedEnvironment", "refuel"]

# A turn of a loop or a call costs 1. A conversation of a thousand messages takes some ten thousand.
_FUEL = 300_000
_MAX_LENGTH = 4_194_304  # characters of a text, items of a list
_MAX_ARGUMENT = 10_000  # numbers given to functions: widths, counts
_MAX_BITS = 10_000  # of whole numbers
_SIZE_PER_FUEL = 64
_WIDE = re.compile(r"\d{5}|\*")
_METERED = "_metered"
_CAPPED = "_capped"
# Not in any chat template, and costly.
_LEFT_OUT_FILTERS = ("filesizeformat", "pprint", "urlize", "wordwrap", "xmlattr")

_fuel: ContextVar[int] = ContextVar("_fuel", default=_FUEL)


def refuel() -> None:
    """Give a rendering that is about to start all of its fuel."""
    _fuel.set(_FUEL)


def _burn(amount: int) -> None:
    left = _fuel.get() - amount
    if left < 0:
        raise TemplateError("it loops and calls too much")
    _fuel.set(left)


def _metered(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        _burn(1)
        yield value


def _capped(value: Any) -> Any:
    """The same value, unless it is too large with everything in it, each time that it is in it."""
    if isinstance(value, str):
        _check_length(len(value))
    elif isinstance(value, list | tuple | dict):
        size = 0
        inside: list[Any] = [value]
        while inside:
            item = inside.pop()
            size += 1
            if isinstance(item, str):
                size += len(item)
            elif isinstance(item, list | tuple):
                inside += item
            elif isinstance(item, dict):
                inside += item.values()
            _check_length(size + len(inside))
        _burn(size // _SIZE_PER_FUEL)
    return value


def _check_call(name: str, value: Any, arguments: list[Any]) -> None:
    """Pay for a call, and refuse one that would make a huge value.

    Args:
        name: of the method or filter.
        value: what it works on.
        arguments: what else it is given.
    """
    if any(isinstance(a, int) and abs(a) > _MAX_ARGUMENT for a in arguments) and name != "safe_range":
        raise TemplateError(f"it gives a number over {_MAX_ARGUMENT} to `{name}`")
    size = len(value) if isinstance(value, str | list | tuple | dict) else 0
    _burn(1 + size // _SIZE_PER_FUEL)
    texts = [a for a in arguments if isinstance(a, str)]
    if name == "format" and isinstance(value, str) and _WIDE.search(value):
        raise TemplateError("it formats a value too wide")
    if name == "replace" and isinstance(value, str) and len(texts) > 1:
        _check_length(size + value.count(texts[0]) * len(texts[1]))
    if name in ("indent", "tojson") and any(isinstance(a, int) and a > _SIZE_PER_FUEL for a in arguments):
        raise TemplateError(f"it indents by more than {_SIZE_PER_FUEL}")


def _check_length(length: int) -> None:
    if length > _MAX_LENGTH:
        raise TemplateError(f"it makes a value of more than {_MAX_LENGTH} characters or items")


def _joinable(separator: str, values: Iterable[Any]) -> list[Any]:
    items, length = [], 0
    for value in _metered(values):
        items.append(value)
        length += len(separator) + (len(value) if isinstance(value, str) else 0)
        _check_length(length)
    return items


def _limited(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter within limits."""

    @wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        # Some filters are given the context or the environment before the value.
        first = 1 if hasattr(function, "jinja_pass_arg") else 0
        if first >= len(arguments):
            return function(*arguments, **named)
        given = list(arguments)
        _check_call(name, given[first], [*given[first + 1 :], *named.values()])
        if name == "join":
            separator = next((a for a in [*given[first + 1 :], *named.values()] if isinstance(a, str)), "")
            if "attribute" not in named and len(given) < first + 3:
                given[first] = _joinable(separator, given[first])
        return _capped(function(*given, **named))

    return run


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with fuel, and with a cap on sizes."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        """Set up Jinja.

        Args:
            **options: as for Jinja's own environment.
        """
        super().__init__(**options)
        for name in _LEFT_OUT_FILTERS:
            self.filters.pop(name, None)
        self.globals.pop("lipsum", None)
        for name, function in list(self.filters.items()):
            self.filters[name] = _limited(name, function)
        self.filters[_METERED] = _metered
        self.filters[_CAPPED] = _capped

    def add_filter(self, name: str, function: Callable[..., Any]) -> None:
        """Add a filter, within limits."""
        self.filters[name] = _limited(name, function)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Check an operator before it makes a value; see Jinja's sandbox."""
        _check_operator(operator, left, right)
        return _capped(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Check what is formatted before it is; see Jinja's sandbox."""
        text = getattr(value, "__self__", None)
        if isinstance(text, str) and value.__name__ in ("format", "format_map") and _WIDE.search(text):
            raise TemplateError("it formats a value too wide")
        return super().wrap_str_format(value)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Check a call before and after it is made; see Jinja's sandbox."""
        name, owner = getattr(__obj, "__name__", ""), getattr(__obj, "__self__", None)
        given = list(args)
        _check_call(name, owner, [*given, *kwargs.values()])
        if name == "join" and isinstance(owner, str) and given:
            given[0] = _joinable(owner, given[0])
        return _capped(super().call(__context, __obj, *given, **kwargs))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            if loop.recursive:
                raise TemplateError("recursive loops are not run")
            loop.iter = _filter(_METERED, loop.iter)
        capped: nodes.Template = _Capping().visit(tree)
        return capped


def _check_operator(operator: str, left: Any, right: Any) -> None:
    if operator == "%" and isinstance(left, str) and _WIDE.search(left):
        raise TemplateError("it formats a value too wide")
    if operator == "**" and isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() * abs(right))
    if operator == "*":
        if isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() + right.bit_length())
        for value, count in ((left, right), (right, left)):
            if isinstance(value, str | list | tuple) and isinstance(count, int):
                _check_length(len(value) * count)


def _check_bits(n_bits: int) -> None:
    if n_bits > _MAX_BITS:
        raise TemplateError("it computes a number too large")


def _filter(name: str, node: nodes.Node) -> nodes.Filter:
    return nodes.Filter(cast(nodes.Expr, node), name, [], [], None, None, lineno=node.lineno)


class _Capping(NodeTransformer):
    """Holds against the cap what a template makes without a call, and what it compares."""

    def _capped(self, node: nodes.Expr) -> nodes.Expr:
        self.generic_visit(node)
        return node if getattr(node, "ctx", "load") != "load" else _filter(_CAPPED, node)

    visit_Concat = visit_List = visit_Tuple = visit_Dict = _capped

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:
        self.generic_visit(node)
        node.expr = _filter(_CAPPED, node.expr)
        return node
