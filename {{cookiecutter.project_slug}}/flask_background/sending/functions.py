"""Functions by import path: what may be sent to a worker, and what a worker may run.

The same rule holds on both sides: public functions at the top of the modules of the application's
own package (and of the packages that ``CELERY_SUBMIT_PACKAGES`` lists), but for those that make or
configure the application.
"""

import functools
import importlib
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

from flask import Flask

from ..base.errors import SubmitError

#: Never for messages: this package, and the tools, which run any command given to them.
_NEVER = ("flask_background", "devtools")
#: Modules that make or configure the application, or run, when they are imported.
_STARTERS = ("__main__", "celery_app", "config", "wsgi")
#: Names of application factories; so is whatever says that it returns a Flask.
_FACTORIES = ("create_app", "make_app")
#: Calling one of these runs none of its code.
_LAZY = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)


def path_of(function: Callable[..., Any], packages: tuple[str, ...]) -> str:
    """Name a function as ``package.module:function``.

    Raises ``SubmitError``, which says what to do, for whatever a worker could not find again: a
    lambda, a nested function, a method, a private name, a function of another package.
    """
    if not isinstance(function, FunctionType):
        raise SubmitError(
            f"{function!r} cannot be submitted: only a function defined with 'def' at the top of "
            "a module can. Write a small one that does the call, and submit that."
        )
    return _path_of(function, packages)


@functools.lru_cache(maxsize=1024)
def _path_of(function: FunctionType, packages: tuple[str, ...]) -> str:
    module, name = function.__module__, function.__qualname__
    if "<lambda>" in name:
        raise SubmitError(
            f"A lambda of {module} cannot be submitted: a worker cannot find it by name. "
            "Define it with 'def' at the top of the module."
        )
    if "." in name:
        raise SubmitError(
            f"{module}.{name} cannot be submitted: it is nested in a function or a class, where a "
            "worker cannot find it. Move it to the top of the module and pass what it needs as "
            "arguments."
        )
    path = f"{module}:{name}"
    if _check_name(module, name, packages) is not function:
        raise SubmitError(
            f"{path} cannot be submitted: that name in the module is something else than the "
            "function given. Submit the one that the module holds."
        )
    return path


def resolve(path: object, packages: tuple[str, ...]) -> FunctionType:
    """Find what ``package.module:function`` names. Raises ``SubmitError`` unless it may run."""
    module, separator, name = path.partition(":") if isinstance(path, str) else ("", "", "")
    if not separator:
        raise SubmitError(f"{path!r} is not of the form 'package.module:function'.")
    return _check_name(module, name, packages)


def _check_name(module: str, name: str, allowed: tuple[str, ...]) -> FunctionType:
    if not _inside(module, allowed) or _inside(module, _NEVER):
        raise SubmitError(
            f"{module}:{name} is outside of the packages whose functions workers run "
            f"({', '.join(allowed)}). Move it there, or list its package in "
            "CELERY_SUBMIT_PACKAGES."
        )
    if not name.isidentifier() or name.startswith("_"):
        raise SubmitError(f"{module}:{name} is private or no name at all. Submit a public name.")
    if module.partition(".")[2].rpartition(".")[2] in _STARTERS:
        raise SubmitError(f"{module} starts the application. Move {name} to another module.")
    try:
        function = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise SubmitError(f"The module {module!r} cannot be imported: {error}.") from error
    if (
        not isinstance(function, FunctionType)
        or function.__module__ != module
        or function.__qualname__ != name
    ):
        raise SubmitError(f"{module}:{name} is not a function defined in that module.")
    if any(is_one(function) for is_one in _LAZY):
        raise SubmitError(
            f"{module}:{name} is a generator or a coroutine, which a worker would not run. Write a "
            "function that runs it to its end (asyncio.run), and submit that."
        )
    if name in _FACTORIES or function.__annotations__.get("return") in (Flask, "Flask"):
        raise SubmitError(f"{module}:{name} makes an application, which is nothing for a worker.")
    return function


def _inside(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)
