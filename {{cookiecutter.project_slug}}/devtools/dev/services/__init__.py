"""What `flask dev` runs for a project beside Redis: each module here is a server of its own kind.

Such a module has `VARIABLE`, the setting that says where the server is; `wanted(project)`;
`running_url(instance)`; and `Server(data_dir, on_line=…, on_exit=…)`, which has a `.url`.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType


def services(project: Path) -> list[ModuleType]:
    """Return the modules of the servers that a project needs."""
    names = sorted(file.stem for file in Path(__file__).parent.glob("[a-z]*.py"))
    modules = [import_module(f"{__name__}.{name}") for name in names]
    return [module for module in modules if module.wanted(project)]
