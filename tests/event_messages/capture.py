#!/usr/bin/env python3
"""Captures the kernel's messages that the tests of src/kernel/exit_records.rs and proc_connector.rs read.

Run as root, here: python3 capture.py <name of the kernel>. It prints what the tests expect.
"""
import os, signal, socket, struct, subprocess, sys

CONNECTOR, GENERIC = 11, 16
KERNEL = sys.argv[1]


def save(what, message):
    with open(f"{KERNEL}-{what}.bin", "wb") as file:
        file.write(message)


def drain(sock):
    try:
        while True:
            yield sock.recv(65536, socket.MSG_DONTWAIT)
    except BlockingIOError:
        pass


def control(op, ack):
    sock = connector
    sock.send(struct.pack("=IHHIIIIIIHHI", 40, 3, 0, 0, 0, 1, 1, 0, ack, 4, 0, op))


def register(attribute):
    cpus = open("/sys/devices/system/cpu/possible").read().strip().encode() + b"\0"
    value = struct.pack("=HH", 4 + len(cpus), attribute) + cpus + bytes(-len(cpus) % 4)
    exits.send(struct.pack("=IHHIIBBH", 20 + len(value), family, 5, 0, 0, 1, 1, 0) + value)


def python(text):
    return subprocess.Popen([sys.executable, "-c", "import ctypes, os, threading\n" + text])


def u32(message, at):
    return struct.unpack_from("=I", message, at)[0]


exits = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, GENERIC)
name = b"TASKSTATS\0\0\0"
exits.send(struct.pack("=IHHIIBBHHH", 36, 16, 1, 0, 0, 3, 1, 0, 14, 2) + name)
family = struct.unpack_from("=H", exits.recv(65536), 40)[0]
register(3)
save("registered", exits.recv(65536))
connector = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, CONNECTOR)
connector.bind((0, 1))
control(1, 41)
save("acknowledged", connector.recv(65536))

# Alone; it renames itself.
alone = python("ctypes.CDLL(None).prctl(15, b'renamed', 0, 0, 0)")
alone.wait()
# Three threads that exit before their process.
threads = python("""
def burn():
    for n in range(2000000): pass
for t in [threading.Thread(target=burn) for _ in range(3)]: t.start(); t.join()
""")
threads.wait()
# Another thread than the leader execs.
execs = python("threading.Thread(target=lambda: os.execv('/bin/true', ['true'])).start()")
execs.wait()
# Reaped by itself.
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
reaped = os.fork()
if reaped == 0:
    os._exit(0)
try:
    os.wait()
except ChildProcessError:
    pass
signal.signal(signal.SIGCHLD, signal.SIG_DFL)

print("family", family, "pids", os.getpid(), alone.pid, threads.pid, execs.pid, reaped)
STATS = 36  # behind nlmsghdr, genlmsghdr, the aggregate's nlattr, the pid, and the struct's own nlattr
seen = {alone.pid: [], threads.pid: [], execs.pid: []}
for message in drain(exits):
    tgid = u32(message, STATS + 368)
    if tgid in seen:
        seen[tgid].append(message)
save("exit", seen[alone.pid][-1])
save("exit-thread", seen[threads.pid][0])
save("exit-threads", seen[threads.pid][-1])
save("exit-execed", next(m for m in seen[execs.pid] if u32(m, STATS + 128) == execs.pid))
for what in ["exit", "exit-thread", "exit-threads", "exit-execed"]:
    message = open(f"{KERNEL}-{what}.bin", "rb").read()
    print(what, len(message), "flag", message[STATS + 8], "pid", u32(message, STATS + 128), end=" ")
    print("ppid", u32(message, STATS + 132), "tgetime", *struct.unpack_from("=Q", message, STATS + 376), end=" ")
    for at in [STATS, STATS + 560 + 16][: len(message) // 500]:
        print("cpu", *struct.unpack_from("=Q", message, at + 72), "ticks", *struct.unpack_from("=QQ", message, at + 152))
        print("   ", *struct.unpack_from("=6Q", message, at + 16), *struct.unpack_from("=QQ", message, at + 272))

EVENTS = {1: "fork", 2: "exec", 0x200: "comm", 0x80000000: "exited"}
saved = set()
for message in drain(connector):
    what = EVENTS.get(u32(message, 36), "")
    pids = struct.unpack_from("=6I", message, 52)
    if what == "fork" and pids[3] == threads.pid and pids[2] != pids[3]:
        what = "fork-thread"
    elif what == "exited" and pids[1] == reaped:
        what = "exited-reaped"
    elif alone.pid not in pids[: 4 if what == "fork" else 2]:
        continue
    if what not in saved:
        saved.add(what)
        save(what, message)
        print(what, len(message), *pids)
control(2, 43)
register(4)
