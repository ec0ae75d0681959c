package interop;

import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageId;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.ResponseCode;

/** Scenarios of producers: every way to send, and what must arrive unchanged. */
final class SendScenarios {
    private static final int MAX_BODY_BYTES = 4 * 1024 * 1024;

    private SendScenarios() {
    }

    static void register(InteropSuite.Registry registry) {
        registry.addCore("send-sync", SendScenarios::sendSync);
        registry.addCore("send-async", SendScenarios::sendAsync);
        registry.addCore("send-oneway", SendScenarios::sendOneway);
        registry.addCore("send-batch-1000", SendScenarios::sendBatch);
        registry.addCore("send-compressed-3mib", SendScenarios::sendCompressed);
        registry.add("send-body-limit", SendScenarios::sendBodyLimit);
        registry.add("send-names", SendScenarios::sendNames);
        registry.addCore("send-properties", SendScenarios::sendProperties);
        registry.add("send-selector", SendScenarios::sendSelector);
        registry.add("send-queue-out-of-range", SendScenarios::sendQueueOutOfRange);
    }

    /** All fields of the answer are right, and the stored record holds what was sent and by whom. */
    private static void sendSync(Scope scope) throws Exception {
        String topic = scope.topic(4);
        InetSocketAddress broker = address(scope.servers.broker);
        long previousPhysical = -1;
        for (int i = 0; i < 20; i++) {
            int queueId = i % 4;
            Message message = new Message(topic, "TagA", "K" + i, Scope.bytes("body " + i));
            message.setFlag(7);
            long before = System.currentTimeMillis();
            SendResult result = scope.servers.producer.send(message, scope.queue(topic, queueId));
            Check.equal(SendStatus.SEND_OK, result.getSendStatus(), "status");
            Check.equal(scope.queue(topic, queueId), result.getMessageQueue(), "message queue");
            Check.equal((long) (i / 4), result.getQueueOffset(), "queue offset");
            Check.equal(message.getProperty(MessageConst.PROPERTY_UNIQ_CLIENT_MESSAGE_ID_KEYIDX), result.getMsgId(), "msgId");
            Check.equal(result.getMsgId(), result.getTransactionId(), "transactionId");
            Check.equal("DefaultRegion", result.getRegionId(), "regionId");
            Check.that(result.isTraceOn(), "traceOn is false");
            Check.equal(null, result.getRecallHandle(), "recallHandle");
            Check.equal(32, result.getOffsetMsgId().length(), "length of the offset msgId");
            MessageId id = MessageDecoder.decodeMessageId(result.getOffsetMsgId());
            Check.equal(broker, id.getAddress(), "address in the offset msgId");
            Check.that(id.getOffset() > previousPhysical, "physical offsets do not rise");
            previousPhysical = id.getOffset();

            Wire.Pulled pulled = pullOne(scope, topic, queueId, result.getQueueOffset());
            MessageExt stored = pulled.messages().get(0);
            Check.equal(topic, stored.getTopic(), "stored topic");
            Check.equal(queueId, stored.getQueueId(), "stored queue");
            Check.equal(result.getQueueOffset(), stored.getQueueOffset(), "stored queue offset");
            Check.equal(id.getOffset(), stored.getCommitLogOffset(), "stored physical offset");
            Check.equal(7, stored.getFlag(), "flag");
            Check.equal(0, stored.getSysFlag(), "sysFlag");
            Check.equal(0, stored.getReconsumeTimes(), "reconsumeTimes");
            Check.equal(0L, stored.getPreparedTransactionOffset(), "preparedTransactionOffset");
            Check.equal(broker, stored.getStoreHost(), "storeHost");
            Check.equal(broker.getAddress(), ((InetSocketAddress) stored.getBornHost()).getAddress(), "bornHost");
            Check.that(stored.getBornTimestamp() >= before - 5 && stored.getStoreTimestamp() >= stored.getBornTimestamp(),
                "born " + stored.getBornTimestamp() + ", stored " + stored.getStoreTimestamp() + ", sent " + before);
            Check.equal("TagA", stored.getTags(), "tags");
            Check.equal("K" + i, stored.getKeys(), "keys");
            Check.equal("body " + i, Scope.text(stored.getBody()), "body");
            Check.equal(org.apache.rocketmq.common.UtilAll.crc32(stored.getBody()), stored.getBodyCRC(), "body CRC");
            Check.equal(scope.servers.cluster, stored.getProperty(MessageConst.PROPERTY_CLUSTER), "property CLUSTER");
            Check.equal("DefaultRegion", stored.getProperty(MessageConst.PROPERTY_MSG_REGION), "property MSG_REGION");
            Check.equal("true", stored.getProperty(MessageConst.PROPERTY_TRACE_SWITCH), "property TRACE_ON");
            Check.equal("true", stored.getProperty(MessageConst.PROPERTY_WAIT_STORE_MSG_OK), "property WAIT");
        }
    }

