"""Disks that are slow or hang in ASYNC_FLUSH: only senders wait, they are told, and it is over when the disk answers again."""
import os, threading, time

from rig import Broker, Client, Image, check, until, verify

# What a sender may wait for any answer: `syncFlushTimeout` as it is set here, and as much again for the machine.
TOLD_SECONDS = 1.0
SETS = ["flushDiskType=ASYNC_FLUSH", "mappedFileSizeCommitLog=16 MiB", f"syncFlushTimeout={int(TOLD_SECONDS * 1000)}"]

# What the broker says of a disk that takes more than five seconds for one operation. Where a sync takes a second, one operation may
# have to wait for several that were there before it.
SILENT = "the disk does not answer"


class Senders:
    """Connections that send without a pause worth mentioning, and note what they are told and how long that takes."""

    def __init__(self, count, first):
        self.codes, self.stored, self.longest, self.times, self.over = {}, [], 0, [], threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.send, args=(first + 100_000 * number,)) for number in range(count)]
        for thread in self.threads:
            thread.start()

    def send(self, number):
        try:
            client = Client(timeout=60)
            while not self.over.is_set():
                number += 1
                began = time.monotonic()
                answer = client.send(number)
                seconds = time.monotonic() - began
                with self.lock:
                    self.codes[answer["code"]] = self.codes.get(answer["code"], 0) + 1
                    self.longest = max(self.longest, seconds)
                    self.times.append(seconds)
                    if answer["code"] == 0:
                        self.stored.append((int(answer["extFields"]["queueOffset"]), number))
                time.sleep(0.002)
        except Exception as error:
            with self.lock:
                self.codes[repr(error)] = 1

    def newest(self):
        with self.lock:
            return self.stored[-1][0] if self.stored else 0

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join(90)
        return self


class Others:
    """Connections that do not send: heartbeats, pulls of the newest message, committed offsets, one after the other."""

    def __init__(self, count, newest):
        self.newest = newest
        self.slowest, self.asked, self.failure, self.over = {}, 0, None, threading.Event()
        self.threads = [threading.Thread(target=self.ask, args=(number,)) for number in range(count)]
        for thread in self.threads:
            thread.start()

    def ask(self, number):
        try:
            client = Client(timeout=60)
            while not self.over.is_set():
                for name, ask in (("heartbeat", lambda: client.heartbeat(f"other{number}")),
                                  ("pull", lambda: client.pull(self.newest())[0]["code"]), ("commit", lambda: client.commit(1))):
                    began = time.monotonic()
                    check(ask() == 0, f"{name} is answered")
                    self.asked += 1
                    self.slowest[name] = max(self.slowest.get(name, 0), time.monotonic() - began)
                time.sleep(0.01)
        except Exception as error:
            self.failure = error

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join(90)
        check(self.failure is None, f"others are not served: {self.failure!r}")
        return self.slowest


def percentile_99(times):
    return sorted(times)[len(times) * 99 // 100]


def in_milliseconds(seconds):
    return f"{1000 * seconds:.0f} ms"


def waiting(binary, folder, command, seconds, shards, *sets):
    """The disk waits as `command` says, for so long. Everybody else is served within a second, memory and processor time are
    bounded, senders have an answer in time, and when the disk is well again it is all as before."""
    image, broker, at_work = Image(folder, 512), None, []
    try:
        broker = Broker(binary, os.path.join(image.point, "data"), os.path.join(folder, "broker.log"), *SETS, f"shards={shards}",
                        *sets, expected=() if command in ("delay-10", "delay-100") else [SILENT])
        Client().send(0)
        calm = Senders(4, 1_000_000)
        time.sleep(3)
        calm.end()
        check(set(calm.codes) == {0}, f"{calm.codes}")
        resident, worked = broker.resident(), broker.processor_seconds()
        senders = Senders(4, 2_000_000)
        others = Others(4, senders.newest)
        at_work = [senders, others]
        time.sleep(1)
        image.command(command)
        time.sleep(seconds)
        with senders.lock:
            told, grown = dict(senders.codes), (broker.resident() - resident) >> 20
        slowest = dict(others.slowest)
        image.command("ok")
        well = time.monotonic()
        senders.end()
        slowest = others.end()
        at_work = []
        worked = broker.processor_seconds() - worked
        print(f"  codes {told}, the longest wait for an answer {in_milliseconds(senders.longest)}, slowest other requests "
              f"{({name: in_milliseconds(took) for name, took in slowest.items()})} of {others.asked}, {grown} MiB more, "
              f"{worked:.1f} s of processor time")
        after = []
        until("service", 5.0, lambda: after.append(Client().send(1)) or after[-1]["code"] == 0)
        time.sleep(max(0, well + 5 - time.monotonic()))
        again = Senders(4, 3_000_000)
        time.sleep(3)
        again.end()
        before, since = percentile_99(calm.times), percentile_99(again.times)
        print(f"  p99 of sends {before * 1000:.1f} ms before, {since * 1000:.1f} ms after; {len(calm.times)} and {len(again.times)} sends")
        lines = broker.text().splitlines()
        silent = [line for line in lines if SILENT in line]
        if command == "hang":
            check(len(silent) == 1 and " ERROR " in silent[0], f"the hang is told of once: {silent}")
            check(any("the disk answers again" in line for line in lines), "and that it is over")
        check(all(took <= 1.0 for took in slowest.values()), f"others wait too long: {slowest}")
        check(set(senders.codes) <= {0, 2, 10}, f"senders are told: {senders.codes}")
        check(senders.longest <= 2 * TOLD_SECONDS, f"senders are told late: {senders.longest:.1f} s")
        check(grown < 64, "memory grows")
        check(worked < (seconds + 2) * 0.8, "it spins while it waits")
        check(set(again.codes) == {0}, f"back to normal: {again.codes}")
        check(since <= max(5 * before, 0.05), "still slow")
        stored = calm.stored + senders.stored + again.stored
        missing = verify(stored)
        check(not missing, f"{len(missing)} of {len(stored)} messages are missing")
        check(broker.stop() == 0, "a clean stop")
    finally:
        image.command("ok")
        for one in at_work:
            one.over.set()
        if broker:
            broker.kill()
        image.close()


SCENARIOS = {}
for way, counts, delays in (("auto", (1, 2), (10, 100, 1000)), ("direct", (1, 2), (1000,))):
    for count in counts:
        for delay in delays:
            SCENARIOS[f"slow-{delay} ASYNC_FLUSH {way} shards={count}"] = (
                lambda binary, folder, delay=delay, way=way, count=count:
                waiting(binary, folder, f"delay-{delay}", 8, count, f"async_write_path={way}"))
        SCENARIOS[f"hanging ASYNC_FLUSH {way} shards={count}"] = (
            lambda binary, folder, way=way, count=count: waiting(binary, folder, "hang", 32, count, f"async_write_path={way}"))
