"""The command line: parse, run, and turn errors into one line and an exit status."""

import gc
import json
import os
import sys
import traceback
import warnings
from importlib import import_module
from typing import Any

from polyact.app.arguments import Leaf, parse
from polyact.errors import PolyactError

MODULES = {
    "Demo": "demo",
    "Make": "make",
    "Inspect": "inspect",
    "Convert": "convert",
    "Train": "train",
    "Eval": "evaluate",
    "Export": "export",
    "Serve": "serve",
    "Envs": "listing",
    "Learners": "listing",
    "Systems": "systems",
    "ClaimOf": "claim",
}


def process() -> int:
    """`main` as a process of its own. What importing and tracing make lives on: looking for garbage in it, all the time and once more at
    the end, takes a quarter of a short command.
    """
    gc.set_threshold(100_000, 50, 50)
    status = main()
    gc.freeze()
    return status


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 refused or failed, 2 misspelt, 130 interrupted."""
    command = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            import_module(f"polyact.app.commands.{MODULES[type(command).__name__]}").run(command)
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whoever read us has gone; what is still buffered must not fail at exit
        return 1
    except (PolyactError, OSError) as error:
        return _failed(command, error, str(error))
    except Exception as error:
        return _failed(command, error, f"unexpected {type(error).__name__}: {error}", "; --debug shows where")


def _failed(command: Leaf, error: Exception, text: str, hint: str = "") -> int:
    line = " ".join(text.split())
    if command.debug:
        traceback.print_exception(error)
    if command.json:
        print(json.dumps({"error": line}))
    print(f"polyact: {line[:2000]}{'' if command.debug else hint}", file=sys.stderr)
    return 1


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"polyact: warning: {' '.join(str(message).split())}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