    /** 200 asynchronous sends to one queue all succeed and get offsets 0..199. */
    private static void sendAsync(Scope scope) throws Exception {
        String topic = scope.topic(1);
        List<CompletableFuture<SendResult>> pending = new ArrayList<>();
        for (int i = 0; i < 200; i++) {
            CompletableFuture<SendResult> future = new CompletableFuture<>();
            pending.add(future);
            scope.servers.producer.send(new Message(topic, Scope.bytes("async " + i)), callback(future));
        }
        Set<Long> offsets = new HashSet<>();
        for (CompletableFuture<SendResult> future : pending) {
            SendResult result = future.get(10, TimeUnit.SECONDS);
            Check.equal(SendStatus.SEND_OK, result.getSendStatus(), "status");
            offsets.add(result.getQueueOffset());
        }
        Check.equal(200, offsets.size(), "distinct offsets");
        scope.awaitVisible(topic, 0, 199);
        Check.equal(200L, scope.servers.admin.maxOffset(scope.queue(topic, 0)), "max offset");
    }

    /** 100 oneway sends are stored, though nobody answers them. */
    private static void sendOneway(Scope scope) throws Exception {
        String topic = scope.topic(1);
        for (int i = 0; i < 100; i++) {
            scope.servers.producer.sendOneway(new Message(topic, Scope.bytes("oneway " + i)));
        }
        Check.await("100 oneway messages", 10_000, () -> scope.servers.admin.maxOffset(scope.queue(topic, 0)) == 100);
        Set<String> bodies = new HashSet<>();
        for (MessageExt message : pullAll(scope, topic, 0)) {
            bodies.add(Scope.text(message.getBody()));
        }
        Check.equal(100, bodies.size(), "distinct bodies");
    }

    /**
     * A batch of 1,000 gets consecutive offsets and 1,000 ids; each message keeps its own properties. The request's own
     * properties are appended to those of each message, and of a name that is there twice the last one counts: all messages
     * read back with the batch's UNIQ_KEY.
     */
    private static void sendBatch(Scope scope) throws Exception {
        String topic = scope.topic(2);
        scope.send(topic, 1, "first", "first");
        List<Message> batch = new ArrayList<>();
        for (int i = 0; i < 1_000; i++) {
            Message message = new Message(topic, "T" + i % 3, "K" + i, Scope.bytes("batch " + i));
            message.putUserProperty("index", Integer.toString(i));
            batch.add(message);
        }
        SendResult result = scope.servers.producer.send(batch, scope.queue(topic, 1));
        Check.equal(SendStatus.SEND_OK, result.getSendStatus(), "status");
        Check.equal(1L, result.getQueueOffset(), "offset of the first");
        Check.equal(scope.queue(topic, 1), result.getMessageQueue(), "message queue");
        String[] offsetIds = result.getOffsetMsgId().split(",");
        String[] ids = result.getMsgId().split(",");
        Check.equal(1_000, offsetIds.length, "offset msgIds");
        Check.equal(1_000, ids.length, "msgIds");
        scope.awaitVisible(topic, 1, 1_000);
        List<MessageExt> stored = pullAll(scope, topic, 1);
        Check.equal(1_001, stored.size(), "stored messages");
        for (int i = 0; i < 1_000; i++) {
            MessageExt message = stored.get(i + 1);
            Check.equal(i + 1L, message.getQueueOffset(), "queue offset");
            Check.equal("batch " + i, Scope.text(message.getBody()), "body");
            Check.equal("T" + i % 3, message.getTags(), "tags");
            Check.equal("K" + i, message.getKeys(), "keys");
            Check.equal(Integer.toString(i), message.getUserProperty("index"), "property");
            Check.equal(result.getTransactionId(), message.getProperty(MessageConst.PROPERTY_UNIQ_CLIENT_MESSAGE_ID_KEYIDX), "UNIQ_KEY");
            Check.equal(scope.servers.cluster, message.getProperty(MessageConst.PROPERTY_CLUSTER), "property CLUSTER");
            Check.equal("DefaultRegion", message.getProperty(MessageConst.PROPERTY_MSG_REGION), "property MSG_REGION");
            Check.equal("true", message.getProperty(MessageConst.PROPERTY_TRACE_SWITCH), "property TRACE_ON");
            Check.equal(batch.get(i).getProperty(MessageConst.PROPERTY_UNIQ_CLIENT_MESSAGE_ID_KEYIDX), ids[i], "msgId in the result");
            Check.equal(MessageDecoder.decodeMessageId(offsetIds[i]).getOffset(), message.getCommitLogOffset(), "physical offset");
        }
    }

