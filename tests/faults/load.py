"""Clients with many requests under way, and what they were promised: producers, a consumer, groups that commit offsets, and a reader
of everything.

The number of a message determines its body. It is unique in a store: producers count up from a first number of their own, and
100,000 apart. Now and then one sends what must be refused before it is written; nothing of that may ever be read."""
import json, random, socket, struct, threading, time

from rig import PORT, check

TOPIC, QUEUES = "T", 4
# Begins the body of a message that must be refused.
NEVER_STORED = b"this must never be stored"
# What makes a send one of these (other fields, and how much larger the body is), and the code of the refusal.
FAULTS = [({"e": "64"}, 0, 29), ({"i": "DELAY\x013\x02"}, 0, 13), ({"b": "unknown", "c": "no-such-template"}, 0, 17),
          ({"i": "TRAN_MSG\x01true\x02"}, 0, 13), ({"b": "SCHEDULE_TOPIC_XXXX", "e": "0"}, 0, 16),
          ({"i": "KEYS\x01a\x00b\x02"}, 0, 13), ({}, 64 << 10, 13)]
FAULT_EVERY = 16
# Groups that commit: the one by requests, the other along with its pulls.
REQUESTING, CARRYING = "commits-by-request", "commits-by-pull"


def size_of(number):
    mixed = number * 2654435761 & 0xFFFFFFFF
    spread = mixed >> 8
    return 10 * (1 + (spread % 3000 if mixed % 20 == 0 else spread % 400 if mixed % 20 < 5 else spread % 20))


