package interop;

import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.QueryResult;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.RequestCode;
import org.apache.rocketmq.remoting.protocol.ResponseCode;
import org.apache.rocketmq.remoting.protocol.header.QueryConsumerOffsetRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.UpdateConsumerOffsetRequestHeader;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** Scenarios of offsets and of messages looked up by id, key and time, and of the pull request itself. */
final class OffsetScenarios {
    private OffsetScenarios() {
    }

    static void register(InteropSuite.Registry registry) {
        registry.addCore("offsets-by-time", OffsetScenarios::offsetsByTime);
        registry.addCore("offsets-committed", OffsetScenarios::offsetsCommitted);
        registry.addCore("message-by-id", OffsetScenarios::messageById);
        registry.add("message-by-key", OffsetScenarios::messageByKey);
        registry.addCore("pull-codes", OffsetScenarios::pullCodes);
        registry.addCore("long-poll-arrival", OffsetScenarios::longPollArrival);
        registry.add("long-poll-timeout", OffsetScenarios::longPollTimeout);
    }

    /** The committed offset of a group as the broker has it; −1 if it has none. */
    static long committed(Scope scope, String group, String topic, int queueId) throws Exception {
        RemotingCommand answer = queryOffset(scope, group, topic, queueId, false);
        return answer.getCode() == ResponseCode.SUCCESS ? Long.parseLong(answer.getExtFields().get("offset")) : -1;
    }

    private static RemotingCommand queryOffset(Scope scope, String group, String topic, int queueId, Boolean zeroIfNone)
        throws Exception {
        QueryConsumerOffsetRequestHeader header = new QueryConsumerOffsetRequestHeader();
        header.setConsumerGroup(group);
        header.setTopic(topic);
        header.setQueueId(queueId);
        header.setSetZeroIfNotFound(zeroIfNone);
        return scope.servers.wire.call(scope.servers.broker, RequestCode.QUERY_CONSUMER_OFFSET, header, null);
    }

    private static int commit(Scope scope, String group, String topic, int queueId, long offset) throws Exception {
        UpdateConsumerOffsetRequestHeader header = new UpdateConsumerOffsetRequestHeader();
        header.setConsumerGroup(group);
        header.setTopic(topic);
        header.setQueueId(queueId);
        header.setCommitOffset(offset);
        return scope.servers.wire.call(scope.servers.broker, RequestCode.UPDATE_CONSUMER_OFFSET, header, null).getCode();
    }

    /** Minimum, maximum, earliest store time, and the search by time at, between and beyond the messages. */
    private static void offsetsByTime(Scope scope) throws Exception {
        String topic = scope.topic(2);
        DefaultMQAdminExt admin = scope.servers.admin;
        var queue = scope.queue(topic, 0);
        Check.equal(0L, admin.maxOffset(queue), "max of an empty queue");
        Check.equal(0L, admin.minOffset(queue), "min of an empty queue");
        Check.equal(-1L, admin.earliestMsgStoreTime(queue), "earliest store time of an empty queue");
        Check.equal(0L, admin.searchOffset(queue, System.currentTimeMillis()), "search in an empty queue");
        List<Long> times = new ArrayList<>();
        for (int i = 0; i < 5; i++) {
            scope.send(topic, 0, null, "t" + i);
            times.add(SendScenarios.pullOne(scope, topic, 0, i).messages().get(0).getStoreTimestamp());
            Thread.sleep(30);
        }
        Check.equal(5L, admin.maxOffset(queue), "max");
        Check.equal(0L, admin.minOffset(queue), "min");
        Check.equal(times.get(0), admin.earliestMsgStoreTime(queue), "earliest store time");
        for (int i = 0; i < 5; i++) {
            long at = times.get(i);
            Check.equal((long) i, admin.searchLowerBoundaryOffset(queue, at), "lower at message " + i);
            Check.equal((long) i, admin.searchUpperBoundaryOffset(queue, at), "upper at message " + i);
            Check.equal((long) i, admin.searchOffset(queue, at - 10), "lower before message " + i);
            Check.equal((long) Math.max(0, i - 1), admin.searchUpperBoundaryOffset(queue, at - 10), "upper before message " + i);
        }
        Check.equal(5L, admin.searchOffset(queue, times.get(4) + 10_000), "lower beyond the newest");
        Check.equal(4L, admin.searchUpperBoundaryOffset(queue, times.get(4) + 10_000), "upper beyond the newest");
        Check.equal(0L, admin.searchOffset(queue, 1), "lower before the oldest");
        Check.equal(0L, admin.maxOffset(scope.queue(scope.name("absent"), 0)), "max of an unknown topic");
    }

