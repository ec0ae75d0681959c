package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

var scenarios = []scenario{
	{"send-sync", sendSync},
	{"send-async", sendAsync},
	{"send-oneway", sendOneway},
	{"send-batch", sendBatch},
	{"send-compressed", sendCompressed},
	{"topic-auto-create", autoCreate},
	{"pull-from", pullFrom},
	{"push-cluster", pushCluster},
	{"push-broadcast", pushBroadcast},
	{"push-tags", pushTags},
	{"push-orderly", pushOrderly},
	{"consumer-restart", consumerRestart},
}

// collector gathers what a push consumer gets.
type collector struct {
	mutex    sync.Mutex
	messages []*primitive.MessageExt
}

func (c *collector) listen(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.messages = append(c.messages, messages...)
	return consumer.ConsumeSuccess, nil
}

func (c *collector) bodies() []string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	var bodies []string
	for _, message := range c.messages {
		bodies = append(bodies, string(message.Body))
	}
	return bodies
}

func (c *collector) queues() map[int]bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	queues := map[int]bool{}
	for _, message := range c.messages {
		queues[message.Queue.QueueId] = true
	}
	return queues
}

var everything = consumer.MessageSelector{Type: consumer.TAG, Expression: "*"}

// start makes a push consumer with a collector behind it.
func start(s *scope, group, topic string, selector consumer.MessageSelector, options ...consumer.Option) (rocketmq.PushConsumer, *collector, error) {
	c, err := s.pusher(group, options...)
	if err != nil {
		return nil, nil, err
	}
	collected := &collector{}
	if err = c.Subscribe(topic, selector, collected.listen); err == nil {
		err = c.Start()
	}
	return c, collected, err
}

func awaitCount(s *scope, collected *collector, count int) error {
	return s.await(fmt.Sprintf("%d messages", count), 25*time.Second, func() (bool, error) {
		return len(collected.bodies()) >= count, nil
	})
}

// puller makes a pull consumer; it needs no assignment for PullFrom.
func puller(s *scope, topic string) (rocketmq.PullConsumer, error) {
	c, err := rocketmq.NewPullConsumer(consumer.WithNameServer([]string{s.namesrv}), consumer.WithGroupName(s.unique("group")),
		consumer.WithInstance(s.unique("instance")), consumer.WithPullBatchSize(32))
	if err != nil {
		return nil, err
	}
	if err = c.Subscribe(topic, everything); err == nil {
		err = c.Start()
	}
	s.onClose(func() { _ = c.Shutdown() })
	return c, err
}

// All fields of the answer are right, and the message read back holds what was sent.
func sendSync(s *scope) error {
	topic, err := s.topic(1)
	if err != nil {
		return err
	}
	p, err := puller(s, topic)
	if err != nil {
		return err
	}
	for i := 0; i < 10; i++ {
		message := primitive.NewMessage(topic, []byte(fmt.Sprintf("тело %d 🎈", i)))
		message.WithTag("标签").WithKeys([]string{"键", "key2"}).WithProperty("цвет", "grün")
		message.Flag = 7
		result, err := s.send(message)
		if err != nil {
			return err
		}
		if result.QueueOffset != int64(i) || result.MessageQueue.QueueId != 0 || result.MessageQueue.Topic != topic {
			return fmt.Errorf("position in the answer: %v", result)
		}
		id, err := primitive.UnmarshalMsgID([]byte(result.OffsetMsgID))
		if err != nil || fmt.Sprintf("%s:%d", id.Addr, id.Port) != s.broker {
			return fmt.Errorf("offset msgId %s is not of %s: %v %v", result.OffsetMsgID, s.broker, id, err)
		}
		if result.MsgID != message.GetProperty(primitive.PropertyUniqueClientMessageIdKeyIndex) || result.RegionID != "DefaultRegion" {
			return fmt.Errorf("msgId or region in the answer: %v", result)
		}
		stored, err := awaitPull(s, p, result.MessageQueue, result.QueueOffset)
		if err != nil {
			return err
		}
		first := stored[0]
		if !bytes.Equal(first.Body, message.Body) || first.GetTags() != "标签" || first.GetKeys() != "键 key2" ||
			first.GetProperty("цвет") != "grün" || first.Flag != 7 || first.StoreHost != s.broker ||
			first.CommitLogOffset != id.Offset || first.MsgId != result.MsgID {
			return fmt.Errorf("read back: %v", first)
		}
	}
	return nil
}

