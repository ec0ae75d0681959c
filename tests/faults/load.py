"""Clients with many requests under way, and what they were promised: producers, a consumer, and a reader of everything.

The number of a message determines its body. It is unique in a store: producers count up from a first number of their own, and
100,000 apart."""
import json, random, socket, struct, threading, time

from rig import PORT, check

TOPIC, QUEUES = "T", 4


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


def pull_fields(topic, queue, offset):
    return {"consumerGroup": "g", "topic": topic, "queueId": str(queue), "queueOffset": str(offset), "maxMsgNums": "32",
            "sysFlag": "4", "commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": "*", "subVersion": "0",
            "expressionType": "TAG"}


def messages(data, topic, queue, offset):
    """The numbers and physical offsets in an answer to a pull at `offset`, checked to be what was sent, without a gap."""
    at, found = 0, []
    while at < len(data):
        size, = struct.unpack_from(">I", data, at)
        queue_offset, physical = struct.unpack_from(">qq", data, at + 20)
        length, = struct.unpack_from(">I", data, at + 84)
        text = data[at + 88:at + 88 + length]
        check(queue_offset == offset, f"{topic}/{queue}: {queue_offset} comes where {offset} should")
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
    def __init__(self, first, window, topic, queues):
        self.next, self.window, self.topic, self.queues = first, window, topic, queues
        self.chance, self.acknowledged, self.codes = random.Random(first), [], {}
        super().__init__()

    def work(self, link):
        under_way = {}
        while True:
            frames = b""
            while len(under_way) < self.window:
                queue = self.chance.randrange(self.queues)
                fields = {"a": "cut", "b": self.topic, "c": "TBW102", "d": str(self.queues), "e": str(queue), "f": "0",
                          "g": str(int(time.time() * 1000)), "h": "0", "i": "", "j": "0", "k": "false", "m": "false"}
                opaque, frame = link.request(310, fields, body_of(self.next))
                under_way[opaque] = (queue, self.next)
                frames += frame
                self.next += 1
            if frames:
                link.socket.sendall(frames)
            for header, _ in link.answers():
                now = time.monotonic()
                queue, number = under_way.pop(header["opaque"])
                self.codes[header["code"]] = self.codes.get(header["code"], 0) + 1
                if header["code"] == 0:
                    fields = header["extFields"]
                    place = (self.topic, queue, int(fields["queueOffset"]))
                    self.acknowledged.append((place, number, now, int(fields["msgId"][16:32], 16)))


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
                        is_end = header["code"] == 2 and "is stopping" in header.get("remark", "")
                        check(is_end or header["code"] in (17, 19), f"pull of {topic}/{queue} at {offset}: {header}")
            if is_idle:
                time.sleep(0.002)


def read_everything(topics):
    """All messages by place."""
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
    return survivors, state
