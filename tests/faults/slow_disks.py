"""Disks that are slow or hang in ASYNC_FLUSH: only senders wait, they are told, and it is over when the disk answers again."""
import json, os, threading, time

from rig import AFTER_A_KILL, PORT, Broker, Client, Image, check, until, verify

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


class AtWork:
    """Threads that work until they are told to end. What one of them fails with fails the scenario then."""

    def begin(self, *works):
        """Each is a function and its arguments."""
        self.failure, self.over = None, threading.Event()
        self.threads = [threading.Thread(target=self.run, args=work) for work in works]
        for thread in self.threads:
            thread.start()

    def run(self, work, *arguments):
        try:
            work(*arguments)
        except Exception as error:
            self.failure = error

    def finish(self, otherwise):
        self.over.set()
        for thread in self.threads:
            thread.join(90)
        check(self.failure is None, f"{otherwise}: {self.failure!r}")


class Others(AtWork):
    """Connections that do not send: heartbeats of a consumer, who else consumes, pulls of the newest message, committed offsets, routes,
    one after the other."""

    def __init__(self, count, newest):
        self.newest, self.slowest, self.asked = newest, {}, 0
        self.begin(*((self.ask, number) for number in range(count)))

    def ask(self, number):
        client, names = Client(timeout=60), Client(timeout=60, port=PORT + 2)
        while not self.over.is_set():
            for name, ask in (("heartbeat", lambda: client.heartbeat(f"other{number}", "g")),
                              ("members", lambda: client.ask(38, {"consumerGroup": "g"})[0]["code"]),
                              ("route", lambda: names.ask(105, {"topic": "T"})[0]["code"]),
                              ("pull", lambda: client.pull(self.newest())[0]["code"]), ("commit", lambda: client.commit(1))):
                began = time.monotonic()
                code = ask()
                check(code == 0, f"{name} is answered with {code}")
                self.asked += 1
                self.slowest[name] = max(self.slowest.get(name, 0), time.monotonic() - began)
            time.sleep(0.01)

    def end(self):
        self.finish("others are not served")
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
        # The first heartbeat of a group makes it, and its topic.
        Client().heartbeat("first", "g")
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


# A change is answered, or refused, within this.
CHANGED_SECONDS = 4.0


class Changes(AtWork):
    """Connections that change what the broker keeps in small files, one for each kind of change: a new name after each success."""

    def __init__(self, round_name, doomed=()):
        self.doomed, self.lock = list(doomed), threading.Lock()
        # Kind to: name, code, remark, seconds.
        self.answers = {}
        kinds = {"topic": self.topic, "sent": self.sent, "group": self.group, "member": self.member, "setting": self.setting}
        if doomed:
            kinds["deleted"] = self.delete
        self.begin(*((self.change, kind, f"{kind}-{round_name}", ask) for kind, ask in kinds.items()))

    def topic(self, client, name):
        fields = {"topic": name, "defaultTopic": "TBW102", "readQueueNums": 1, "writeQueueNums": 1, "perm": 6,
                  "topicFilterType": "SINGLE_TAG", "topicSysFlag": 0, "order": "false"}
        return client.ask(17, fields)[0]

    def sent(self, client, name):
        return client.send(7, topic=name)

    def group(self, client, name):
        return client.ask(200, {}, json.dumps({"groupName": name}).encode())[0]

    def member(self, client, name):
        return {"code": client.heartbeat(name, name)}

    def setting(self, client, name):
        return client.ask(25, {}, f"max_groups={20_000 + int(name.rsplit('-', 1)[1])}".encode())[0]

    def delete(self, client, name):
        return {"code": client.delete_topic(name)}

    def change(self, kind, name, ask):
        client, number = Client(timeout=60), 1
        while not self.over.is_set() and not (kind == "deleted" and number > len(self.doomed)):
            wanted = self.doomed[number - 1] if kind == "deleted" else f"{name}-{number}"
            began = time.monotonic()
            answer = ask(client, wanted)
            with self.lock:
                self.answers.setdefault(kind, []).append((wanted, answer["code"], answer.get("remark", ""), time.monotonic() - began))
            # Who was refused asks for the same again, as tools and clients do.
            number += answer["code"] == 0
            time.sleep(0.1)

    def end(self):
        self.finish("changes are not answered")
        return self.answers

    def done(self, kind):
        return [name for name, code, _, _ in self.answers.get(kind, ()) if code == 0]


def told(changes):
    """For each kind: how many were made, how many refused, the longest wait."""
    return {kind: f"{sum(code == 0 for _, code, _, _ in all_of)} + {sum(code != 0 for _, code, _, _ in all_of)} refused, "
            f"{in_milliseconds(max(took for _, _, _, took in all_of))}" for kind, all_of in changes.answers.items()}


