"""Ask a new release whether it can work, before anything is switched to it.

It runs on the server with the server's settings, and starts no server: an error at import, a
setting that is missing or a health check that fails ends it with exit code 1. With --ready it has
to answer that all is ready, as the running release does.
"""

import runpy
import sys
from importlib import import_module
from pathlib import Path

folder = Path(__file__).resolve().parents[2]
package = "{{ cookiecutter.project_slug }}"


def main() -> int:
    """Return the exit code: 0 if the release can work."""
    sys.path.insert(0, str(folder))
    runpy.run_path(str(folder / "gunicorn.conf.py"))
    client = import_module(package).create_app().test_client()
    for path in ("/healthz", "/", *(["/readyz"] if "--ready" in sys.argv else [])):
        answer = client.get(path)
        if answer.status_code != 200:
            text = answer.get_data(as_text=True)[:500]
            print(f"{path} answered {answer.status_code}: {text}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
