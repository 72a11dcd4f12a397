"""Inside the sandbox, at the level ``landlock``: the system calls that a program is refused."""

from __future__ import annotations

import os
from typing import Any


def filter_of(seccomp: Any) -> Any:
    """The filter for this process, made with the module ``pyseccomp``."""
    refused = seccomp.ERRNO(1)
    made = seccomp.SyscallFilter(seccomp.ALLOW)
    for name in REFUSED:
        if seccomp.resolve_syscall(seccomp.system_arch(), name) != UNKNOWN:
            made.add_rule(refused, name)
    thread = 0x00010000  # CLONE_THREAD
    made.add_rule(seccomp.ERRNO(11), "clone", seccomp.Arg(0, seccomp.MASKED_EQ, thread, 0))
    made.add_rule(seccomp.ERRNO(38), "clone3")  # Its flags cannot be seen; libraries then use clone.
    for name, own in {"kill": os.getpid(), "tgkill": os.getpid()}.items():
        made.add_rule(refused, name, seccomp.Arg(0, seccomp.NE, own))
    for name in ("prlimit64", "sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr"):
        made.add_rule(refused, name, seccomp.Arg(0, seccomp.NE, 0))
    for command in OWNER_COMMANDS:
        made.add_rule(refused, "fcntl", seccomp.Arg(1, seccomp.EQ, command))
    return made


UNKNOWN = -1
"""What libseccomp says of a system call it is too old to know."""
OWNER_COMMANDS = (8, 10, 15)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX: who is sent a signal by the kernel."""
REFUSED = (
    # The network, other than a pair of sockets of one's own.
    *("socket", "connect", "bind", "listen", "accept", "accept4"),
    # Further processes, and other programs' processes.
    *("fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease"),
    *("pidfd_open", "pidfd_getfd", "pidfd_send_signal", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "kcmp"),
    *("setpriority", "ioprio_set", "move_pages", "migrate_pages", "setpgid", "setsid"),
    # Attributes of files, which Landlock does not look at.
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchown", "fchownat", "utime", "utimes"),
    *("utimensat", "futimesat", "setxattr", "lsetxattr", "fsetxattr", "setxattrat"),
    *("removexattr", "lremovexattr", "fremovexattr", "removexattrat", "flock"),
    # What outlives a process.
    *("shmget", "shmat", "shmctl", "msgget", "msgsnd", "msgctl", "semget", "semop", "semctl", "mq_open", "mq_unlink"),
    *("memfd_create", "memfd_secret"),  # Nor is it anybody's memory.
    *("add_key", "request_key", "keyctl"),
    # The machine.
    *("unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "fsconfig"),
    *("fsmount", "fspick", "mount_setattr", "open_by_handle_at", "name_to_handle_at", "bpf", "perf_event_open"),
    *("userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "fanotify_init", "personality", "acct"),
    *("quotactl", "quotactl_fd", "swapon", "swapoff", "reboot", "syslog", "init_module", "finit_module"),
    *("delete_module", "kexec_load", "kexec_file_load", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex"),
    *("sethostname", "setdomainname", "iopl", "ioperm", "vhangup", "lookup_dcookie"),
)