    /** The client compresses 3 MiB with each of its three codecs; the broker stores the compressed bytes and returns them. */
    private static void sendCompressed(Scope scope) throws Exception {
        String topic = scope.topic(1);
        byte[] body = new byte[3 * 1024 * 1024];
        Random random = new Random(3);
        for (int i = 0; i < body.length; i++) {
            body[i] = (byte) ('a' + random.nextInt(4));
        }
        int offset = 0;
        for (var type : org.apache.rocketmq.common.compression.CompressionType.values()) {
            System.setProperty("rocketmq.message.compressType", type.name());
            DefaultMQProducer producer = scope.producer();
            System.clearProperty("rocketmq.message.compressType");
            SendResult result = producer.send(new Message(topic, body));
            Check.equal(SendStatus.SEND_OK, result.getSendStatus(), type + " status");
            MessageExt stored = pullOne(scope, topic, 0, offset++).messages().get(0);
            Check.that(stored.getBody().length < body.length * 2 / 3, type + ": stored body has " + stored.getBody().length + " bytes");
            Check.equal(1 | type.getCompressionFlag(), stored.getSysFlag(), type + " sysFlag");
            MessageExt viewed = scope.servers.admin.viewMessage(topic, result.getOffsetMsgId());
            Check.that(Arrays.equals(body, viewed.getBody()), type + ": the body changed");
        }
    }

    /** 4 MiB pass; one byte more is refused by the client, and with code 13 by the broker; a batch above is refused with 1. */
    private static void sendBodyLimit(Scope scope) throws Exception {
        String topic = scope.topic(1);
        byte[] largest = new byte[MAX_BODY_BYTES];
        new Random(4).nextBytes(largest);
        byte[] tooLarge = Arrays.copyOf(largest, MAX_BODY_BYTES + 1);
        DefaultMQProducer producer = scope.producer();
        producer.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
        SendResult result = producer.send(new Message(topic, largest));
        Check.that(Arrays.equals(largest, scope.servers.admin.viewMessage(topic, result.getOffsetMsgId()).getBody()),
            "the largest body changed");
        try {
            producer.send(new Message(topic, tooLarge));
            throw new Check.Failure("the client sends more than 4 MiB");
        } catch (MQClientException refused) {
            Check.equal(ResponseCode.MESSAGE_ILLEGAL, refused.getResponseCode(), "client's code");
        }
        producer.setMaxMessageSize(2 * MAX_BODY_BYTES);
        try {
            producer.send(new Message(topic, tooLarge));
            throw new Check.Failure("the broker takes more than 4 MiB");
        } catch (MQBrokerException refused) {
            Check.equal(ResponseCode.MESSAGE_ILLEGAL, refused.getResponseCode(), "broker's code");
        }
        byte[] half = Arrays.copyOf(largest, MAX_BODY_BYTES / 2);
        RemotingCommand answer = scope.servers.wire.sendBatch(scope.servers.broker, topic, 0,
            MessageDecoder.encodeMessages(List.of(new Message(topic, half), new Message(topic, half))));
        Check.equal(ResponseCode.SYSTEM_ERROR, answer.getCode(), "code of a batch above 4 MiB");
        Check.equal(1L, scope.servers.admin.maxOffset(scope.queue(topic, 0)), "max offset");
    }

