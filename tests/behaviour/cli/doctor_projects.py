"""Small projects for `doctor`: CLASHES have one thing wrong, FINE nothing.

A project is its files by name.  A clash also has the place and the first
words of what is found.  HERE are the packages that are installed where the
answer depends on them; the other projects are judged with all and with none.
"""

from __future__ import annotations

Files = dict[str, str]

#: name: files, place, first words.
CLASHES: dict[str, tuple[Files, str, str]] = {
    "a loop by a constant": (
        {
            "app.py": (
                "import uvicorn\n\nLOOP = 'uvloop'\n"
                "uvicorn.run('app:app', loop=LOOP)\n"
            )
        },
        "app.py:4",
        'uvicorn.run(loop="uvloop") picks another loop',
    ),
    "a constant of another file": (
        {
            "shop/__init__.py": "",
            "shop/settings.py": "LOOP = 'uvloop'\n",
            "shop/main.py": (
                "import uvicorn\nfrom . import settings\n"
                "uvicorn.run('app:app', loop=settings.LOOP)\n"
            ),
        },
        "shop/main.py:3",
        "uvicorn.run(loop=",
    ),
    "a variable's default": (
        {
            "app.py": (
                "import os, uvicorn\n"
                "options = {'loop': os.getenv('LOOP', 'uvloop')}\n"
                "uvicorn.run('app:app', **options)\n"
            )
        },
        "app.py:3",
        "uvicorn.run(loop=",
    ),
    "a star import": (
        {"app.py": "from uvloop import *\n\ninstall()\n"},
        "app.py:3",
        "uvloop.install() picks uvloop",
    ),
    "a factory by another name": (
        {
            "app.py": (
                "import asyncio\n\nimport uvloop\n\n"
                "new = uvloop.new_event_loop\n"
                "asyncio.run(main(), loop_factory=new)\n"
            )
        },
        "app.py:6",
        "uvloop.new_event_loop picks uvloop",
    ),
    "a subclass of a policy": (
        {
            "app.py": (
                "import uvloop\n\n\n"
                "class Policy(uvloop.EventLoopPolicy):\n    pass\n"
            )
        },
        "app.py:4",
        "class Policy(uvloop.EventLoopPolicy) picks uvloop",
    ),
    "anyio": (
        {
            "app.py": (
                "import anyio\n"
                "anyio.run(f, backend_options={'use_uvloop': True})\n"
            )
        },
        "app.py:2",
        '"use_uvloop": True picks uvloop',
    ),
    "gevent, a part": (
        {"app.py": "import gevent.monkey as m\nm.patch_socket()\n"},
        "app.py:2",
        "gevent.monkey.patch_socket() makes system calls use",
    ),
    "eventlet": (
        {"app.py": "import eventlet\neventlet.monkey_patch()\n"},
        "app.py:2",
        "eventlet.monkey_patch() makes system calls use",
    ),
    "aiofastnet": (
        {"app.py": "import aiofastnet as fast\nfast.patch_loop()\n"},
        "app.py:2",
        "aiofastnet.patch_loop() puts its own transports",
    ),
    "gunicorn in a Procfile": (
        {
            "Procfile": (
                "# the web\n"
                "web: gunicorn -k uvicorn.workers.UvicornWorker app:app\n"
            ),
            "app.py": "app = object()\n",
        },
        "Procfile:2",
        "gunicorn -k uvicorn.workers.UvicornWorker takes uvloop if",
    ),
    "gunicorn's file": (
        {"gunicorn.conf.py": 'worker_class = "uvicorn_worker.UvicornWorker"'},
        "gunicorn.conf.py:1",
        'worker_class = "uvicorn_worker.UvicornWorker" takes',
    ),
    "gunicorn in a script": (
        {
            "run.sh": (
                "pip install gunicorn\nexec /opt/bin/gunicorn \\\n"
                "  --worker-class=uvicorn.workers.UvicornWorker \\\n"
                '  "$APP"\n'
            )
        },
        "run.sh:2",
        "gunicorn --worker-class uvicorn.workers.UvicornWorker",
    ),
    "gunicorn in a Dockerfile": (
        {
            "Dockerfile": (
                "FROM python:3.13-slim\nRUN pip install gunicorn uvloop\n"
                'CMD ["gunicorn", "app:app", \\\n'
                '     "-k", "uvicorn.workers.UvicornWorker"]\n'
            )
        },
        "Dockerfile:3",
        "gunicorn -k uvicorn.workers.UvicornWorker",
    ),
    "gunicorn with greenlets": (
        {"Procfile": "web: gunicorn -k gevent -w 4 shop.wsgi\n"},
        "Procfile:1",
        "gunicorn -k gevent replaces the system calls",
    ),
    "hypercorn's file": (
        {"hypercorn.toml": 'bind = "0.0.0.0:80"\nworker_class = "uvloop"\n'},
        "hypercorn.toml:2",
        "worker_class = uvloop picks uvloop",
    ),
    "hypercorn's configuration": (
        {
            "app.py": (
                "import hypercorn\nconfig = hypercorn.Config()\n"
                'config.worker_class = "uvloop"\n'
            )
        },
        "app.py:3",
        'worker_class = "uvloop" picks uvloop',
    ),
    "gunicorn in an application of one's own": (
        {
            "app.py": (
                "from gunicorn.app.base import BaseApplication\n\n\n"
                "class Site(BaseApplication):\n"
                "    def load_config(self):\n"
                "        self.cfg.set('worker_class', 'gevent')\n"
            )
        },
        "app.py:6",
        '"worker_class", "gevent" replaces the system calls',
    ),
    "a worker's full name": (
        {"app.py": "Site({'worker_class': 'uvicorn.workers.UvicornWorker'})"},
        "app.py:1",
        '"worker_class": "uvicorn.workers.UvicornWorker" takes uvloop if',
    ),
    "hypercorn's option": (
        {"Makefile": "serve:\n\thypercorn -k uvloop app:app\n"},
        "Makefile:2",
        "hypercorn -k uvloop picks uvloop",
    ),
    "a script that a script writes": (
        {
            "run.sh": (
                "cat <<EOF\nhelp\nEOF\ncat > /start.sh <<EOF\n"
                "gunicorn -k gevent app:app\nEOF\n"
            )
        },
        "run.sh:5",
        "gunicorn -k gevent replaces the system calls",
    ),
    "a command in a variable": (
        {
            "run.sh": (
                'CMD="PORT=1 exec gunicorn -k gevent app:app"\nexec $CMD\n'
            )
        },
        "run.sh:1",
        "gunicorn -k gevent replaces the system calls",
    ),
    "a command after a variable's text": (
        {"run.sh": 'NAME="My site" gunicorn -k gevent app:app\n'},
        "run.sh:1",
        "gunicorn -k gevent replaces the system calls",
    ),
    "a recipe that make does not print": (
        {"Makefile": "serve:\n\t@-hypercorn -k uvloop app:app\n"},
        "Makefile:2",
        "hypercorn -k uvloop picks uvloop",
    ),
    "a list in YAML": (
        {
            "compose.yaml": (
                "services:\n  web:\n    command:\n      - uvicorn\n"
                "      - app:app\n      - --loop\n      - uvloop\n"
            )
        },
        "compose.yaml:4",
        "uvicorn --loop uvloop picks another loop",
    ),
    "an entry point with arguments": (
        {
            "Dockerfile": (
                'FROM python\nENTRYPOINT ["uvicorn"]\n\n'
                'CMD ["app:app", "--loop", "uvloop"]\n'
            )
        },
        "Dockerfile:2",
        "uvicorn --loop uvloop",
    ),
    "a variable of Docker's old form": (
        {
            "Dockerfile": (
                "FROM python\nENV LOOP uvloop\n"
                "CMD uvicorn app:app --loop $LOOP\n"
            )
        },
        "Dockerfile:3",
        "uvicorn --loop uvloop",
    ),
    "arguments in Kubernetes": (
        {
            "pod.yaml": (
                "    - name: uvicorn\n      command: ['uvicorn']\n"
                "      args: [\n        'app:app', '--loop=uvloop']\n"
            )
        },
        "pod.yaml:2",
        "uvicorn --loop uvloop",
    ),
    "a shell's variable with a default": (
        {
            "start.sh": (
                "export WORKER_CLASS=${WORKER_CLASS:-"
                '"uvicorn.workers.UvicornWorker"}\n'
                'exec gunicorn -k "$WORKER_CLASS" "$APP"\n'
            )
        },
        "start.sh:1",
        "WORKER_CLASS=uvicorn.workers.UvicornWorker takes uvloop if",
    ),
    "a partial function": (
        {
            "a.py": (
                "import functools\nimport uvloop as u\n"
                "functools.partial(u.run, main())()\n"
            )
        },
        "a.py:3",
        "uvloop.run() picks uvloop",
    ),
    "a variable of Kubernetes": (
        {"pod.yml": "  - name: UVICORN_LOOP\n    value: 'uvloop'\n"},
        "pod.yml:1",
        "UVICORN_LOOP=uvloop picks another loop",
    ),
    "a process that is started": (
        {
            "run.py": (
                "import subprocess, sys\n\nsubprocess.run(\n"
                "    [sys.executable, '-m', 'uvicorn', 'a:b', '--loop', "
                "'uvloop']\n)\n"
            )
        },
        "run.py:3",
        "uvicorn --loop uvloop picks",
    ),
    "a class of asyncio's": (
        {
            "app.py": (
                "import asyncio\nfrom asyncio import SelectorEventLoop as S\n"
                "asyncio.run(f(), loop_factory=S)\n"
            )
        },
        "app.py:3",
        "asyncio.SelectorEventLoop picks asyncio's own loop",
    ),
    "Sanic, told to": (
        {
            "app.py": (
                "from sanic import Sanic\napp = Sanic('a')\n"
                "app.config.USE_UVLOOP = True\n"
            )
        },
        "app.py:3",
        "USE_UVLOOP = True picks uvloop",
    ),
    "Dask": (
        {"distributed.yaml": "distributed:\n  admin:\n    event-loop: uvloop"},
        "distributed.yaml:3",
        "event-loop = uvloop makes Dask use uvloop",
    ),
}

