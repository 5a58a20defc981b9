//! Which stressors of stress-ng are run, and which are not. One that is in neither list, since a newer stress-ng has it, is not run.

/// Those that do no harm, as an ordinary user who may have 12,000 processes. Some cannot run at all without privileges, or without
/// what the kernel or the hardware may lack.
#[rustfmt::skip]
pub const RUN: &[&str] = &[
    "access", "af-alg", "affinity", "aio", "aiol", "alarm", "atomic", "bad-altstack", "branch", "bsearch", "cache",
    "cacheline", "cap", "chattr", "chdir", "chmod", "chown", "clone", "close", "context", "copy-file", "cpu", "crypt",
    "daemon", "dekker", "dentry", "dir", "dirmany", "dnotify", "dup", "dynlib", "epoll", "eventfd", "exec",
    "exit-group", "fallocate", "fanotify", "far-branch", "fault", "fcntl", "fiemap", "fifo", "file-ioctl", "filename",
    "flock", "flushcache", "fork", "forkheavy", "fp", "fp-error", "fpunch", "fsize", "fstat", "full", "funccall",
    "funcret", "futex", "get", "getdent", "getrandom", "goto", "handle", "hash", "hdd", "heapsort", "hrtimers",
    "hsearch", "icache", "inode-flags", "inotify", "io", "iomix", "ioprio", "io-uring", "ipsec-mb", "itimer", "jpeg",
    "judy", "kcmp", "key", "kill", "l1cache", "landlock", "lease", "link", "list", "llc-affinity", "locka", "lockbus",
    "lockf", "lockofd", "longjmp", "lsearch", "madvise", "malloc", "matrix", "matrix-3d", "mcontend", "membarrier",
    "memcpy", "memfd", "memrate", "memthrash", "mergesort", "mincore", "misaligned", "mknod", "mlock", "mlockmany",
    "mmap", "mmapaddr", "mmapfixed", "mmapfork", "mmaphuge", "mmapmany", "mprotect", "mq", "mremap", "msg", "msync",
    "msyncmany", "munmap", "mutex", "nanosleep", "netlink-task", "nice", "nop", "null", "numa", "open", "pagemove",
    "personality", "peterson", "pidfd", "pipe", "pipeherd", "pkey", "poll", "prctl", "prefetch", "priv-instr",
    "pthread", "ptrace", "pty", "qsort", "race-sched", "radixsort", "randlist", "rdrand", "readahead", "regs",
    "remap", "rename", "resched", "revio", "ring-pipe", "rlimit", "rmap", "rotate", "rseq", "schedpolicy", "seal",
    "seccomp", "secretmem", "seek", "sem", "sem-sysv", "sendfile", "session", "shellsort", "shm", "shm-sysv",
    "sigabrt", "sigchld", "sigfd", "sigfpe", "sigio", "signal", "signest", "sigpending", "sigpipe", "sigq", "sigrt",
    "sigsegv", "sigsuspend", "sigtrap", "skiplist", "sleep", "sock", "sockabuse", "sockdiag", "sockfd", "sockpair",
    "sockmany", "spawn", "sparsematrix", "splice", "stack", "stackmmap", "str", "stream", "switch", "symlink",
    "sync-file", "syncload", "syscall", "sysinfo", "tee", "timer", "timerfd", "tlb-shootdown", "touch", "tree", "tsc",
    "tsearch", "udp", "unshare", "urandom", "userfaultfd", "usersyscall", "utime", "vdso", "vecfp", "vecmath",
    "vecshuf", "vecwide", "verity", "vfork", "vforkmany", "vm", "vm-addr", "vm-rw", "vm-segv", "vm-splice", "wait",
    "waitcpu", "wcs", "x86cpuid", "x86syscall", "xattr", "yield", "zero", "zlib", "zombie",
];

/// What is wrong with the others: a stressor that does this, as root or as whoever runs stress-ng, is left out.
#[rustfmt::skip]
pub const LEFT_OUT: &[(&str, &[&str])] = &[
    ("takes the memory of the host until there is no more",
        &["bigheap", "brk", "env", "oom-pipe", "resources", "swap"]),
    ("fills file systems that are not its own, or takes their inodes",
        &["dev-shm", "dirdeep", "tmpfs"]),
    ("mounts, unmounts, or changes quotas and roots of file systems",
        &["bind-mount", "binderfs", "chroot", "loop", "quota", "ramfs", "umount"]),
    ("opens and drives whatever devices and drivers the host has",
        &["bad-ioctl", "dev", "efivar", "gpu", "ioport", "kvm", "pci", "physpage", "rawdev", "smi", "sysfs"]),
    ("sets clocks, or asks the hardware's clock for interrupts",
        &["clock", "rtc"]),
    ("switches CPUs or memory of the host off, or resets it",
        &["cpu-online", "memhotplug", "pageswap", "reboot", "watchdog"]),
    ("keeps all others from the CPUs, by priority or by thousands of threads",
        &["cyclic", "loadavg", "softlockup"]),
    ("sends to networks, changes interfaces, or has modules for protocols loaded",
        &["dccp", "icmp-flood", "netdev", "ping-sock", "rawpkt", "rawsock", "rawudp", "sctp", "tun", "udp-flood"]),
    ("makes system calls and instructions at random",
        &["enosys", "opcode", "sysbadaddr", "sysinval"]),
    ("changes names, security profiles or traces of the whole host",
        &["apparmor", "idle-page", "klog", "set", "uprobe"]),
    ("reads every file of every process, those of the watchers too",
        &["procfs"]),
    ("listens to births and exits itself, and may end that for others",
        &["netlink-proc"]),
    ("wants a program to be given",
        &["plugin"]),
];