    /** Every legal character and the longest topic name work; others are refused with code 29. */
    private static void sendNames(Scope scope) throws Exception {
        String legal = scope.name("%az|AZ-09_topic");
        scope.createTopic(legal, 1);
        scope.send(legal, 0, "T", "legal");
        Check.equal("legal", Scope.text(pullOne(scope, legal, 0, 0).messages().get(0).getBody()), "body");
        String longest = scope.name("long") + "_";
        longest = longest + "x".repeat(127 - longest.length());
        scope.createTopic(longest, 1);
        scope.send(longest, 0, "T", "longest");
        MessageExt stored = pullOne(scope, longest, 0, 0).messages().get(0);
        Check.equal(longest, stored.getTopic(), "longest topic");
        for (String illegal : List.of(longest + "y", "bad.topic", "bad topic", "主题", "")) {
            RemotingCommand answer = scope.servers.wire.send(scope.servers.broker, illegal, 0, "", Scope.bytes("x"));
            Check.equal(ResponseCode.INVALID_PARAMETER, answer.getCode(), "code for topic <" + illegal + ">");
        }
        for (String system : List.of("SCHEDULE_TOPIC_XXXX", "RMQ_SYS_TRANS_HALF_TOPIC", "SELF_TEST_TOPIC", "OFFSET_MOVED_EVENT")) {
            RemotingCommand answer = scope.servers.wire.send(scope.servers.broker, system, 0, "", Scope.bytes("x"));
            Check.equal(ResponseCode.NO_PERMISSION, answer.getCode(), "code for system topic " + system);
        }
    }

    /** Tags, keys and user properties in any script arrive unchanged; an empty value vanishes. */
    private static void sendProperties(Scope scope) throws Exception {
        String topic = scope.topic(1);
        Map<String, String> user = Map.of(
            "plain", "value",
            "spaced", " a  b ",
            "中文", "标签值",
            "emoji", "🚀👩‍👩‍👧",
            "symbols", "=&;,:\"'\\{}[]<>|\t\n",
            "long", "é".repeat(5_000));
        Message message = new Message(topic, "标签", "键一 key2 🔑", Scope.bytes("тело 🎈"));
        user.forEach(message::putUserProperty);
        SendResult result = scope.servers.producer.send(message);
        MessageExt stored = pullOne(scope, topic, 0, result.getQueueOffset()).messages().get(0);
        Check.equal("标签", stored.getTags(), "tags");
        Check.equal("键一 key2 🔑", stored.getKeys(), "keys");
        Check.equal("тело 🎈", Scope.text(stored.getBody()), "body");
        user.forEach((name, value) -> Check.equal(value, stored.getUserProperty(name), "property " + name));

        String raw = "kept\u0001yes\u0002empty\u0001\u0002\u0001noname\u0002twice\u0001a\u0002twice\u0001b\u0002inner\u0001x\u0001y\u0002last\u0001z";
        Check.equal(ResponseCode.SUCCESS, scope.servers.wire.send(scope.servers.broker, topic, 0, raw, Scope.bytes("r")).getCode(),
            "code of the raw send");
        MessageExt parsed = pullOne(scope, topic, 0, 1).messages().get(0);
        Check.equal("yes", parsed.getProperty("kept"), "property kept");
        Check.equal(null, parsed.getProperty("empty"), "property with an empty value");
        Check.equal("b", parsed.getProperty("twice"), "property given twice");
        Check.equal("x\u0001y", parsed.getProperty("inner"), "property with a separator in its value");
        Check.equal("z", parsed.getProperty("last"), "property without terminator");
        String unique = parsed.getProperty(MessageConst.PROPERTY_UNIQ_CLIENT_MESSAGE_ID_KEYIDX);
        Check.that(unique != null && unique.matches("[0-9A-F]{32}|[0-9A-F]{56}"), "UNIQ_KEY made by the broker: " + unique);

        String tooLong = "p\u0001" + "v".repeat(32_768) + "\u0002";
        Check.equal(ResponseCode.MESSAGE_ILLEGAL,
            scope.servers.wire.send(scope.servers.broker, topic, 0, tooLong, Scope.bytes("r")).getCode(), "code of 32 KiB of properties");
    }