UVICORN = {"app.py": "import uvicorn\nuvicorn.run('app:app')\n"}
WORKER = (
    "from uvicorn_worker import UvicornWorker as Base\n\n\n"
    "class Worker(Base):\n"
    "    CONFIG_KWARGS = {'loop': 'fastloop:new_event_loop'}\n"
)

#: Clashes where these packages are installed, and fine without them.
HERE: dict[str, tuple[str, Files, str, str]] = {
    "uvicorn's default": (
        "uvloop",
        UVICORN,
        "app.py:2",
        "uvicorn.run() takes uvloop, which is installed here",
    ),
    "uvicorn's default in a command": (
        "uvloop",
        {"Procfile": "web: uvicorn app:app --port $PORT\n"},
        "Procfile:1",
        "uvicorn takes uvloop",
    ),
    "a worker of one's own without a loop": (
        "uvloop",
        {"workers.py": WORKER.replace("loop", "http")},
        "workers.py:4",
        "class Worker(uvicorn_worker.UvicornWorker) takes uvloop",
    ),
    "granian's default": (
        "uvloop",
        {"run.sh": "python -m fastloop run -m granian app:app\n"},
        "run.sh:1",
        "granian takes rloop or uvloop",
    ),
    "granian's default in Python": (
        "rloop",
        {"app.py": "import granian\ngranian.Granian('app:app').serve()\n"},
        "app.py:2",
        "granian.Granian() takes rloop or uvloop",
    ),
    "Sanic's default": (
        "uvloop",
        {"app.py": "import sanic\napp = sanic.Sanic('app')\n"},
        "app.py:2",
        "sanic.Sanic() takes uvloop",
    ),
    "gunicorn's own worker": (
        "uvloop",
        {"gunicorn.conf.py": "worker_class = 'asgi'\n"},
        "gunicorn.conf.py:1",
        'worker_class = "asgi" takes uvloop',
    ),
    "an optional import": (
        "uvloop",
        {
            "app.py": (
                "try:\n    import uvloop\nexcept ImportError:\n"
                "    uvloop = None\n\n\ndef main():\n"
                "    if uvloop is not None:\n        go = uvloop.install\n"
                "        go()\n"
            )
        },
        "app.py:10",
        "uvloop.install()",
    ),
    "an import by name": (
        "uvloop",
        {"a.py": "import importlib as i\ni.import_module('uvloop').install()"},
        "a.py:2",
        "uvloop.install()",
    ),
    "an optional import of another file": (
        "uvloop",
        {
            "compat.py": "try:\n    import uvloop\n"
            "except ImportError:\n    uvloop = None\n",
            "app.py": "from compat import uvloop\n"
            "if uvloop:\n    uvloop.install()\n",
        },
        "app.py:3",
        "uvloop.install()",
    ),
    "a suppressed ImportError": (
        "uvloop",
        {
            "app.py": "import contextlib\n"
            "with contextlib.suppress(ImportError):\n"
            "    import uvloop\n    uvloop.install()\n"
        },
        "app.py:4",
        "uvloop.install()",
    ),
    "an import of what can be found": (
        "uvloop",
        {
            "app.py": "from importlib.util import find_spec\n"
            "if find_spec('uvloop'):\n"
            "    import uvloop\n    uvloop.install()\n"
        },
        "app.py:4",
        "uvloop.install()",
    ),
    "uvloop where it can be imported": (
        "uvloop",
        {
            "app.py": "import asyncio\n"
            "try:\n    import uvloop\n"
            "except ImportError:\n    uvloop = None\n"
            "if uvloop:\n    uvloop.run(main())\n"
            "else:\n    asyncio.run(main())\n"
        },
        "app.py:7",
        "uvloop.run() ",
    ),
    "aiohttp on aiofastnet": (
        "aiofastnet",
        {"app.py": "from aiohttp import web\n\nweb.run_app(app)\n"},
        "app.py:1",
        "import aiohttp takes aiofastnet",
    ),
}

