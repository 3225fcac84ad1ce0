"""Write the lock files of projects without and with a database as one, for cookiecutter to render.

python _join_locks.py FOLDER, with FOLDER/none/my_app/uv.lock and so on. What only a database adds
stands between marks. Besides that, the project's own name is all that an answer decides.
"""

import sys
from difflib import SequenceMatcher
from pathlib import Path

#: Which projects have a line that not all have.
CONDITIONS = {
    ("postgresql",): 'cookiecutter.database == "postgresql"',
    ("postgresql", "sqlite"): 'cookiecutter.database != "none"',
}


def main(folder: Path) -> None:
    """Print the joined file."""
    of = {
        kind: (folder / kind / "my_app" / "uv.lock").read_text(encoding="utf-8").splitlines()
        for kind in ("postgresql", "sqlite", "none")
    }
    whole = of["postgresql"]
    owners = [["postgresql"] for _ in whole]
    for kind in ("sqlite", "none"):
        matcher = SequenceMatcher(None, whole, of[kind], autojunk=False)
        for what, start, end, *_ in matcher.get_opcodes():
            if what not in ("equal", "delete"):
                raise SystemExit(f"The lock with {kind} has lines that the largest has not.")
            if what == "equal":
                for one in owners[start:end]:
                    one.append(kind)
    condition: str | None = None
    for line, kinds in zip(whole, owners, strict=True):
        wanted = CONDITIONS.get(tuple(kinds))
        if wanted != condition:
            if condition:
                print("{% endif %}")
            if wanted:
                print("{% if " + wanted + " %}")
        condition = wanted
        own = line == 'name = "my-app"'
        print('name = "{{ cookiecutter.__distribution_name }}"' if own else line)
    if condition:
        print("{% endif %}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
