"""The command line: parse, run, and turn errors into one line and an exit status."""

import json
import sys
import traceback
from importlib import import_module

from polyact.app.arguments import Leaf, parse
from polyact.errors import PolyactError

MODULES = {
    "Demo": "demo",
    "Make": "make",
    "Inspect": "inspect",
    "Convert": "convert",
    "Train": "train",
    "Eval": "evaluate",
    "Envs": "listing",
    "Learners": "listing",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 refused or failed, 130 interrupted."""
    command = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        run = import_module(f"polyact.app.commands.{MODULES[type(command).__name__]}").run
        run(command)
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except (PolyactError, OSError) as error:
        return _failed(command, error)


def _failed(command: Leaf, error: Exception) -> int:
    if command.debug:
        traceback.print_exc()
    elif command.json:
        print(json.dumps({"error": str(error)}))
    print(f"polyact: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
