"""Evaluate in a network namespace that holds nothing but a loopback interface. Run it under `unshare --net`.

python loopback_only.py FOLDER
"""

import fcntl
import socket
import struct
import sys
from pathlib import Path

from eval_servers import running_server
from eval_suites import gold_answers, make_suite, run_evaluator

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1


def raise_loopback() -> None:
    """`ip link set lo up`, without the program."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH22x", b"lo", 0)
        flags = struct.unpack("16sH22x", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | IFF_UP))


def main() -> int:
    folder = Path(sys.argv[1])
    raise_loopback()
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    suite = make_suite(folder / "suite")
    with running_server(folder, answers=gold_answers(suite)) as url:
        done = run_evaluator("run", "--url", url, "--suite", suite.root, "--out", folder / "out")
    sys.stderr.write(done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