    /** Commit and query: known, unknown, smaller than before, unknown group and topic, the young-topic rule. */
    private static void offsetsCommitted(Scope scope) throws Exception {
        String topic = scope.topic(2);
        String group = scope.name("group");
        Check.equal(ResponseCode.QUERY_NOT_FOUND, queryOffset(scope, group, topic, 0, false).getCode(), "query, none, no zero");
        scope.send(topic, 0, null, "young");
        Check.equal(ResponseCode.QUERY_NOT_FOUND, queryOffset(scope, group, topic, 0, false).getCode(), "query of a young queue, no zero");
        RemotingCommand young = queryOffset(scope, group, topic, 0, null);
        Check.equal(ResponseCode.SUCCESS, young.getCode(), "query of a young queue");
        Check.equal("0", young.getExtFields().get("offset"), "offset of a young queue");
        Check.equal(ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST, commit(scope, group, topic, 0, 1), "commit for an unknown group");
        var config = new org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig();
        config.setGroupName(group);
        scope.servers.admin.createAndUpdateSubscriptionGroupConfig(scope.servers.broker, config);
        Check.equal(ResponseCode.TOPIC_NOT_EXIST, commit(scope, group, scope.name("absent"), 0, 1), "commit for an unknown topic");
        Check.equal(ResponseCode.SUCCESS, commit(scope, group, topic, 0, 17), "commit 17");
        Check.equal(17L, committed(scope, group, topic, 0), "after commit 17");
        Check.equal(ResponseCode.SUCCESS, commit(scope, group, topic, 0, 3), "commit 3");
        Check.equal(3L, committed(scope, group, topic, 0), "after commit 3");
        Check.equal(-1L, committed(scope, group, topic, 1), "the other queue");
        Check.equal(-1L, committed(scope, group + "x", topic, 0), "another group");
    }

    /** A message is found by its offset id; an id that points nowhere is an error. */
    private static void messageById(Scope scope) throws Exception {
        String topic = scope.topic(1);
        SendResult result = scope.send(topic, 0, "TagV", "view me");
        MessageExt viewed = scope.servers.admin.viewMessage(topic, result.getOffsetMsgId());
        Check.equal("view me", Scope.text(viewed.getBody()), "body");
        Check.equal("TagV", viewed.getTags(), "tags");
        Check.equal(result.getMsgId(), viewed.getMsgId(), "msgId");
        Check.equal(result.getQueueOffset(), viewed.getQueueOffset(), "queue offset");
        var header = new org.apache.rocketmq.remoting.protocol.header.ViewMessageRequestHeader();
        header.setTopic(topic);
        header.setOffset(1L << 50);
        Check.equal(ResponseCode.SYSTEM_ERROR,
            scope.servers.wire.call(scope.servers.broker, RequestCode.VIEW_MESSAGE_BY_ID, header, null).getCode(), "code beyond the log");
    }

    /** Each of several keys and the unique key find their messages, limits and times hold, absent keys give code 22. */
    private static void messageByKey(Scope scope) throws Exception {
        String topic = scope.topic(2);
        DefaultMQAdminExt admin = scope.servers.admin;
        long begin = System.currentTimeMillis() - 1_000;
        List<SendResult> results = new ArrayList<>();
        for (int i = 0; i < 10; i++) {
            Message message = new Message(topic, "T", "shared own" + i + " 键" + i, Scope.bytes("k" + i));
            results.add(scope.servers.producer.send(message, scope.queue(topic, i % 2)));
        }
        long end = System.currentTimeMillis() + 1_000;
        Check.await("the index to have all messages", 10_000, () -> found(admin, topic, "shared", 64, begin, end).size() == 10);
        Check.equal(Set.of("k3"), found(admin, topic, "own3", 32, begin, end), "own3");
        Check.equal(Set.of("k4"), found(admin, topic, "键4", 32, begin, end), "键4");
        Check.equal(4, found(admin, topic, "shared", 4, begin, end).size(), "messages with a limit of 4");
        Check.equal(Set.of(), found(admin, topic, "absent", 32, begin, end), "absent key");
        Check.equal(Set.of(), found(admin, topic, "shared", 32, begin - 7_200_000, begin - 3_600_000), "shared, an hour earlier");
        for (SendResult result : results) {
            QueryResult unique = admin.queryMessageByUniqKey(scope.servers.cluster, topic, result.getMsgId(), 32, begin, end);
            Check.equal(1, unique.getMessageList().size(), "messages by unique key");
            Check.equal(result.getMsgId(), unique.getMessageList().get(0).getMsgId(), "unique key");
            Check.that(unique.getIndexLastUpdateTimestamp() >= begin, "index time " + unique.getIndexLastUpdateTimestamp());
        }
    }

    private static Set<String> found(DefaultMQAdminExt admin, String topic, String key, int limit, long begin, long end) throws Exception {
        try {
            return admin.queryMessage(topic, key, limit, begin, end).getMessageList().stream()
                .map(message -> Scope.text(message.getBody())).collect(Collectors.toSet());
        } catch (MQClientException none) {
            Check.equal(ResponseCode.NO_MESSAGE, none.getResponseCode(), "client's code for no result");
            return Set.of();
        }
    }

