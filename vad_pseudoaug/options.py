"""Keywords by name: an unknown one is refused with the nearest that there is."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])
_KNOWN = "_known_options"


def guess(name: str, known: Collection[str]) -> str | None:
    """Return the known name that is like another one, None where none is."""
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def nearest(name: str, known: Collection[str]) -> str:
    """Say which known name was meant; all of them where none is near.

    Example:
        >>> nearest("per_vid", ["per_video", "seed"])
        "did you mean 'per_video'?"
        >>> nearest("x", ["per_video", "seed"])
        'there is per_video, seed'
    """
    meant = guess(name, known)
    return f"did you mean {meant!r}?" if meant else f"there is {', '.join(known)}"


def names_options(*others: Any) -> Callable[[F], F]:
    """Let a function refuse unknown keywords in one sentence.

    Args:
        *others: What its `**` stands for: a `TypedDict` or dataclass of options, or
            another function of this kind.
    """

    def decorate(function: F) -> F:
        known = dict.fromkeys(_own(function))
        for other in others:
            known |= dict.fromkeys(_names_in(other))

        @functools.wraps(function)
        def checked(*arguments: Any, **options: Any) -> Any:
            refuse_unknown(function.__name__, options, known)
            return function(*arguments, **options)

        setattr(checked, _KNOWN, known)
        return cast("F", checked)

    return decorate


def refuse_unknown(name: str, options: Iterable[str], known: Collection[str]) -> None:
    """Refuse options of a function that it does not know.

    Raises:
        TypeError: If there is one; the message names the nearest.
    """
    for option in options:
        if option not in known:
            raise TypeError(
                f"{name}: unknown option {option!r}; {nearest(option, known)}"
            )


def options_of(function: Callable[..., Any]) -> Collection[str]:
    """Return the names of all keywords that a function takes."""
    found: Collection[str] = getattr(function, _KNOWN, None) or _own(function)
    return found


def _own(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [one.name for one in parameters if one.kind is not one.VAR_KEYWORD]


def _names_in(other: Any) -> Collection[str]:
    return (
        inspect.get_annotations(other) if inspect.isclass(other) else options_of(other)
    )
