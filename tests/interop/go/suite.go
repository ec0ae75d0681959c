// Interop suite of the Go client, rocketmq-client-go v2. Runs its scenarios one after the other against a name server and
// a broker, each bounded by 60 s. Prints `PASS name ms` or `FAIL name: reason`, then `N passed, N failed`; exits with 1 if
// any failed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync/atomic"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
	"github.com/apache/rocketmq-client-go/v2/rlog"
)

// The client's rebalance period is fixed at 20 s; a scenario may have to wait for it once.
const scenarioTimeout = 180 * time.Second

type scenario struct {
	name string
	run  func(*scope) error
}

// scope is what a scenario works with. Its clients are shut down when the scenario ends.
type scope struct {
	namesrv  string
	broker   string
	producer rocketmq.Producer
	name     string
	closers  []func()
}

var (
	run     = fmt.Sprintf("%x", time.Now().UnixMilli()&0xffffffff)
	counter atomic.Int64
)

func (s *scope) unique(kind string) string {
	return fmt.Sprintf("go_%s_%s_%s%d", strings.ReplaceAll(s.name, "-", "_"), kind, run, counter.Add(1))
}

// topic creates a topic on the broker and waits until a producer can see it.
func (s *scope) topic(queues int) (string, error) {
	name := s.unique("topic")
	a, err := admin.NewAdmin(admin.WithResolver(primitive.NewPassthroughResolver([]string{s.namesrv})))
	if err != nil {
		return "", err
	}
	defer a.Close()
	err = a.CreateTopic(context.Background(), admin.WithTopicCreate(name), admin.WithBrokerAddrCreate(s.broker),
		admin.WithReadQueueNums(queues), admin.WithWriteQueueNums(queues))
	if err != nil {
		return "", fmt.Errorf("create topic: %w", err)
	}
	return name, s.await("queues of "+name, 5*time.Second, func() (bool, error) {
		found, err := a.FetchPublishMessageQueues(context.Background(), name)
		return err == nil && len(found) == queues, nil
	})
}

// pusher makes a push consumer that starts at the first offset and has its own connection.
func (s *scope) pusher(group string, options ...consumer.Option) (rocketmq.PushConsumer, error) {
	all := append([]consumer.Option{
		consumer.WithNameServer([]string{s.namesrv}),
		consumer.WithGroupName(group),
		consumer.WithInstance(s.unique("instance")),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
	}, options...)
	c, err := rocketmq.NewPushConsumer(all...)
	if err == nil {
		s.onClose(func() { _ = c.Shutdown() })
	}
	return c, err
}

func (s *scope) onClose(f func()) {
	s.closers = append(s.closers, f)
}

func (s *scope) close() {
	for i := len(s.closers) - 1; i >= 0; i-- {
		s.closers[i]()
	}
}

// await fails after four times what it takes on a machine that nothing disturbs.
func (s *scope) await(what string, timeout time.Duration, condition func() (bool, error)) error {
	timeout *= 4
	deadline := time.Now().Add(timeout)
	for {
		ok, err := condition()
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if ok {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %s", timeout, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// send insists on SendOK.
func (s *scope) send(messages ...*primitive.Message) (*primitive.SendResult, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	result, err := s.producer.SendSync(ctx, messages...)
	if err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	if result.Status != primitive.SendOK {
		return nil, fmt.Errorf("send status %d", result.Status)
	}
	return result, nil
}

func (s *scope) sendTexts(topic, prefix string, count int) ([]string, error) {
	var texts []string
	for i := 0; i < count; i++ {
		text := fmt.Sprintf("%s-%d", prefix, i)
		if _, err := s.send(primitive.NewMessage(topic, []byte(text))); err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	return texts, nil
}

func same(what string, expected, actual []string) error {
	a, b := append([]string(nil), expected...), append([]string(nil), actual...)
	sort.Strings(a)
	sort.Strings(b)
	if strings.Join(a, "\n") != strings.Join(b, "\n") {
		return fmt.Errorf("%s: expected %d messages, got %d, or other ones", what, len(a), len(b))
	}
	return nil
}

// attempt runs one scenario under the time limit.
func attempt(s *scope, f func(*scope) error) (err error) {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if problem := recover(); problem != nil {
				done <- fmt.Errorf("panic: %v", problem)
			}
		}()
		done <- f(s)
	}()
	select {
	case err = <-done:
		s.close()
	case <-time.After(scenarioTimeout):
		err = fmt.Errorf("not done after %v", scenarioTimeout)
	}
	return err
}

func main() {
	namesrv := flag.String("namesrv", "", "name server, HOST:PORT")
	broker := flag.String("broker", "", "broker, HOST:PORT")
	only := flag.String("only", "", "names of scenarios, separated by commas")
	flag.Parse()
	if *namesrv == "" || *broker == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	rlog.SetLogLevel("error")
	_ = rlog.SetOutputPath(os.DevNull)
	p, err := rocketmq.NewProducer(producer.WithNameServer([]string{*namesrv}), producer.WithGroupName("go_producer_"+run),
		producer.WithInstanceName("go_producer_"+run), producer.WithSendMsgTimeout(10*time.Second),
		producer.WithQueueSelector(producer.NewRoundRobinQueueSelector()))
	if err == nil {
		err = p.Start()
	}
	if err != nil {
		fmt.Println("FAIL start:", err)
		os.Exit(1)
	}
	wanted := map[string]bool{}
	for _, name := range strings.Split(*only, ",") {
		if name != "" {
			wanted[name] = true
		}
	}
	passed, failed := 0, 0
	for _, each := range scenarios {
		if len(wanted) > 0 && !wanted[each.name] {
			continue
		}
		delete(wanted, each.name)
		start := time.Now()
		if err := attempt(&scope{namesrv: *namesrv, broker: *broker, producer: p, name: each.name}, each.run); err != nil {
			failed++
			fmt.Printf("FAIL %s: %s\n", each.name, strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			passed++
			fmt.Printf("PASS %s %d ms\n", each.name, time.Since(start).Milliseconds())
		}
		if len(wanted) == 0 && *only != "" {
			break
		}
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 || len(wanted) > 0 {
		os.Exit(1)
	}
}
