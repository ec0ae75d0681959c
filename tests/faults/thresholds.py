"""The ratios of disk use: which files of the log go above each, what readers and senders are told, and when it is over."""
import os, time
from datetime import datetime

from disk_faults import on_ext4, on_tmpfs
from rig import Broker, Client, check, until, verify

USED, FORCIBLE, WARNING = 40, 60, 80
SEGMENT = 1 << 20
LONG_AGO_SECONDS = 80 * 3600


def percent_used(place):
    """As RocketMQ counts it, and `df`."""
    room = os.statvfs(place)
    used = room.f_blocks - room.f_bfree
    return -(-used * 100 // (used + room.f_bavail))


class Filler:
    """Whatever else is on the disk."""

    def __init__(self, place):
        self.place, self.path = place, os.path.join(place, "filler")

    def fill_to(self, percent):
        """Brings the use of the disk to just below `percent`, from above or below."""
        room = os.statvfs(self.place)
        used, have = room.f_blocks - room.f_bfree, os.path.getsize(self.path) if os.path.exists(self.path) else 0
        size = have + ((used + room.f_bavail) * percent // 100 - used) * room.f_frsize
        with open(self.path, "ab") as file:
            file.truncate(size)
            os.posix_fallocate(file.fileno(), 0, size)

    def remove(self):
        os.remove(self.path)


class Store:
    """What was stored, and what the folder of the log shows of it."""

    def __init__(self, data):
        self.folder, self.stored, self.client, self.number = os.path.join(data, "commitlog"), [], Client(), 0

    def send(self, count=1):
        """Stores messages and gives the last answer that was none of success."""
        refusal = None
        for _ in range(count):
            self.number += 1
            answer = self.client.send(self.number)
            if answer["code"] == 0:
                fields = answer["extFields"]
                self.stored.append((int(fields["queueOffset"]), self.number, int(fields["msgId"][16:], 16)))
            else:
                refusal = answer
        return refusal

    def files(self):
        return sorted(int(name) for name in os.listdir(self.folder) if len(name) == 20)

    def age(self, count):
        """Makes the oldest files old."""
        long_ago = time.time() - LONG_AGO_SECONDS
        for start in self.files()[:count]:
            os.utime(os.path.join(self.folder, f"{start:020}"), (long_ago, long_ago))

    def minimum(self):
        return int(self.client.ask(31, {"topic": "T", "queueId": 0})[0]["extFields"]["offset"])

    def check_readers(self):
        """The minimum offset is that of the first message in the oldest file, readers of older ones are sent there, and everything
        from there on can be read."""
        oldest = self.files()[0]
        first = min(offset for offset, _, physical in self.stored if physical >= oldest)
        until(f"the minimum offset {first}", 5, lambda: self.minimum() == first)
        answer, _ = self.client.pull(0)
        if first > 0:
            check(answer["code"] == 21 and int(answer["extFields"]["nextBeginOffset"]) == first, f"{answer['code']}: {answer['extFields']}")
        missing = verify([(offset, number) for offset, number, _ in self.stored])
        check(set(missing) == {offset for offset, _, _ in self.stored if offset < first}, "what is left is there")

    def stays(self, seconds):
        """No file goes for so long."""
        before, end = self.files(), time.monotonic() + seconds
        while time.monotonic() < end:
            check(self.files()[0] == before[0], f"a file goes: {before[0]}, not {self.files()[0]}")
            time.sleep(0.05)


def thresholds(binary, folder, place):
    """Old files go above the first ratio, or when asked; any above the second, and no more than needed; above the third sends
    are refused with 14 and the reason until use is below the second."""
    data, filler = os.path.join(place, "data"), Filler(place)
    another_hour = (datetime.now().hour + 12) % 24
    broker = Broker(binary, data, os.path.join(folder, "broker.log"), f"diskMaxUsedSpaceRatio={USED}",
                    f"diskSpaceCleanForciblyRatio={FORCIBLE}", f"diskSpaceWarningLevelRatio={WARNING}", f"deleteWhen={another_hour:02}",
                    "cleanResourceInterval=100", "deleteCommitLogFilesInterval=0", "deleteFileBatchMax=1",
                    expected=["the disk is too full: sends are refused"])
    try:
        store = Store(data)
        check(store.send(3_000) is None, "sends are taken")
        # Queue files and the durable point follow within a second or two; only what they cover may go.
        time.sleep(3)
        check(percent_used(place) < USED - 2 and store.files()[0] == 0 and len(store.files()) > 11, f"{percent_used(place)} %, {store.files()}")
        store.age(2)
        store.stays(1.5)
        check(store.client.ask(329, {})[0]["code"] == 0, "it may be asked for")
        until("the removal of old files", 5, lambda: store.files()[0] == 2 * SEGMENT)
        store.stays(1)
        store.check_readers()

        filler.fill_to(USED + 10)
        store.stays(1.5)
        store.age(3)
        until("the removal of old files", 5, lambda: store.files()[0] == 5 * SEGMENT)
        store.stays(1)
        check(percent_used(place) > USED, f"it is not the use that has ended it: {percent_used(place)} %")
        check(store.send() is None, "sends are taken")
        store.check_readers()

        filler.fill_to(FORCIBLE + 3)
        until("room", 5, lambda: percent_used(place) <= FORCIBLE)
        oldest = store.files()[0]
        check(5 * SEGMENT < oldest <= 10 * SEGMENT, f"files go, as many as needed: {store.files()}")
        store.stays(1)
        check(store.send() is None, "sends are taken")
        store.check_readers()

        filler.fill_to(WARNING + 5)
        until("code 14", 2, lambda: (store.send() or {"code": 0})["code"] == 14)
        remark = store.send()["remark"]
        check("disk is full" in remark and f"{WARNING} %" in remark and f"{FORCIBLE} %" in remark, remark)
        current = max(physical for _, _, physical in store.stored) // SEGMENT * SEGMENT
        until("the removal of all but the last file", 5, lambda: store.files()[0] == current)
        check(store.client.commit(7) == 0 and int(store.client.committed()) == 7, "offsets are committed")
        store.check_readers()
        filler.fill_to(WARNING - 5)
        time.sleep(1.5)
        check(store.send()["code"] == 14, "sends are refused until use is below the second ratio")
        filler.remove()
        freed = time.monotonic()
        until("service", 1.0, lambda: store.send() is None)
        print(f"  served {1000 * (time.monotonic() - freed):.0f} ms after there was room")
        check(store.send(500) is None, "sends are taken")
        store.check_readers()
        check(broker.stop() == 0, "a clean stop")
        broker = Broker(binary, data, os.path.join(folder, "broker.log"))
        store.client = Client()
        store.check_readers()
        check(broker.stop() == 0, "a clean stop")
    finally:
        broker.kill()


SCENARIOS = {f"thresholds-{name}": lambda binary, folder, on=on: on(thresholds, binary, folder)
             for name, on in (("tmpfs", on_tmpfs), ("ext4", on_ext4))}