// awaitPull pulls at an offset until something is there: a broker may acknowledge before the message is visible.
func awaitPull(s *scope, p rocketmq.PullConsumer, queue *primitive.MessageQueue, offset int64) (messages []*primitive.MessageExt, err error) {
	err = s.await(fmt.Sprintf("pull at %d", offset), 5*time.Second, func() (bool, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		result, err := p.PullFrom(ctx, queue, offset, 32)
		if err != nil {
			return false, err
		}
		messages = result.GetMessageExts()
		return result.Status == primitive.PullFound && len(messages) > 0, nil
	})
	return messages, err
}

func sendAsync(s *scope) error {
	topic, err := s.topic(1)
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	var mutex sync.Mutex
	offsets := map[int64]bool{}
	var failure error
	for i := 0; i < 100; i++ {
		group.Add(1)
		err := s.producer.SendAsync(context.Background(), func(_ context.Context, result *primitive.SendResult, err error) {
			mutex.Lock()
			defer mutex.Unlock()
			defer group.Done()
			if err != nil {
				failure = err
			} else if result.Status == primitive.SendOK {
				offsets[result.QueueOffset] = true
			}
		}, primitive.NewMessage(topic, []byte(fmt.Sprintf("async %d", i))))
		if err != nil {
			return err
		}
	}
	group.Wait()
	if failure != nil || len(offsets) != 100 {
		return fmt.Errorf("%d distinct offsets, %v", len(offsets), failure)
	}
	return nil
}

func sendOneway(s *scope) error {
	topic, err := s.topic(2)
	if err != nil {
		return err
	}
	_, collected, err := start(s, s.unique("group"), topic, everything)
	if err != nil {
		return err
	}
	var sent []string
	for i := 0; i < 50; i++ {
		text := fmt.Sprintf("oneway %d", i)
		sent = append(sent, text)
		if err := s.producer.SendOneWay(context.Background(), primitive.NewMessage(topic, []byte(text))); err != nil {
			return err
		}
	}
	if err := awaitCount(s, collected, len(sent)); err != nil {
		return err
	}
	return same("oneway", sent, collected.bodies())
}

func sendBatch(s *scope) error {
	topic, err := s.topic(1)
	if err != nil {
		return err
	}
	var batch []*primitive.Message
	for i := 0; i < 500; i++ {
		batch = append(batch, primitive.NewMessage(topic, []byte(fmt.Sprintf("batch %d", i))).WithTag("T").WithKeys([]string{fmt.Sprintf("k%d", i)}))
	}
	result, err := s.send(batch...)
	if err != nil {
		return err
	}
	if ids := strings.Split(result.OffsetMsgID, ","); result.QueueOffset != 0 || len(ids) != 500 {
		return fmt.Errorf("first offset %d, %d offset msgIds", result.QueueOffset, len(ids))
	}
	p, err := puller(s, topic)
	if err != nil {
		return err
	}
	for next := 0; next < 500; {
		messages, err := awaitPull(s, p, result.MessageQueue, int64(next))
		if err != nil {
			return err
		}
		for _, message := range messages {
			if message.QueueOffset != int64(next) || string(message.Body) != fmt.Sprintf("batch %d", next) ||
				message.GetKeys() != fmt.Sprintf("k%d", next) || message.GetTags() != "T" {
				return fmt.Errorf("message %d of the batch: %v", next, message)
			}
			next++
		}
	}
	return nil
}

