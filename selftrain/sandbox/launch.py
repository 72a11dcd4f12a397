"""How the zygote of each level is started."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from selftrain.sandbox.confine import visible

ROOT = Path(__file__).resolve().parent.parent.parent
INSIDE = "/selftrain"
"""Where our code lies inside bubblewrap."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    "PYTHONHASHSEED": "0",  # The same program gives the same results.
}
_START = (
    "import sys; own = sys.path[:]; sys.path[:0] = sys.argv[3:]; from selftrain.sandbox.zygote import main; "
    "main(int(sys.argv[1]), sys.argv[2], own)"
)
_EXPENDABLE = 'echo 1000 2>/dev/null >/proc/self/oom_score_adj; exec "$@"'
"""Where memory runs out, it is what runs in here that the kernel ends."""


def command(level: str, channel: int) -> list[str]:
    """The command line of the zygote of a level."""
    python = [os.path.realpath(sys.executable), "-X", "utf8", "-S", "-s", "-P", "-c", _START, str(channel), level]
    words = [*bubblewrap(), "--", *python, INSIDE] if level == "namespaces" else [*python, str(ROOT), *packages()]
    return ["/bin/sh", "-c", _EXPENDABLE, "sh", *words]


def bubblewrap() -> list[str]:
    """An empty world but for Python, the libraries and this package; as root its own rights, else a user namespace."""
    rights = ["CAP_SYS_ADMIN", "CAP_SETPCAP", *(["CAP_SETUID", "CAP_SETGID", "CAP_KILL"] if os.getuid() == 0 else [])]
    words = [
        shutil.which("bwrap") or "bwrap",
        "--unshare-ipc",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-uts",
        "--unshare-cgroup-try",
    ]
    words += [] if os.getuid() == 0 else ["--unshare-user"]
    words += [word for right in rights for word in ("--cap-add", right)]
    words += ["--dir", "/dev", "--dir", "/tmp"]
    for path in visible():
        words += [word for parent in reversed(Path(path).parents[:-1]) for word in ("--dir", str(parent))]
        if os.path.islink(path):
            words += ["--symlink", os.readlink(path), path]
        else:
            words += ["--ro-bind", path, path]
    for device in DEVICES:
        words += ["--dev-bind-try", device, device]
    for part in ("__init__.py", "sandbox"):
        words += ["--ro-bind", str(ROOT / "selftrain" / part), f"{INSIDE}/selftrain/{part}"]
    return [*words, "--remount-ro", "/", "--chdir", "/"]


def packages() -> list[str]:
    """Where the packages lie that `confine` needs at a level without bubblewrap."""
    found = [importlib.util.find_spec(name) for name in ("landlock", "pyseccomp")]
    files = [Path(spec.origin) for spec in found if spec is not None and spec.origin is not None]
    folders = [file.parent.parent if file.name == "__init__.py" else file.parent for file in files]
    return [str(folder) for folder in dict.fromkeys(folders)]