def changing(binary, folder, command, seconds, shards, flush_mode):
    """While the disk waits as `command` says, topics and groups are made by tools, sends and consumers, topics deleted, settings changed,
    and offsets written. Others are served within a second all the while. Who asked is told in time: that it is made, or that the disk
    does not answer. What was told made is there after a kill."""
    image, broker, at_work = Image(folder, 512), None, []
    sets = [*SETS, f"flushDiskType={flush_mode}", f"shards={shards}", "flushConsumerOffsetInterval=500"]
    data, log = os.path.join(image.point, "data"), os.path.join(folder, "broker.log")
    try:
        broker = Broker(binary, data, log, *sets, expected=[SILENT])
        check(Client().send(0)["code"] == 0 and Client().heartbeat("first", "g") == 0, "a topic and a group")
        doomed = [f"doomed-{number}" for number in range(40)]
        for topic in doomed:
            check(Client().send(1, topic=topic)["code"] == 0, f"{topic} is made")
        stored = [(0, 0)]
        time.sleep(1)
        image.command(command)
        time.sleep(0.6)
        others = Others(4, lambda: 0)
        changes = Changes("waiting", doomed)
        at_work = [others, changes]
        time.sleep(seconds)
        image.command("ok")
        well = time.monotonic()
        slowest, answers = others.end(), changes.end()
        at_work = []
        print(f"  others {({name: in_milliseconds(took) for name, took in slowest.items()})} of {others.asked}; {told(changes)}")
        late = {kind: max(took for _, _, _, took in all_of) for kind, all_of in answers.items()}
        # 10: the message is written, and a slow disk has not synced it in time.
        odd = {remark for kind, all_of in answers.items() for _, code, remark, _ in all_of
               if code != 0 and remark and SILENT not in remark and (kind, code) != ("sent", 10)}
        # The offsets of the others, in a file that replaces the one before.
        offsets = os.path.join(data, "config", "consumerOffset.json")
        until("a file of offsets", 10, lambda: os.path.exists(offsets) and os.path.getmtime(offsets) > time.time() - (time.monotonic() - well))
        again = Changes("well")
        time.sleep(3)
        check(all(code == 0 for all_of in again.end().values() for _, code, _, _ in all_of), f"as before: {told(again)}")
        broker.kill()
        broker = Broker(binary, data, log, *sets, expected=[SILENT, *AFTER_A_KILL])
        client = Client()
        topics = [*changes.done("topic"), *changes.done("sent"), *again.done("topic"), *again.done("sent")]
        lost = [topic for topic in topics if client.ask(351, {"topic": topic})[0]["code"] != 0]
        lost += [topic for topic in changes.done("sent") + again.done("sent") if not client.pull(0, topic=topic)[1]]
        known = json.loads(client.ask(201, {})[1])["subscriptionGroupTable"]
        lost += [group for kind in ("group", "member") for group in changes.done(kind) + again.done(kind) if group not in known]
        lost += [topic for topic in changes.done("deleted") if client.ask(351, {"topic": topic})[0]["code"] != 17]
        check(not lost, f"{len(lost)} changes are lost: {lost[:5]}")
        check(not verify(stored), "a message is lost")
        check(all(took <= 1.0 for took in slowest.values()), f"others wait too long: {slowest}")
        check(not odd, f"refused for another reason: {sorted(odd)[:3]}")
        check(all(took <= CHANGED_SECONDS for took in late.values()), f"changes are answered late: {late}")
        check(broker.stop() == 0, "a clean stop")
    finally:
        image.command("ok")
        for one in at_work:
            one.over.set()
        if broker:
            broker.kill()
        image.close()


SCENARIOS = {}
for flush_mode, counts in (("ASYNC_FLUSH", (1, 2)), ("SYNC_FLUSH", (2,))):
    for count in counts:
        for command, seconds in (("delay-1000", 15), ("hang", 32)):
            SCENARIOS[f"changes {command} {flush_mode} shards={count}"] = (
                lambda binary, folder, command=command, seconds=seconds, count=count, flush_mode=flush_mode:
                changing(binary, folder, command, seconds, count, flush_mode))
for way, counts, delays in (("auto", (1, 2), (10, 100, 1000)), ("direct", (1, 2), (1000,))):
    for count in counts:
        for delay in delays:
            SCENARIOS[f"slow-{delay} ASYNC_FLUSH {way} shards={count}"] = (
                lambda binary, folder, delay=delay, way=way, count=count:
                waiting(binary, folder, f"delay-{delay}", 8, count, f"async_write_path={way}"))
        SCENARIOS[f"hanging ASYNC_FLUSH {way} shards={count}"] = (
            lambda binary, folder, way=way, count=count: waiting(binary, folder, "hang", 32, count, f"async_write_path={way}"))
