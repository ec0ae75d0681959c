package interop;

import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.route.BrokerData;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/**
 * What a scenario works with: the servers' addresses, shared clients, and factories whose clients are shut down when the
 * scenario ends. Names are unique per run, so that a suite can run many times against one store.
 */
final class Scope implements AutoCloseable {
    private static final String RUN = Long.toString(System.currentTimeMillis() / 100 % 100_000_000, 36);
    private static final AtomicInteger COUNTER = new AtomicInteger();

    /** What all scenarios share; started once. */
    static final class Servers implements AutoCloseable {
        final String namesrv;
        final String broker;
        final boolean expectUnsupported;
        final DefaultMQAdminExt admin;
        final DefaultMQProducer producer;
        final Wire wire = new Wire();
        final String brokerName;
        final String cluster;

        Servers(String namesrv, String broker, boolean expectUnsupported) throws Exception {
            this.namesrv = namesrv;
            this.broker = broker;
            this.expectUnsupported = expectUnsupported;
            admin = new DefaultMQAdminExt(10_000);
            configure(admin, namesrv);
            admin.start();
            // A broker may be up before the name server has its registration.
            AtomicReference<BrokerData> found = new AtomicReference<>();
            Check.await("name server " + namesrv + " to know a master at " + broker, 40_000, () -> {
                for (BrokerData data : admin.examineBrokerClusterInfo().getBrokerAddrTable().values()) {
                    if (broker.equals(data.getBrokerAddrs().get(0L))) {
                        found.set(data);
                    }
                }
                return found.get() != null;
            });
            brokerName = found.get().getBrokerName();
            cluster = found.get().getCluster();
            producer = new DefaultMQProducer("interop_producer_" + RUN);
            configure(producer, namesrv);
            producer.setSendMsgTimeout(10_000);
            producer.start();
        }

        @Override
        public void close() {
            producer.shutdown();
            admin.shutdown();
            wire.close();
        }
    }

    final Servers servers;
    private final String scenario;
    private final Deque<Runnable> closers = new ArrayDeque<>();

    Scope(Servers servers, String scenario) {
        this.servers = servers;
        this.scenario = scenario.replace('-', '_');
    }

    /** Short timers, so that nothing waits for a period; a private instance name, so that no client shares a connection. */
    static void configure(ClientConfig config, String namesrv) {
        config.setNamesrvAddr(namesrv);
        config.setInstanceName("interop" + RUN + COUNTER.incrementAndGet());
        config.setPollNameServerInterval(1_000);
        config.setHeartbeatBrokerInterval(1_000);
        config.setPersistConsumerOffsetInterval(500);
        config.setPullTimeDelayMillsWhenException(200);
        config.setClientCallbackExecutorThreads(2);
        config.setMqClientApiTimeout(10_000);
    }

    /** A name that no other scenario and no other run uses. */
    String name(String kind) {
        return scenario + "_" + kind + "_" + RUN + COUNTER.incrementAndGet();
    }

    /** Creates a topic on the broker and waits until the name server has it. */
    String topic(int queues) throws Exception {
        String topic = name("topic");
        createTopic(topic, queues);
        return topic;
    }

    void createTopic(String topic, int queues) throws Exception {
        TopicConfig config = new TopicConfig(topic, queues, queues);
        servers.admin.createAndUpdateTopicConfig(servers.broker, config);
        awaitRoute(topic, queues);
    }

    void awaitRoute(String topic, int queues) throws Exception {
        Check.await("route of " + topic + " with " + queues + " queues", 5_000, () -> {
            try {
                return servers.admin.examineTopicRouteInfo(topic).getQueueDatas().stream()
                    .anyMatch(q -> q.getBrokerName().equals(servers.brokerName) && q.getReadQueueNums() == queues
                        && q.getWriteQueueNums() == queues);
            } catch (org.apache.rocketmq.client.exception.MQClientException missing) {
                return false;
            }
        });
    }

    MessageQueue queue(String topic, int queueId) {
        return new MessageQueue(topic, servers.brokerName, queueId);
    }

    DefaultMQProducer producer() throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer(name("producer"));
        configure(producer, servers.namesrv);
        producer.setSendMsgTimeout(10_000);
        producer.start();
        closers.push(producer::shutdown);
        return producer;
    }

    /** A configured push consumer that is not started; {@link #start} starts it. */
    DefaultMQPushConsumer pushConsumer(String group) {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        configure(consumer, servers.namesrv);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setConsumeThreadMin(2);
        consumer.setConsumeThreadMax(2);
        closers.push(consumer::shutdown);
        return consumer;
    }

    DefaultLitePullConsumer litePullConsumer(String group) {
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer(group);
        configure(consumer, servers.namesrv);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setPullThreadNums(2);
        consumer.setTopicMetadataCheckIntervalMillis(1_000);
        closers.push(consumer::shutdown);
        return consumer;
    }

    void onClose(Runnable closer) {
        closers.push(closer);
    }

    /**
     * Waits until the message at this offset can be pulled. The Java broker acknowledges a message before its consume queue
     * has it; a broker that acknowledges later passes at once.
     */
    void awaitVisible(String topic, int queueId, long offset) throws Exception {
        MessageQueue queue = queue(topic, queueId);
        Check.await("offset " + offset + " of " + queue, 5_000, () -> servers.admin.maxOffset(queue) > offset);
    }

    /** Sends one text message, insists on SEND_OK and waits until it can be pulled. */
    SendResult send(String topic, int queueId, String tags, String body) throws Exception {
        Message message = new Message(topic, tags, bytes(body));
        SendResult result = servers.producer.send(message, queue(topic, queueId));
        Check.equal(SendStatus.SEND_OK, result.getSendStatus(), "send status");
        awaitVisible(topic, queueId, result.getQueueOffset());
        return result;
    }

    /** Sends {@code count} messages `prefix-i` to every queue, one batch per queue, and waits until all can be pulled; returns the bodies. */
    List<String> fill(String topic, int queues, int count, String prefix) throws Exception {
        List<String> bodies = new ArrayList<>();
        for (int queueId = 0; queueId < queues; queueId++) {
            List<Message> batch = new ArrayList<>();
            for (int i = 0; i < count; i++) {
                String body = prefix + "-" + queueId + "-" + i;
                bodies.add(body);
                batch.add(new Message(topic, bytes(body)));
            }
            SendResult result = servers.producer.send(batch, queue(topic, queueId));
            Check.equal(SendStatus.SEND_OK, result.getSendStatus(), "batch status");
            awaitVisible(topic, queueId, result.getQueueOffset() + count - 1);
        }
        return bodies;
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] bytes) {
        return new String(bytes, StandardCharsets.UTF_8);
    }

    /** Properties as the wire carries them. */
    static String properties(Map<String, String> properties) {
        return org.apache.rocketmq.common.message.MessageDecoder.messageProperties2String(properties);
    }

    /** Shuts all clients of the scenario down, at the same time because each takes a while. */
    @Override
    public void close() {
        List<Thread> threads = new ArrayList<>();
        for (Runnable closer : closers) {
            Thread thread = new Thread(closer, "close-" + scenario);
            thread.start();
            threads.add(thread);
        }
        try {
            for (Thread thread : threads) {
                thread.join();
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }
}
