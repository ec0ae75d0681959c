#!/usr/bin/env python3
"""A file system with one file, `image`, whose writes and syncs fail or wait when told to: put a block device on it.

usage: faulty_image.py MOUNT_POINT BACKING_FILE COMMAND_FILE [SEED]

Speaks the kernel's FUSE protocol directly; needs root and /dev/fuse. The command file holds one word, read before each
operation: `ok`; `fail-writes`, `fail-syncs` (EIO), either also as `…-after-COUNT` (operations of that kind that still
succeed); `delay-MILLISECONDS` (each sync waits). Prints `ready`.

With a SEED the disk can lose its power, and then loses what was written since the last completed sync. `cut` takes the power at
once, `cut-after-COUNT` after COUNT writes and syncs, `cut-at-sync-after-COUNT` instead of a later sync: a line `cut TIME` with the monotonic clock's seconds is printed, nothing is
answered until the command is `dead`, and from then on writes and syncs fail. When the file system is taken down after that, the
image is made what the disk would hold: everything synced, and of the rest nothing or a part that the seed chooses. A line
`kept KEPT of COUNT writes` says how much. `lie`: syncs succeed and keep nothing; then all of it is lost.

It ends when it is taken down (umount), not on SIGTERM: who started it must first unmount what lies on the image.
"""
import ctypes, errno, os, random, select, signal, struct, sys, time

signal.signal(signal.SIGTERM, signal.SIG_IGN)

MOUNT, BACKING, COMMAND = sys.argv[1:4]
SEED = int(sys.argv[4]) if len(sys.argv) > 4 else None
LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC = 1, 2, 3, 4, 14, 15, 16, 17, 18, 20
FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, ACCESS, INTERRUPT, DESTROY, BATCH_FORGET, FALLOCATE = (
    25, 26, 27, 28, 29, 34, 36, 38, 42, 43)
LARGEST = 1 << 20
ROOT, IMAGE = 1, 2


def command_now():
    with open(COMMAND) as file:
        return file.read().strip()


class Volatile:
    """What was written and not synced: for each write its offset, what was there before, and what is there now."""

    def __init__(self, backing):
        self.backing, self.writes, self.is_cut, self.has_lied = backing, [], False, False

    def write(self, offset, new):
        self.writes.append((offset, os.pread(self.backing, len(new), offset), bytes(new)))

    def cut(self):
        """The power goes: nothing is answered until everybody who could see an answer is gone."""
        self.is_cut = True
        print(f"cut {time.monotonic()}", flush=True)
        while command_now() != "dead":
            time.sleep(0.002)

    def settle(self):
        """Makes the image what the disk holds after the cut."""
        for offset, old, _ in reversed(self.writes):
            os.pwrite(self.backing, old, offset)
        chance, kept = random.Random(SEED), 0
        pattern = chance.choice(["nothing", "nothing", "beginning", "some writes", "some blocks", "some sectors"])
        pattern = "nothing" if self.has_lied else pattern
        last = chance.randrange(len(self.writes) + 1)
        for number, (offset, _, new) in enumerate(self.writes):
            if pattern == "nothing" or pattern == "beginning" and number > last:
                break
            if pattern == "some writes" and chance.random() < 0.5:
                continue
            # Disks keep sectors whole, nothing larger.
            size = {"some blocks": 4096, "some sectors": 512}.get(pattern, len(new))
            if pattern == "beginning" and number == last:
                new, size = new[:chance.randrange(0, len(new) + 1, 512)], max(len(new), 1)
            for at in range(0, len(new), size):
                if size == len(new) or pattern == "beginning" or chance.random() < 0.5:
                    os.pwrite(self.backing, new[at:at + size], offset + at)
            kept += 1
        print(f"kept {kept} of {len(self.writes)} writes", flush=True)


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
    volatile = Volatile(backing) if SEED is not None else None
    arrivals = select.poll()
    arrivals.register(device, select.POLLIN)

    def attributes(node):
        mode, length = (0o40755, 0) if node == ROOT else (0o100600, size)
        return struct.pack("<QQQQQQIIIIIIIIII", node, length, (length + 511) // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    while True:
        request = None
        try:
            if volatile is None or arrivals.poll(5):
                request = os.read(device, LARGEST + 65536)
        except OSError as error:
            if error.errno == errno.ENODEV:
                break
            if error.errno in (errno.EINTR, errno.ENOENT):
                continue
            raise
        command = command_now()
        if command != last_command:
            last_command = command
            left = int(command.rsplit("-", 1)[1]) if "-after-" in command else 0
        if request is None:
            if command == "cut" and not volatile.is_cut:
                volatile.cut()
            continue
        while command == "hang":
            time.sleep(0.005)
            command = last_command = command_now()
        _, code, unique, node = struct.unpack_from("<IIQQ", request)
        body = request[40:]
        if left > 0:
            counted = {"fail-writes": (WRITE,), "fail-syncs": (FSYNC,), "cut": (WRITE, FSYNC), "cut-at-sync": (FSYNC,)}
            left -= code in counted[command.rsplit("-after-", 1)[0]]
            command = "ok"
        if command.startswith("cut-at-sync") and code != FSYNC:
            command = "ok"
        if volatile and not volatile.is_cut and command.startswith("cut"):
            volatile.cut()
        if volatile and volatile.is_cut:
            command = "fail-writes"
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
            # Direct: what a reader gets comes from here, and never from pages that the kernel kept.
            answer = struct.pack("<QII", 0, 1 if code == OPEN else 0, 0)
        elif code == READ:
            _, offset, length = struct.unpack_from("<QQI", body)
            answer = os.pread(backing, length, offset)
        elif code == WRITE:
            _, offset, length = struct.unpack_from("<QQI", body)
            if command.startswith("fail-writes"):
                failure = errno.EIO
            else:
                if volatile:
                    volatile.write(offset, body[40:40 + length])
                os.pwrite(backing, body[40:40 + length], offset)
                answer = struct.pack("<II", length, 0)
        elif code == FSYNC:
            if command.startswith("delay-"):
                time.sleep(int(command.split("-")[1]) / 1000)
            if command.startswith(("fail-syncs", "fail-writes")):
                failure = errno.EIO
            elif volatile and command == "lie":
                volatile.has_lied = True
            elif volatile:
                volatile.writes.clear()
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
    if volatile and volatile.is_cut:
        volatile.settle()


main()