func sendCompressed(s *scope) error {
	topic, err := s.topic(1)
	if err != nil {
		return err
	}
	body := bytes.Repeat([]byte("compress me "), 100_000)
	result, err := s.send(primitive.NewMessage(topic, body))
	if err != nil {
		return err
	}
	p, err := puller(s, topic)
	if err != nil {
		return err
	}
	stored, err := awaitPull(s, p, result.MessageQueue, 0)
	if err != nil {
		return err
	}
	if !bytes.Equal(stored[0].Body, body) || stored[0].SysFlag&1 == 0 || int(stored[0].StoreSize) >= len(body) {
		return fmt.Errorf("sysFlag %d, stored size %d", stored[0].SysFlag, stored[0].StoreSize)
	}
	return nil
}

func autoCreate(s *scope) error {
	result, err := s.send(primitive.NewMessage(s.unique("topic"), []byte("first")))
	if err != nil {
		return err
	}
	if result.MessageQueue.QueueId >= 4 {
		return fmt.Errorf("queue %d", result.MessageQueue.QueueId)
	}
	return nil
}

// Pulls by position: found, and beyond the end. (At the end the client lets the broker hold the request for 20 s.)
func pullFrom(s *scope) error {
	topic, err := s.topic(1)
	if err != nil {
		return err
	}
	var queue *primitive.MessageQueue
	for i := 0; i < 40; i++ {
		result, err := s.send(primitive.NewMessage(topic, []byte(fmt.Sprintf("m%d", i))))
		if err != nil {
			return err
		}
		queue = result.MessageQueue
	}
	p, err := puller(s, topic)
	if err != nil {
		return err
	}
	if _, err = awaitPull(s, p, queue, 39); err != nil {
		return err
	}
	for _, each := range []struct {
		offset, next int64
		status       primitive.PullStatus
	}{{0, 32, primitive.PullFound}, {32, 40, primitive.PullFound}, {41, 40, primitive.PullOffsetIllegal}} {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		result, err := p.PullFrom(ctx, queue, each.offset, 32)
		cancel()
		if err != nil {
			return fmt.Errorf("pull at %d: %w", each.offset, err)
		}
		if result.Status != each.status || result.NextBeginOffset != each.next || result.MinOffset != 0 || result.MaxOffset != 40 {
			return fmt.Errorf("pull at %d: %v", each.offset, result)
		}
	}
	return nil
}

// Two members share the queues and see each message exactly once; when one leaves, the other takes over.
func pushCluster(s *scope) error {
	topic, err := s.topic(8)
	if err != nil {
		return err
	}
	group := s.unique("group")
	_, first, err := start(s, group, topic, everything)
	if err != nil {
		return err
	}
	second, other, err := start(s, group, topic, everything)
	if err != nil {
		return err
	}
	// The members cannot be asked for their queues: send until both get some and none gets all.
	var sent []string
	err = s.await("both members to consume", 25*time.Second, func() (bool, error) {
		texts, err := s.sendTexts(topic, fmt.Sprintf("probe%d", len(sent)), 8)
		sent = append(sent, texts...)
		time.Sleep(200 * time.Millisecond)
		return len(first.queues()) > 0 && len(other.queues()) > 0, err
	})
	if err != nil {
		return err
	}
	err = s.await("all messages", 10*time.Second, func() (bool, error) {
		return len(first.bodies())+len(other.bodies()) >= len(sent), nil
	})
	if err != nil {
		return err
	}
	unique := map[string]bool{}
	for _, body := range append(first.bodies(), other.bodies()...) {
		unique[body] = true
	}
	if len(unique) != len(sent) {
		return fmt.Errorf("%d distinct messages of %d", len(unique), len(sent))
	}
	if err := second.Shutdown(); err != nil {
		return err
	}
	var later []string
	return s.await("the remaining member to get everything", 15*time.Second, func() (bool, error) {
		before := len(first.bodies())
		later, err = s.sendTexts(topic, fmt.Sprintf("later%d", before), 8)
		if err != nil {
			return false, err
		}
		time.Sleep(300 * time.Millisecond)
		got := strings.Join(first.bodies(), "\n") + "\n"
		for _, text := range later {
			if !strings.Contains(got, text+"\n") {
				return false, nil
			}
		}
		return true, nil
	})
}

