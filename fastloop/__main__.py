"""`python -m fastloop`: runs the command line in `fastloop.cli`.

`python .../fastloop` does, too, also with options that keep Python from
finding the package (-S, -I).
"""

import sys

if not __package__:
    import os
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    # Not by sys.path: the program must not import files beside the package.
    _folder = os.path.dirname(os.path.abspath(__file__))
    _spec = PathFinder.find_spec("fastloop", [os.path.dirname(_folder)])
    assert _spec is not None and _spec.loader is not None
    sys.modules["fastloop"] = module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["fastloop"])
    if sys.flags.safe_path:
        # Python puts the folder there all the same.
        del sys.path[0]

from fastloop.cli import command

if __name__ == "__main__":
    command()
