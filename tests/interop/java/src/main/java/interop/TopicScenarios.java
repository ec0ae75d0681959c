package interop;

import java.util.Set;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.remoting.protocol.ResponseCode;
import org.apache.rocketmq.remoting.protocol.route.QueueData;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** Scenarios of a topic's life: made by a send, made by an administrator, enlarged, deleted, made again. */
final class TopicScenarios {
    private TopicScenarios() {
    }

    static void register(InteropSuite.Registry registry) {
        registry.addCore("topic-auto-create", TopicScenarios::autoCreate);
        registry.addCore("topic-create", TopicScenarios::create);
        registry.add("topic-more-queues", TopicScenarios::moreQueues);
        registry.add("topic-delete", TopicScenarios::delete);
    }

    private static QueueData route(Scope scope, String topic) throws Exception {
        return scope.servers.admin.examineTopicRouteInfo(topic).getQueueDatas().stream()
            .filter(q -> q.getBrokerName().equals(scope.servers.brokerName)).findFirst().orElseThrow();
    }

    /** A send to an unknown topic goes by the route of TBW102 and makes it with 4 queues, perm 6. */
    private static void autoCreate(Scope scope) throws Exception {
        String topic = scope.name("topic");
        SendResult result = scope.servers.producer.send(new Message(topic, Scope.bytes("first")));
        Check.equal(SendStatus.SEND_OK, result.getSendStatus(), "status");
        Check.that(result.getMessageQueue().getQueueId() < 4, "queue " + result.getMessageQueue());
        scope.awaitRoute(topic, 4);
        Check.equal(6, route(scope, topic).getPerm(), "perm in the route");
        TopicConfig config = scope.servers.admin.examineTopicConfig(scope.servers.broker, topic);
        Check.equal(4, config.getReadQueueNums(), "read queues");
        Check.equal(4, config.getWriteQueueNums(), "write queues");
        Check.equal(6, config.getPerm(), "perm");
        Check.that(!config.isOrder(), "order is true");
    }

    @SuppressWarnings("deprecation")
    private static void createByClient(Scope scope, String topic, int queues) throws Exception {
        scope.servers.producer.createTopic("TBW102", topic, queues, java.util.Map.of());
    }

    /** A topic made by the client API and one by the admin API have what was asked for. */
    private static void create(Scope scope) throws Exception {
        String topic = scope.name("topic");
        createByClient(scope, topic, 3);
        scope.awaitRoute(topic, 3);
        String other = scope.name("topic");
        TopicConfig config = new TopicConfig(other, 5, 2, 4);
        scope.servers.admin.createAndUpdateTopicConfig(scope.servers.broker, config);
        Check.await("the route", 5_000, () -> {
            try {
                return route(scope, other).getPerm() == 4;
            } catch (MQClientException absent) {
                return false;
            }
        });
        QueueData queues = route(scope, other);
        Check.equal(5, queues.getReadQueueNums(), "read queues");
        Check.equal(2, queues.getWriteQueueNums(), "write queues");
        Check.that(scope.servers.admin.fetchAllTopicList().getTopicList().containsAll(Set.of(topic, other)), "the topic list lacks them");
        try {
            scope.servers.admin.createAndUpdateTopicConfig(scope.servers.broker, new TopicConfig("bad.topic", 1, 1));
            throw new Check.Failure("an illegal topic name is accepted");
        } catch (org.apache.rocketmq.client.exception.MQClientException refused) {
            Check.equal(ResponseCode.INVALID_PARAMETER, refused.getResponseCode(), "code for an illegal name");
        }
        try {
            scope.servers.admin.createAndUpdateTopicConfig(scope.servers.broker, new TopicConfig("TBW102", 1, 1));
            throw new Check.Failure("a system topic can be changed");
        } catch (org.apache.rocketmq.client.exception.MQClientException refused) {
            Check.equal(ResponseCode.INVALID_PARAMETER, refused.getResponseCode(), "code for a system topic");
        }
    }

    /** Enlarging a topic keeps its messages; the new queues take and give messages; producers learn of them. */
    private static void moreQueues(Scope scope) throws Exception {
        String topic = scope.topic(2);
        var producer = scope.producer();
        producer.send(new Message(topic, Scope.bytes("old")), scope.queue(topic, 0));
        Check.equal(2, producer.fetchPublishMessageQueues(topic).size(), "queues before");
        scope.createTopic(topic, 6);
        Check.await("the producer to see 6 queues", 10_000, () -> producer.fetchPublishMessageQueues(topic).size() == 6);
        for (int queueId = 0; queueId < 6; queueId++) {
            SendResult result = producer.send(new Message(topic, Scope.bytes("new" + queueId)), scope.queue(topic, queueId));
            Check.equal(queueId == 0 ? 1L : 0L, result.getQueueOffset(), "offset in queue " + queueId);
        }
        Check.equal("old", Scope.text(SendScenarios.pullOne(scope, topic, 0, 0).messages().get(0).getBody()), "old message");
        Check.equal("new5", Scope.text(SendScenarios.pullOne(scope, topic, 5, 0).messages().get(0).getBody()), "new message");
    }

    /** A deleted topic is gone from broker and name server; made again by a send, it begins at offset 0. */
    private static void delete(Scope scope) throws Exception {
        String topic = scope.topic(4);
        scope.fill(topic, 4, 10, "doomed");
        DefaultMQAdminExt admin = scope.servers.admin;
        admin.deleteTopicInBroker(Set.of(scope.servers.broker), topic);
        admin.deleteTopicInNameServer(Set.of(scope.servers.namesrv), scope.servers.cluster, topic);
        try {
            admin.examineTopicRouteInfo(topic);
            throw new Check.Failure("the route of a deleted topic is still there");
        } catch (MQClientException gone) {
            Check.equal(ResponseCode.TOPIC_NOT_EXIST, gone.getResponseCode(), "route code");
        }
        Check.equal(ResponseCode.TOPIC_NOT_EXIST,
            scope.servers.wire.pull(scope.servers.broker, "interop_wire", topic, 0, 0, 32, "*", 0).code(), "pull code");
        Check.equal(0L, admin.maxOffset(scope.queue(topic, 0)), "max offset of a deleted topic");
        var answer = scope.servers.wire.send(scope.servers.broker, topic, 1, "", Scope.bytes("reborn"));
        Check.equal(ResponseCode.SUCCESS, answer.getCode(), "code of the send after the deletion");
        Check.equal("0", answer.getExtFields().get("queueOffset"), "offset of the send after the deletion");
        scope.awaitRoute(topic, 4);
        Check.equal("reborn", Scope.text(SendScenarios.pullOne(scope, topic, 1, 0).messages().get(0).getBody()), "body");
        Check.equal(0L, admin.maxOffset(scope.queue(topic, 0)), "max offset of a queue without new messages");
        admin.deleteTopicInBroker(Set.of(scope.servers.broker), scope.name("absent"));
    }
}