def body_of(number):
    return b"%010d" % number * (size_of(number) // 10)


class Link:
    """A connection with many requests under way."""

    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", PORT), timeout=20)
        self.input, self.opaque = bytearray(), 0

    def request(self, code, fields, body=b""):
        self.opaque += 1
        header = json.dumps({"code": code, "language": "OTHER", "version": 479, "opaque": self.opaque, "flag": 0,
                             "extFields": fields}).encode()
        return self.opaque, struct.pack(">II", 4 + len(header) + len(body), len(header)) + header + body

    def answers(self):
        """All whole answers that have arrived; waits for the first."""
        found = []
        while not found:
            more = self.socket.recv(1 << 18)
            if not more:
                raise ConnectionError("closed")
            self.input += more
            at = 0
            while len(self.input) - at >= 4:
                length, = struct.unpack_from(">I", self.input, at)
                if len(self.input) - at - 4 < length:
                    break
                size = struct.unpack_from(">I", self.input, at + 4)[0] & 0xFFFFFF
                header = json.loads(self.input[at + 8:at + 8 + size])
                found.append((header, bytes(self.input[at + 8 + size:at + 4 + length])))
                at += 4 + length
            del self.input[:at]
        return found


def pull_fields(topic, queue, offset, group="g", commits=False):
    return {"consumerGroup": group, "topic": topic, "queueId": str(queue), "queueOffset": str(offset), "maxMsgNums": "32",
            "sysFlag": "5" if commits else "4", "commitOffset": str(offset if commits else 0), "suspendTimeoutMillis": "0",
            "subscription": "*", "subVersion": "0", "expressionType": "TAG"}


def is_last_word(header):
    """Whether this is what a broker that stops says instead of an answer."""
    remark = header.get("remark", "")
    return header["code"] == 2 and ("is stopping" in remark or "shutting down" in remark)


def messages(data, topic, queue, offset):
    """The numbers and physical offsets in an answer to a pull at `offset`, checked to be what was sent, without a gap."""
    at, found = 0, []
    while at < len(data):
        size, = struct.unpack_from(">I", data, at)
        queue_offset, physical = struct.unpack_from(">qq", data, at + 20)
        length, = struct.unpack_from(">I", data, at + 84)
        text = data[at + 88:at + 88 + length]
        check(queue_offset == offset, f"{topic}/{queue}: {queue_offset} comes where {offset} should")
        check(not text.startswith(NEVER_STORED), f"a message that had to be refused is at {topic}/{queue}/{queue_offset}")
        number = int(text[:10])
        check(text == body_of(number), f"wrong bytes at {topic}/{queue}/{queue_offset}")
        found.append((number, physical))
        at += size
        offset += 1
    return found


class Worker(threading.Thread):
    """Works until the broker is gone. An error that is not that is kept for whoever joins."""

    def __init__(self):
        super().__init__(daemon=True)
        self.error = None
        self.start()

    def run(self):
        try:
            self.work(Link())
        except (ConnectionError, BrokenPipeError):
            pass
        except Exception as error:
            self.error = error

    def finish(self):
        self.join(60)
        check(not self.is_alive(), "a client waits for ever")
        if self.error:
            raise self.error


class Producer(Worker):
    """Its sends end as acknowledged, as refused before anything was written (2, 14), or nobody knows (10, or no answer)."""

    def __init__(self, first, window, topic, queues):
        self.next, self.window, self.topic, self.queues = first, window, topic, queues
        self.chance, self.acknowledged, self.codes = random.Random(first), [], {}
        self.refused, self.faults = [], 0
        super().__init__()

    def frame(self, link):
        """The next send, and what is to be known of it: its queue, its number, and the code that a faulty one must be refused with."""
        queue, number = self.chance.randrange(self.queues), self.next
        fields = {"a": "cut", "b": self.topic, "c": "TBW102", "d": str(self.queues), "e": str(queue), "f": "0",
                  "g": str(int(time.time() * 1000)), "h": "0", "i": "", "j": "0", "k": "false", "m": "false"}
        body, code = body_of(number), None
        self.next += 1
        if number % FAULT_EVERY == FAULT_EVERY - 1:
            other, larger, code = FAULTS[number // FAULT_EVERY % len(FAULTS)]
            fields, body = {**fields, **other}, NEVER_STORED + body + b"x" * larger
        opaque, frame = link.request(310, fields, body)
        return opaque, frame, (queue, number, code)

    def work(self, link):
        under_way = {}
        while True:
            frames = b""
            while len(under_way) < self.window:
                opaque, frame, sent = self.frame(link)
                under_way[opaque] = sent
                frames += frame
            if frames:
                link.socket.sendall(frames)
            for header, _ in link.answers():
                self.note(*under_way.pop(header["opaque"]), header, time.monotonic())

    def note(self, queue, number, fault_code, header, now):
        code = header["code"]
        if fault_code is not None:
            # 14: a broker that stops looks no further.
            check(code in (fault_code, 14), f"a send that must be refused with {fault_code}: {header}")
            self.faults += 1
            return
        self.codes[code] = self.codes.get(code, 0) + 1
        if code == 0:
            fields = header["extFields"]
            place = (self.topic, queue, int(fields["queueOffset"]))
            self.acknowledged.append((place, number, now, int(fields["msgId"][16:32], 16)))
        elif code in (2, 14):
            self.refused.append(number)


class Consumer(Worker):
    def __init__(self, ends):
        self.next, self.shown = dict(ends), []
        super().__init__()

    def work(self, link):
        while True:
            asked = {}
            for (topic, queue), offset in self.next.items():
                opaque, frame = link.request(11, pull_fields(topic, queue, offset))
                asked[opaque] = (topic, queue, offset)
                link.socket.sendall(frame)
            is_idle = True
            while asked:
                for header, data in link.answers():
                    topic, queue, offset = asked.pop(header["opaque"])
                    if header["code"] == 0:
                        is_idle, now = False, time.monotonic()
                        found = messages(data, topic, queue, offset)
                        self.shown += [((topic, queue, offset + index), number, now, physical)
                                       for index, (number, physical) in enumerate(found)]
                        self.next[topic, queue] = offset + len(found)
                    else:
                        check(is_last_word(header) or header["code"] in (17, 19), f"pull of {topic}/{queue} at {offset}: {header}")
            if is_idle:
                time.sleep(0.002)


class Committer(Worker):
    """A group that goes on from where the broker says it was, and commits what it has read. It commits alone, so what it has
    committed is what is told next, if it asks."""

    def __init__(self, group, told, asks=True):
        self.group, self.asks, self.next = group, asks, {queue: offset or 0 for queue, offset in told.items()}
        # In the order in which they were made: queue, offset, whether the broker has confirmed it.
        self.commits = []
        super().__init__()

    def ask(self, link, code, fields):
        _, frame = link.request(code, fields)
        link.socket.sendall(frame)
        (header, data), = link.answers()
        if is_last_word(header):
            raise ConnectionError("stopping")
        return header, data

    def commit(self, link, code, queue, offset, fields):
        self.commits.append((queue, offset, False))
        answer = self.ask(link, code, fields)
        self.commits.append((queue, offset, True))
        return answer

    def work(self, link):
        while True:
            for queue, offset in self.next.items():
                self.go_on(link, queue, offset)
            time.sleep(0.005)

    def go_on(self, link, queue, offset):
        carries, committed = self.group == CARRYING, offset
        fields = pull_fields(TOPIC, queue, offset, self.group, carries)
        header, data = self.commit(link, 11, queue, offset, fields) if carries else self.ask(link, 11, fields)
        check(header["code"] in (0, 17, 19), f"pull of {TOPIC}/{queue} at {offset}: {header}")
        if header["code"] == 17:
            # The first send makes the topic.
            return
        self.next[queue] += len(messages(data, TOPIC, queue, offset)) if header["code"] == 0 else 0
        where = {"consumerGroup": self.group, "topic": TOPIC, "queueId": str(queue)}
        if not carries:
            committed = self.next[queue]
            header, _ = self.commit(link, 15, queue, committed, {**where, "commitOffset": str(committed)})
            check(header["code"] == 0, f"commit: {header}")
        if not self.asks:
            return
        header, _ = self.ask(link, 14, {**where, "setZeroIfNotFound": "false"})
        told = header.get("extFields", {}).get("offset")
        check(told == str(committed), f"{self.group} has committed {committed} in {TOPIC}/{queue}, and is told {header}")


class Offsets:
    """What groups have committed, and whether starts tell of it what they may: an offset that was committed, within the queue, and
    never behind what a start before has told. After a stop in order it is the last one that was confirmed, or one that was under way
    then; when a power cut has taken the end of a queue, it may be that end."""

    def __init__(self):
        self.told = {group: dict.fromkeys(range(QUEUES)) for group in (REQUESTING, CARRYING)}
        self.made, self.confirmed, self.count = {}, {}, 0

    def begin(self, is_quiet=False):
        """Starts the groups, or the one that leaves its offsets where its pulls have brought them: any request about offsets fetches those."""
        if is_quiet:
            return [Committer(CARRYING, self.told[CARRYING], asks=False)]
        return [Committer(group, told) for group, told in self.told.items()]

    def harvest(self, worker):
        for queue, offset, is_confirmed in worker.commits:
            self.made.setdefault((worker.group, queue), set()).add(offset)
            if is_confirmed:
                self.confirmed[worker.group, queue] = offset
                self.count += 1

    def judge(self, ends, in_order=False, may_be_lowered=False):
        link = Link()
        for group, offsets in self.told.items():
            for queue in offsets:
                fields = {"consumerGroup": group, "topic": TOPIC, "queueId": str(queue), "setZeroIfNotFound": "false"}
                _, frame = link.request(14, fields)
                link.socket.sendall(frame)
                (header, _), = link.answers()
                check(header["code"] in (0, 22), f"{header}")
                now = int(header["extFields"]["offset"]) if header["code"] == 0 else None
                self.judge_one(group, queue, now, ends[TOPIC, queue], in_order, may_be_lowered)
        self.confirmed = {}

    def judge_one(self, group, queue, now, end, in_order, may_be_lowered):
        before, confirmed = self.told[group][queue], self.confirmed.get((group, queue))
        what = f"{group} in {TOPIC}/{queue} is told {now}, before {before}, confirmed {confirmed}, end {end}"
        floor = max((offset for offset in (before, confirmed if in_order else None) if offset is not None), default=None)
        is_lowered = may_be_lowered and now == end
        if floor is not None:
            check(now is not None and (now >= floor or is_lowered), f"a committed offset fell: {what}")
        if now is not None:
            check(now in self.made.get((group, queue), ()) or is_lowered, f"an offset that was never committed: {what}")
            check(now <= end, f"an offset beyond the end: {what}")
            self.made.setdefault((group, queue), set()).add(now)
        self.told[group][queue] = now


def check_nothing_elsewhere():
    """Where sends were refused nothing is."""
    link = Link()
    for topic, queue in ((TOPIC, 64), ("unknown", 0), ("SCHEDULE_TOPIC_XXXX", 0)):
        _, frame = link.request(30, {"topic": topic, "queueId": str(queue)})
        link.socket.sendall(frame)
        (header, _), = link.answers()
        check(header["code"] == 0 and header["extFields"]["offset"] == "0", f"{topic}/{queue} was refused everything: {header}")


def read_everything(topics, refused=()):
    """All messages by place. Those that were refused are not among them."""
    link, survivors, senders = Link(), {}, {}
    state = {(topic, queue): 0 for topic, queues in topics.items() for queue in range(queues)}
    asked = {}

    def ask(topic, queue):
        opaque, frame = link.request(11, pull_fields(topic, queue, state[topic, queue]))
        asked[opaque] = (topic, queue)
        link.socket.sendall(frame)

    for topic, queue in state:
        ask(topic, queue)
    while asked:
        for header, data in link.answers():
            topic, queue = asked.pop(header["opaque"])
            offset = state[topic, queue]
            if header["code"] != 0:
                check(header["code"] in (17, 19), f"pull of {topic}/{queue} at {offset}: {header}")
                continue
            for number, physical in messages(data, topic, queue, offset):
                sender = (topic, queue, number // 100_000)
                check(senders.get(sender, -1) < number, f"{number} comes after {senders.get(sender)} in {topic}/{queue}")
                senders[sender] = number
                survivors[topic, queue, state[topic, queue]] = (number, physical)
                state[topic, queue] += 1
            ask(topic, queue)
    numbers = [number for number, _ in survivors.values()]
    check(len(set(numbers)) == len(numbers), "a message is there twice")
    check(not set(numbers) & set(refused), f"refused, and yet there: {sorted(set(numbers) & set(refused))[:3]}")
    check_nothing_elsewhere()
    return survivors, state