func pushBroadcast(s *scope) error {
	topic, err := s.topic(2)
	if err != nil {
		return err
	}
	group := s.unique("group")
	_, one, err := start(s, group, topic, everything, consumer.WithConsumerModel(consumer.BroadCasting))
	if err != nil {
		return err
	}
	_, two, err := start(s, group, topic, everything, consumer.WithConsumerModel(consumer.BroadCasting))
	if err != nil {
		return err
	}
	sent, err := s.sendTexts(topic, "b", 20)
	if err != nil {
		return err
	}
	for _, collected := range []*collector{one, two} {
		if err := awaitCount(s, collected, 20); err != nil {
			return err
		}
		if err := same("a member's messages", sent, collected.bodies()); err != nil {
			return err
		}
	}
	return nil
}

// Only the wanted tag arrives, also when another one has the same Java hash.
func pushTags(s *scope) error {
	topic, err := s.topic(1)
	if err != nil {
		return err
	}
	_, collected, err := start(s, s.unique("group"), topic, consumer.MessageSelector{Type: consumer.TAG, Expression: "Aa || TagX"})
	if err != nil {
		return err
	}
	var expected []string
	for i := 0; i < 20; i++ {
		tag := []string{"BB", "Aa", "TagY", "TagX"}[i%4]
		text := fmt.Sprintf("%s %d", tag, i)
		if _, err := s.send(primitive.NewMessage(topic, []byte(text)).WithTag(tag)); err != nil {
			return err
		}
		if i%2 == 1 {
			expected = append(expected, text)
		}
	}
	if err := awaitCount(s, collected, len(expected)); err != nil {
		return err
	}
	return same("filtered messages", expected, collected.bodies())
}

// Each queue is consumed in order.
func pushOrderly(s *scope) error {
	topic, err := s.topic(4)
	if err != nil {
		return err
	}
	manual, err := rocketmq.NewProducer(producer.WithNameServer([]string{s.namesrv}), producer.WithGroupName(s.unique("group")),
		producer.WithInstanceName(s.unique("instance")), producer.WithQueueSelector(producer.NewHashQueueSelector()))
	if err != nil {
		return err
	}
	if err := manual.Start(); err != nil {
		return err
	}
	s.onClose(func() { _ = manual.Shutdown() })
	_, collected, err := start(s, s.unique("group"), topic, everything, consumer.WithConsumerOrder(true))
	if err != nil {
		return err
	}
	for i := 0; i < 100; i++ {
		message := primitive.NewMessage(topic, []byte(fmt.Sprintf("%d", i))).WithShardingKey(fmt.Sprintf("shard%d", i%10))
		if _, err := manual.SendSync(context.Background(), message); err != nil {
			return err
		}
	}
	if err := awaitCount(s, collected, 100); err != nil {
		return err
	}
	collected.mutex.Lock()
	defer collected.mutex.Unlock()
	next := map[int]int64{}
	for _, message := range collected.messages {
		if message.QueueOffset != next[message.Queue.QueueId] {
			return fmt.Errorf("offset %d of queue %d came when %d was due", message.QueueOffset, message.Queue.QueueId, next[message.Queue.QueueId])
		}
		next[message.Queue.QueueId]++
	}
	return nil
}

// A successor continues at the committed offset.
func consumerRestart(s *scope) error {
	topic, err := s.topic(1)
	if err != nil {
		return err
	}
	group := s.unique("group")
	first, collected, err := start(s, group, topic, everything)
	if err != nil {
		return err
	}
	if _, err := s.sendTexts(topic, "before", 20); err != nil {
		return err
	}
	if err := awaitCount(s, collected, 20); err != nil {
		return err
	}
	if err := first.Shutdown(); err != nil {
		return err
	}
	between, err := s.sendTexts(topic, "between", 10)
	if err != nil {
		return err
	}
	_, later, err := start(s, group, topic, everything)
	if err != nil {
		return err
	}
	if err := awaitCount(s, later, 10); err != nil {
		return err
	}
	return same("messages of the successor", between, later.bodies())
}
