"""Inside the sandbox: the system calls that every program is refused, at the levels that bring no filter of their own.

Namespaces do not cover all there is: sockets to the host of a virtual machine (AF_VSOCK), key rings and files in memory
are outside of them, a user namespace of the program's own would let it mount file systems of any size, and segments of
shared memory count as nobody's memory. A seccomp filter in classic BPF (seccomp(2)) needs no rights and no library.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

_GENERIC = {
    "umount2": 39, "mount": 40, "pivot_root": 41,
    "chroot": 51, "quotactl": 60, "unshare": 97, "kexec_load": 104, "init_module": 105, "delete_module": 106,
    "ptrace": 117, "syslog": 116, "mq_open": 180, "msgget": 186, "semget": 190, "shmget": 194, "socket": 198,
    "add_key": 217, "request_key": 218, "keyctl": 219, "clone": 220, "swapon": 224, "perf_event_open": 241,
    "fanotify_init": 262, "name_to_handle_at": 264, "open_by_handle_at": 265, "setns": 268, "process_vm_readv": 270,
    "process_vm_writev": 271, "finit_module": 273, "memfd_create": 279, "bpf": 280, "userfaultfd": 282,
}  # fmt: skip
_X86_64 = {
    "socket": 41, "clone": 56, "ptrace": 101, "syslog": 103, "shmget": 29, "semget": 64, "msgget": 68,
    "pivot_root": 155, "chroot": 161, "mount": 165, "umount2": 166, "swapon": 167, "init_module": 175,
    "delete_module": 176, "quotactl": 179,
    "mq_open": 240, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272,
    "perf_event_open": 298, "fanotify_init": 300, "name_to_handle_at": 303, "open_by_handle_at": 304, "setns": 308,
    "process_vm_readv": 310, "process_vm_writev": 311, "finit_module": 313, "memfd_create": 319, "bpf": 321,
    "userfaultfd": 323,
}  # fmt: skip
_SINCE = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_getfd": 438, "mount_setattr": 442,
    "memfd_secret": 447,
}  # fmt: skip
"""Numbers that are the same everywhere."""
CLONE3 = 435
MACHINES = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _GENERIC), "riscv64": (0xC00000F3, _GENERIC)}
"""The kernel's name of an architecture (AUDIT_ARCH), and its numbers of system calls."""
OTHER_CALLS = 0x40000000
"""From here on stand those of x32."""
NAMESPACES = 0x7E020000
"""Flags of clone that make a namespace."""
LOAD, EQUAL, AT_LEAST, ANY, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, MACHINE, FIRST_ARGUMENT = 0, 4, 16
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
EPERM, ENOSYS = 1, 38
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER = 38, 22, 2


def program() -> bytes:
    """The filter for this machine.

    Raises:
        OSError: its system calls are not known.
    """
    name = os.uname().machine
    if name not in MACHINES or sys.byteorder != "little" or sys.maxsize < 1 << 32:
        raise OSError(ENOSYS, f"the system calls of '{name}' are not known here")
    machine, numbers = MACHINES[name]
    steps = [(LOAD, 0, 0, MACHINE), (EQUAL, 1, 0, machine), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER)]
    steps += [(AT_LEAST, 0, 1, OTHER_CALLS), (RETURN, 0, 0, KILL)]
    for number in sorted({**numbers, **_SINCE}.values()):
        if number != numbers["clone"]:
            steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE | EPERM)]
    steps += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, REFUSE | ENOSYS)]  # Its flags cannot be seen; clone is used then.
    steps += [(EQUAL, 0, 3, numbers["clone"]), (LOAD, 0, 0, FIRST_ARGUMENT), (ANY, 0, 1, NAMESPACES)]
    steps += [(RETURN, 0, 0, REFUSE | EPERM), (RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def refuse_calls() -> None:
    """Refuse them to this process and all it starts, for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = program()
    held = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("H6xQ", len(code) // 8, ctypes.addressof(held)))
    for request in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, FILTER, header, 0, 0)):
        if libc.prctl(*request) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"seccomp: {os.strerror(number)}")