FINE: dict[str, Files] = {
    "a local variable": {
        "app.py": (
            "import uvloop as _\n\n\ndef start(client):\n    uvloop = client()"
            "\n    uvloop.install()\n\n\ndef run(uvloop):\n    uvloop.run()\n"
        )
    },
    "a local variable that hides an import": {
        "app.py": (
            "import uvloop\n\n\ndef f(items):\n    for uvloop in items:\n"
            "        uvloop.install()\n    return [uvloop.__version__]\n"
        )
    },
    "words in texts": {
        "app.py": '"""Do not call uvloop.install()."""\nNAME = "uvloop"\n',
        "pyproject.toml": (
            '[project]\ndependencies = [\n  "uvicorn[standard]>=0.30",\n'
            '  "uvloop",\n  "gunicorn",\n]\ndescription = "uvicorn and '
            '--loop"\n'
        ),
        "setup.py": "import setuptools\nsetuptools.setup(requires=['uvloop'])",
    },
    "the asyncio of other servers": {
        "app.py": (
            "from granian import Granian\n"
            "Granian('app:app', loop='asyncio').serve()\n"
        ),
        "hypercorn.toml": 'worker_class = "asyncio"\n',
        "gunicorn.conf.py": 'worker_class = "asgi"\nasgi_loop = "asyncio"\n',
    },
    "a comparison": {
        "app.py": (
            "import asyncio\n\nimport uvloop\n\n\nasync def kind():\n"
            "    loop = asyncio.get_running_loop()\n"
            "    if isinstance(loop, uvloop.Loop):\n        return 'uvloop'\n"
            "    return type(loop) is uvloop.Loop\n"
        )
    },
    "tests": {
        "app.py": "import asyncio\n\nasyncio.run(main())\n",
        "tests/test_loops.py": "import uvloop\n\nuvloop.install()\n",
        "conftest.py": "import uvloop\n\nuvloop.install()\n",
    },
    "uvicorn with fastloop": {
        "app.py": (
            "import uvicorn\n\nLOOP = 'fastloop:new_event_loop'\n"
            "uvicorn.run('app:app', loop=LOOP)\n"
        ),
        "Procfile": "web: uvicorn app:app --loop fastloop:new_event_loop\n",
    },
    "uvicorn's variable": {
        "Dockerfile": (
            "FROM python\nENV UVICORN_LOOP=fastloop:new_event_loop\n"
            "RUN pip install uvicorn uvloop\nCMD uvicorn app:app\n"
        )
    },
    "uvicorn as a coroutine": {
        "app.py": (
            "import fastloop, uvicorn\n\n\nasync def main():\n"
            "    config = uvicorn.Config(app)\n"
            "    await uvicorn.Server(config).serve()\n\n\n"
            "fastloop.run(main())\n"
        )
    },
    "servers that fastloop runs": {
        "Procfile": (
            "web: python -m fastloop run -m uvicorn app:app\n"
            "api: python -m fastloop run app.py\n"
            "old: python -m fastloop run -m gunicorn -c gunicorn.conf.py a:b\n"
        ),
        "gunicorn.conf.py": 'worker_class = "uvicorn.workers.UvicornWorker"',
        **UVICORN,
    },
    "a worker of one's own": {
        "workers.py": WORKER,
        "Procfile": "web: gunicorn -k workers.Worker app:app\n",
    },
    "granian's registry": {
        "app.py": (
            "import fastloop\nfrom granian import Granian, loops\n\n\n"
            "@loops.register('auto')\ndef build():\n"
            "    return fastloop.new_event_loop()\n\n\n"
            "Granian('app:app').serve()\n"
        )
    },
    "Sanic with fastloop": {
        "app.py": (
            "import fastloop\nfrom sanic import Sanic\n\nfrom conf import C\n"
            "\napp = Sanic('app', config=C())\n"
        ),
        "conf.py": (
            "from sanic.config import Config\n\n\n"
            "class C(Config):\n    USE_UVLOOP: bool = False\n"
        ),
    },
    "commands that start nothing": {
        "run.sh": (
            "pip install uvicorn uvloop --loop uvloop\n"
            "# uvicorn app:app --loop uvloop\n"
            'echo "uvicorn app:app --loop uvloop"\n'
            "pkill -9 gunicorn -k gevent\n"
        ),
        "ci.yaml": "image: me/uvicorn\ndepends:\n  - uvicorn\n  - uvloop\n",
    },
    "texts that a script prints": {
        "run.sh": (
            'USAGE="usage: gunicorn -k gevent app:app"\n'
            "readonly HELP='Run uvicorn app:app --loop uvloop'\n"
            "cat <<EOF\n  gunicorn -k gevent app:app\nEOF\n"
            "cat >&2 <<-'END'\n\tgunicorn -k gevent app:app\n\tEND\n"
            "python app.py\n"
        )
    },
    "recipes that start nothing": {
        "Makefile": (
            'help:\n\t@echo "uvicorn app:app --loop uvloop"\n'
            '\t@printf "uvicorn app:app --loop uvloop"\n'
            '\t-pkill -f "uvicorn app:app"\n'
            '\t@-pkill -f "uvicorn app:app"\n'
        ),
        "justfile": 'help:\n    @echo "uvicorn app:app --loop uvloop"\n',
    },
    "keys named after servers": {
        "pyproject.toml": '[project.scripts]\nuvicorn = "app.cli:main"\n',
        "setup.cfg": "console_scripts =\n    uvicorn = app.cli:main\n",
        "services.yaml": '"uvicorn": "app.cli:main"\n',
    },
    "workers of another kind": {
        "app.py": (
            'Job(worker_class="gevent_pool_of_mine")\n'
            'options = {"worker_class": "uvloop"}\n'
            'job.worker_class = "gevent"\n'
        )
    },
    "for Windows and type checkers": {
        "app.py": (
            "import asyncio\nimport sys\nfrom typing import TYPE_CHECKING\n\n"
            "if TYPE_CHECKING:\n    import uvloop\n"
            "if sys.platform == 'win32':\n    asyncio.SelectorEventLoop()\n"
        )
    },
    "files named after libraries": {
        "shop/backends/uvloop.py": "def install():\n    pass\n",
        "shop/app.py": "from .backends import uvloop\nuvloop.install()\n",
    },
    "a process that runs fastloop": {
        "app.py": "import fastloop\n\nfastloop.run(main())\n",
        "compose.yaml": "services:\n  uvicorn:\n    command: python app.py\n",
    },
}
