package interop;

import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.TreeMap;
import org.apache.rocketmq.client.QueryResult;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.RequestCode;
import org.apache.rocketmq.remoting.protocol.ResponseCode;
import org.apache.rocketmq.remoting.protocol.header.QueryConsumerOffsetRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.QueryConsumerOffsetResponseHeader;
import org.apache.rocketmq.remoting.protocol.header.UpdateConsumerOffsetRequestHeader;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;

/**
 * One stop of a store that travels between brokers: checks what the stops before left (committed offsets, keys), then adds its own: 3 MB
 * with keys, so that several small log files come into being, a retry topic, on the first stop one message for each of 2,000 queues,
 * and with {@code --delayed} messages that are due in two hours. The stop's number makes all of it predictable. Options:
 * {@code --namesrv A --broker A --stop N --delayed}.
 */
public final class TripFill {
    private static final String GROUP = "trip_group";
    private static final String ORDERS = "trip_orders";
    private static final String RETRY = "%RETRY%trip_group";
    private static final int QUEUES = 8;
    private static final int PER_STOP = 1_500;
    private static final int WIDE_TOPICS = 4;
    private static final int WIDE_QUEUES = 500;

    private TripFill() {
    }

    public static void main(String[] args) throws Exception {
        Arguments arguments = new Arguments(args, List.of("delayed"), List.of("namesrv", "broker", "stop"));
        int stop = Integer.parseInt(arguments.need("stop"));
        try (Scope.Servers servers = new Scope.Servers(arguments.need("namesrv"), arguments.need("broker"), false);
            Scope scope = new Scope(servers, "trip")) {
            for (int earlier = 0; earlier < stop; earlier++) {
                checkKeys(servers, earlier);
            }
            if (stop > 0) {
                checkOffsets(servers, stop - 1);
            }
            scope.createTopic(ORDERS, QUEUES);
            scope.createTopic(RETRY, 1);
            DefaultMQProducer producer = scope.producer();
            producer.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
            Random random = new Random(stop);
            List<Message> batch = new ArrayList<>();
            for (int i = 0; i < PER_STOP; i++) {
                byte[] body = new byte[1 + random.nextInt(4_000)];
                random.nextBytes(body);
                batch.add(new Message(ORDERS, "Tag" + i % 3, key(stop, i) + " shared", body));
                if (batch.size() == 20 || i == PER_STOP - 1) {
                    send(producer, batch, scope.queue(ORDERS, i % QUEUES));
                }
            }
            for (int i = 0; i < 20; i++) {
                Message message = new Message(RETRY, "again", key(stop, i) + "-retry", Scope.bytes("retry " + stop + " " + i));
                Check.equal(SendStatus.SEND_OK, producer.send(message, scope.queue(RETRY, 0)).getSendStatus(), "send status");
            }
            if (stop == 0) {
                fillWide(scope, producer);
            }
            if (arguments.has("delayed")) {
                for (int i = 0; i < 30; i++) {
                    Message message = new Message(ORDERS, "later", "delayed" + stop + "-" + i, Scope.bytes("in two hours"));
                    message.setDelayTimeLevel(18);
                    Check.equal(SendStatus.SEND_OK, producer.send(message).getSendStatus(), "status of a delayed message");
                }
            }
            // A key that was just sent is found at once.
            awaitKey(servers, ORDERS, key(stop, PER_STOP - 1));
            for (int queueId = 0; queueId < QUEUES; queueId++) {
                UpdateConsumerOffsetRequestHeader header = new UpdateConsumerOffsetRequestHeader();
                header.setConsumerGroup(GROUP);
                header.setTopic(ORDERS);
                header.setQueueId(queueId);
                header.setCommitOffset(committed(stop, queueId));
                RemotingCommand answer = servers.wire.call(servers.broker, RequestCode.UPDATE_CONSUMER_OFFSET, header, null);
                Check.equal(ResponseCode.SUCCESS, answer.getCode(), "code of a commit");
            }
            checkOffsets(servers, stop);
        } catch (Check.Failure failure) {
            System.err.println(failure.getMessage());
            System.exit(1);
        }
        System.out.println("stop " + stop + " filled");
        System.exit(0);
    }

    private static void fillWide(Scope scope, DefaultMQProducer producer) throws Exception {
        for (int topic = 0; topic < WIDE_TOPICS; topic++) {
            String name = "trip_wide_" + topic;
            scope.createTopic(name, WIDE_QUEUES);
            for (int queueId = 0; queueId < WIDE_QUEUES; queueId++) {
                Message message = new Message(name, "wide", "w" + topic + "-" + queueId, Scope.bytes("wide " + queueId));
                Check.equal(SendStatus.SEND_OK, producer.send(message, scope.queue(name, queueId)).getSendStatus(), "send status");
            }
        }
    }

    private static void send(DefaultMQProducer producer, List<Message> batch, MessageQueue queue) throws Exception {
        SendResult result = producer.send(batch, queue);
        Check.equal(SendStatus.SEND_OK, result.getSendStatus(), "batch status");
        batch.clear();
    }

    private static String key(int stop, int number) {
        return "s" + stop + "k" + number;
    }

    /** A different offset for each stop and queue, always below the queue's end. */
    private static long committed(int stop, int queueId) {
        return stop * 20L + queueId + 1;
    }

    private static void checkOffsets(Scope.Servers servers, int stop) throws Exception {
        TreeMap<Integer, Long> expected = new TreeMap<>();
        TreeMap<Integer, Long> found = new TreeMap<>();
        for (int queueId = 0; queueId < QUEUES; queueId++) {
            QueryConsumerOffsetRequestHeader header = new QueryConsumerOffsetRequestHeader();
            header.setConsumerGroup(GROUP);
            header.setTopic(ORDERS);
            header.setQueueId(queueId);
            RemotingCommand answer = servers.wire.call(servers.broker, RequestCode.QUERY_CONSUMER_OFFSET, header, null);
            Check.equal(ResponseCode.SUCCESS, answer.getCode(), "code of a query of an offset: " + answer.getRemark());
            expected.put(queueId, committed(stop, queueId));
            found.put(queueId, ((QueryConsumerOffsetResponseHeader) answer.decodeCommandCustomHeader(
                QueryConsumerOffsetResponseHeader.class)).getOffset());
        }
        Check.equal(expected, found, "committed offsets of stop " + stop);
    }

    private static void checkKeys(Scope.Servers servers, int stop) throws Exception {
        for (int i = 0; i < PER_STOP; i += 97) {
            awaitKey(servers, ORDERS, key(stop, i));
        }
        awaitKey(servers, RETRY, key(stop, 7) + "-retry");
    }

    private static void awaitKey(Scope.Servers servers, String topic, String key) throws Exception {
        Check.await("key " + key + " of " + topic, 10_000, () -> {
            try {
                QueryResult result = servers.admin.queryMessage(topic, key, 8, 0, System.currentTimeMillis() + 60_000);
                return result.getMessageList().stream().anyMatch(message -> (" " + message.getKeys() + " ").contains(" " + key + " "));
            } catch (org.apache.rocketmq.client.exception.MQClientException missing) {
                return false;
            }
        });
    }
}
