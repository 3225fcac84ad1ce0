"""Functions by import path: what may be sent to a worker, and what a worker may run.

The same rule holds on both sides, so a message that was written straight into Redis can reach
nothing but public functions of the application's own package (and of the packages that
``CELERY_SUBMIT_PACKAGES`` lists). A module that is not loaded yet is imported only if it defines
the function that is named, so no message makes a worker import what has nothing for it to run.
"""

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from types import CodeType, FunctionType, ModuleType
from typing import Any

from ..base.errors import SubmitError

_OWN_PACKAGE = "flask_background"
#: Never for messages: this layer, and the development tools, which run any command given to them.
_NEVER = (_OWN_PACKAGE, "devtools")
#: Modules of a package that make the application, or run, when they are imported.
_STARTERS = ("__main__", "celery_app", "wsgi")


@functools.lru_cache(maxsize=1024)
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
    """Find the function that ``path`` (``package.module:function``) names.

    Raises ``SubmitError`` for everything else than a public function of an allowed package.
    """
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
    function = getattr(_load(module, name), name, None)
    if (
        not isinstance(function, FunctionType)
        or function.__module__ != module
        or function.__qualname__ != name
    ):
        raise SubmitError(f"{module}:{name} is not a function defined in that module.")
    return function


def _inside(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def _load(module: str, name: str) -> ModuleType | None:
    """Return the module; None if it would have to be imported and does not define ``name``."""
    try:
        if module not in sys.modules:
            spec = _find(module)
            if spec is None:
                raise ImportError("there is none of that name")
            loader: Any = spec.loader
            code = loader.get_code(module) if loader else None
            if code is None or not _defines(code, name):
                return None
        return importlib.import_module(module)  # waits for another thread that imports it
    except ImportError as error:
        raise SubmitError(f"The module {module!r} cannot be imported: {error}.") from error


def _find(module: str) -> ModuleSpec | None:
    """Find a module as an import would, but without importing the packages that it is in."""
    package = module.rpartition(".")[0]
    if not package or package in sys.modules:
        return importlib.util.find_spec(module)
    above = _find(package)
    places = above.submodule_search_locations if above else None
    return PathFinder.find_spec(module, places) if places else None


def _defines(code: CodeType, name: str) -> bool:
    """Whether a module's code has a function (or a class) of that name at its top."""
    return code.co_qualname == name or any(
        _defines(part, name) for part in code.co_consts if isinstance(part, CodeType)
    )