    /** A selector decides the queue; all 8 are reached and keep their order. */
    private static void sendSelector(Scope scope) throws Exception {
        String topic = scope.topic(8);
        for (int i = 0; i < 32; i++) {
            int wanted = i % 8;
            SendResult result = scope.servers.producer.send(new Message(topic, Scope.bytes("m" + i)),
                (queues, ignored, argument) -> queues.stream().filter(q -> q.getQueueId() == (Integer) argument).findFirst().get(), wanted);
            Check.equal(wanted, result.getMessageQueue().getQueueId(), "queue");
            Check.equal((long) (i / 8), result.getQueueOffset(), "queue offset");
        }
        for (int queueId = 0; queueId < 8; queueId++) {
            scope.awaitVisible(topic, queueId, 3);
            List<MessageExt> stored = pullAll(scope, topic, queueId);
            for (int i = 0; i < 4; i++) {
                Check.equal("m" + (i * 8 + queueId), Scope.text(stored.get(i).getBody()), "body");
            }
        }
    }

    /** A queue beyond the topic is code 29; a negative one lets the broker choose. */
    private static void sendQueueOutOfRange(Scope scope) throws Exception {
        String topic = scope.topic(2);
        Wire wire = scope.servers.wire;
        Check.equal(ResponseCode.INVALID_PARAMETER, wire.send(scope.servers.broker, topic, 2, "", Scope.bytes("x")).getCode(), "code");
        RemotingCommand answer = wire.send(scope.servers.broker, topic, -1, "", Scope.bytes("x"));
        Check.equal(ResponseCode.SUCCESS, answer.getCode(), "code for queue -1");
        int queueId = Integer.parseInt(answer.getExtFields().get("queueId"));
        Check.that(queueId == 0 || queueId == 1, "chosen queue " + queueId);
        Check.equal(ResponseCode.SYSTEM_ERROR, wire.send(scope.servers.broker, topic, 0, "", null).getCode(), "code of an empty body");
    }

    /** Pulls the message at an offset, as soon as it is visible. */
    static Wire.Pulled pullOne(Scope scope, String topic, int queueId, long offset) throws Exception {
        scope.awaitVisible(topic, queueId, offset);
        Wire.Pulled pulled = scope.servers.wire.pull(scope.servers.broker, "interop_wire", topic, queueId, offset, 1, "*", 0);
        Check.equal(ResponseCode.SUCCESS, pulled.code(), "code of a pull at " + offset + " (" + pulled.remark() + ")");
        return pulled;
    }

    /** Everything in a queue, by pulls of 32. */
    static List<MessageExt> pullAll(Scope scope, String topic, int queueId) throws Exception {
        List<MessageExt> all = new ArrayList<>();
        long offset = 0;
        while (true) {
            Wire.Pulled pulled = scope.servers.wire.pull(scope.servers.broker, "interop_wire", topic, queueId, offset, 32, "*", 0);
            if (pulled.code() == ResponseCode.PULL_NOT_FOUND) {
                return all;
            }
            Check.equal(ResponseCode.SUCCESS, pulled.code(), "code of a pull at " + offset + " (" + pulled.remark() + ")");
            Check.that(pulled.messages().size() <= 32 && pulled.header().getNextBeginOffset() > offset, "pull makes no progress");
            all.addAll(pulled.messages());
            offset = pulled.header().getNextBeginOffset();
        }
    }

    static SendCallback callback(CompletableFuture<SendResult> future) {
        return new SendCallback() {
            @Override
            public void onSuccess(SendResult result) {
                future.complete(result);
            }

            @Override
            public void onException(Throwable failure) {
                future.completeExceptionally(failure);
            }
        };
    }

    static InetSocketAddress address(String hostAndPort) {
        int colon = hostAndPort.lastIndexOf(':');
        return new InetSocketAddress(hostAndPort.substring(0, colon), Integer.parseInt(hostAndPort.substring(colon + 1)));
    }
}
