#!/usr/bin/env python3
"""A file system with one file, `image`, whose writes and syncs fail or wait when told to: put a block device on it.

usage: faulty_image.py MOUNT_POINT BACKING_FILE COMMAND_FILE

Speaks the kernel's FUSE protocol directly; needs root and /dev/fuse. The command file holds one word, read before each
operation: `ok`; `fail-writes`, `fail-syncs` (EIO), either also as `…-after-COUNT` (operations of that kind that still
succeed); `delay-MILLISECONDS` (each sync waits). Prints `ready`.
"""
import ctypes, errno, os, struct, sys, time

MOUNT, BACKING, COMMAND = sys.argv[1:4]
LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC = 1, 2, 3, 4, 14, 15, 16, 17, 18, 20
FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, ACCESS, INTERRUPT, DESTROY, BATCH_FORGET, FALLOCATE = (
    25, 26, 27, 28, 29, 34, 36, 38, 42, 43)
LARGEST = 1 << 20
ROOT, IMAGE = 1, 2


def main():
    backing = os.open(BACKING, os.O_RDWR)
    device = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,max_read={LARGEST}".encode()
    if libc.mount(b"faulty", MOUNT.encode(), b"fuse", 0, options) != 0:
        sys.exit(f"cannot mount: {os.strerror(ctypes.get_errno())}")
    print("ready", flush=True)
    size = os.fstat(backing).st_size
    last_command, left = "", 0

    def attributes(node):
        mode, length = (0o40755, 0) if node == ROOT else (0o100600, size)
        return struct.pack("<QQQQQQIIIIIIIIII", node, length, (length + 511) // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    while True:
        try:
            request = os.read(device, LARGEST + 65536)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            if error.errno in (errno.EINTR, errno.ENOENT):
                continue
            raise
        _, code, unique, node = struct.unpack_from("<IIQQ", request)
        body = request[40:]
        with open(COMMAND) as file:
            command = file.read().strip()
        if command != last_command:
            last_command = command
            left = int(command.rsplit("-", 1)[1]) if "-after-" in command else 0
        if left > 0:
            left -= code == (WRITE if command.startswith("fail-writes") else FSYNC)
            command = "ok"
        failure, answer = 0, b""
        if code == INIT:
            answer = struct.pack("<IIIIHHIIHHI7I", 7, 31, LARGEST, 1 << 22, 64, 48, LARGEST, 1, LARGEST // 4096, 0, 0, *[0] * 7)
        elif code in (FORGET, BATCH_FORGET, INTERRUPT):
            continue
        elif code == LOOKUP:
            if body.rstrip(b"\0") == b"image":
                answer = struct.pack("<QQQQII", IMAGE, 0, 3600, 3600, 0, 0) + attributes(IMAGE)
            else:
                failure = errno.ENOENT
        elif code in (GETATTR, SETATTR):
            answer = struct.pack("<QII", 3600, 0, 0) + attributes(node)
        elif code in (OPEN, OPENDIR):
            answer = struct.pack("<QII", 0, 1 if code == OPEN else 0, 0)
        elif code == READ:
            _, offset, length = struct.unpack_from("<QQI", body)
            answer = os.pread(backing, length, offset)
        elif code == WRITE:
            _, offset, length = struct.unpack_from("<QQI", body)
            if command.startswith("fail-writes"):
                failure = errno.EIO
            else:
                os.pwrite(backing, body[40:40 + length], offset)
                answer = struct.pack("<II", length, 0)
        elif code == FSYNC:
            if command.startswith("delay-"):
                time.sleep(int(command.split("-")[1]) / 1000)
            if command.startswith(("fail-syncs", "fail-writes")):
                failure = errno.EIO
        elif code == STATFS:
            answer = struct.pack("<QQQQQIIII24x", size // 4096, 0, 0, 2, 0, 4096, 255, 4096, 0)
        elif code in (FLUSH, RELEASE, RELEASEDIR, ACCESS, DESTROY, READDIR):
            pass
        else:
            failure = errno.ENOSYS
        try:
            os.write(device, struct.pack("<IiQ", 16 + (0 if failure else len(answer)), -failure, unique) + (b"" if failure else answer))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise


main()