    /** The codes and next offsets of pulls that cannot be served, and the 32-message limit. */
    private static void pullCodes(Scope scope) throws Exception {
        String topic = scope.topic(2);
        Wire wire = scope.servers.wire;
        String broker = scope.servers.broker;
        String group = "interop_wire";
        Check.equal(ResponseCode.TOPIC_NOT_EXIST, wire.pull(broker, group, scope.name("absent"), 0, 0, 32, "*", 0).code(), "absent topic");
        Check.equal(ResponseCode.INVALID_PARAMETER, wire.pull(broker, group, topic, 2, 0, 32, "*", 0).code(), "queue 2 of 2");
        Check.equal(ResponseCode.INVALID_PARAMETER, wire.pull(broker, group, topic, -1, 0, 32, "*", 0).code(), "queue -1");
        expect(wire.pull(broker, group, topic, 0, 0, 32, "*", 0), ResponseCode.PULL_NOT_FOUND, 0, 0, 0, "empty queue at 0");
        expect(wire.pull(broker, group, topic, 0, 5, 32, "*", 0), ResponseCode.PULL_OFFSET_MOVED, 0, 0, 0, "empty queue at 5");
        scope.fill(topic, 1, 40, "p");
        Wire.Pulled many = wire.pull(broker, group, topic, 0, 0, 100, "*", 0);
        expect(many, ResponseCode.SUCCESS, 32, 0, 40, "100 asked at 0");
        Check.equal(32, many.messages().size(), "messages of a pull of 100");
        expect(wire.pull(broker, group, topic, 0, 39, 32, "*", 0), ResponseCode.SUCCESS, 40, 0, 40, "at the last");
        expect(wire.pull(broker, group, topic, 0, 40, 32, "*", 0), ResponseCode.PULL_NOT_FOUND, 40, 0, 40, "at the end");
        expect(wire.pull(broker, group, topic, 0, 41, 32, "*", 0), ResponseCode.PULL_OFFSET_MOVED, 40, 0, 40, "beyond the end");
        Wire.Pulled negative = wire.pull(broker, group, topic, 0, -1, 32, "*", 0);
        expect(negative, ResponseCode.PULL_OFFSET_MOVED, 0, 0, 40, "at -1");
        Check.equal(ResponseCode.REQUEST_CODE_NOT_SUPPORTED, wire.call(broker, 29_999, null, null).getCode(), "unknown request code");
    }

    private static void expect(Wire.Pulled pulled, int code, long next, long min, long max, String what) {
        Check.equal(code, pulled.code(), what + ": code (" + pulled.remark() + ")");
        Check.that(pulled.header() != null, what + ": no offsets in the answer");
        Check.equal(next, pulled.header().getNextBeginOffset(), what + ": nextBeginOffset");
        Check.equal(min, pulled.header().getMinOffset(), what + ": minOffset");
        Check.equal(max, pulled.header().getMaxOffset(), what + ": maxOffset");
        Check.equal(0L, pulled.header().getSuggestWhichBrokerId(), what + ": suggestWhichBrokerId");
    }

    /** A held pull is answered at once when a matching message arrives, and sleeps through one that does not match. */
    private static void longPollArrival(Scope scope) throws Exception {
        String topic = scope.topic(1);
        List<Wire.Pulled> answers = new ArrayList<>();
        List<Long> arrived = new ArrayList<>();
        Thread puller = new Thread(() -> {
            try {
                long offset = 0;
                for (int i = 0; i < 5; i++) {
                    Wire.Pulled pulled = scope.servers.wire.pull(scope.servers.broker, "interop_wire", topic, 0, offset, 32, "TagA", 15_000);
                    synchronized (answers) {
                        arrived.add(System.nanoTime());
                        answers.add(pulled);
                    }
                    offset = pulled.header().getNextBeginOffset();
                }
            } catch (Exception e) {
                e.printStackTrace();
            }
        }, "puller");
        puller.setDaemon(true);
        puller.start();
        for (int i = 0; i < 5; i++) {
            Thread.sleep(150);
            int expected = i + 1;
            synchronized (answers) {
                Check.equal(i, answers.size(), "answers before the send");
            }
            long sent = System.nanoTime();
            scope.send(topic, 0, "TagA", "wake " + i);
            Check.await("answer " + expected, 5_000, () -> {
                synchronized (answers) {
                    return answers.size() == expected;
                }
            });
            Wire.Pulled answer = answers.get(i);
            Check.equal(ResponseCode.SUCCESS, answer.code(), "code");
            Check.equal("wake " + i, Scope.text(answer.messages().get(0).getBody()), "body");
            long millis = (arrived.get(i) - sent) / 1_000_000;
            // Woken by the message, and not answered because its time is over.
            Check.that(millis < 14_000, "a held pull was answered after " + millis + " ms");
        }
    }

    /** A held pull without data is answered with PULL_NOT_FOUND after its time, and not before. */
    private static void longPollTimeout(Scope scope) throws Exception {
        String topic = scope.topic(1);
        long start = System.nanoTime();
        Wire.Pulled pulled = scope.servers.wire.pull(scope.servers.broker, "interop_wire", topic, 0, 0, 32, "*", 1_500);
        long millis = (System.nanoTime() - start) / 1_000_000;
        Check.equal(ResponseCode.PULL_NOT_FOUND, pulled.code(), "code");
        Check.equal(0L, pulled.header().getNextBeginOffset(), "nextBeginOffset");
        Check.that(millis >= 1_450, "answered after " + millis + " ms");
    }
}
