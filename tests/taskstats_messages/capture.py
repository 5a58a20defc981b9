#!/usr/bin/env python3
"""Captures the kernel's generic netlink messages that the tests of src/kernel/taskstats.rs read.

Run as root, here: python3 capture.py <name of the kernel>. Of the answer it prints what the tests expect.
"""
import os, socket, struct, subprocess, sys

GENERIC, CTRL = 16, 16


def ask(sock, kind, seq, command, attribute, value):
    attribute = struct.pack("=HH", 4 + len(value), attribute) + value + bytes(-len(value) % 4)
    sock.send(struct.pack("=IHHIIBBH", 20 + len(attribute), kind, 1, seq, 0, command, 1, 0) + attribute)
    return sock.recv(65536)


def save(what, message):
    with open(f"{sys.argv[1]}-{what}.bin", "wb") as file:
        file.write(message)


sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, GENERIC)
family = ask(sock, CTRL, 1, 3, 2, b"TASKSTATS\0")
save("family", family)
# Its second attribute; the first is the name, padded to 16 bytes.
length, kind, number = struct.unpack_from("=HHH", family, 20 + 16)
assert (length, kind) == (6, 1)
print("family", number)
save("no-family", ask(sock, CTRL, 2, 3, 2, b"NO_SUCH_FAMILY\0"))

# Something that has waited: a line there and back, 100 times.
cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
for _ in range(100):
    cat.stdin.write(b"x\n")
    cat.stdout.read(2)
answer = ask(sock, number, 3, 1, 2, struct.pack("=I", cat.pid))
save("answer", answer)
print("tgid", cat.pid)
stats = answer[answer.index(struct.pack("=HH", 564, 3)) + 4 :]  # version 16: 560 bytes
print("version", *struct.unpack_from("=H", stats))
print("cpu", *struct.unpack_from("=QQ", stats, 16), "switches", *struct.unpack_from("=QQ", stats, 272))
print(*[line for line in open(f"/proc/{cat.pid}/status") if "switches" in line], end="")
print("schedstat", open(f"/proc/{cat.pid}/schedstat").read(), end="")
cat.stdin.close()
cat.wait()
save("gone", ask(sock, number, 4, 1, 2, struct.pack("=I", cat.pid)))
os.seteuid(65534)  # and with it the capability
refused = ask(sock, number, 5, 1, 2, struct.pack("=I", 1))
os.seteuid(0)
save("refused", refused)
