package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"meshbridge/gateway"
	"meshbridge/store"
)

// cpu is the processor time that this process has used. Client and server share it, so figures per
// event are upper bounds.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkPutGRPC(b *testing.B) {
	s := start(b, gateway.Config{})
	kv := pb.NewKVClient(etcdClient(b, s).ActiveConnection())
	request := &pb.PutRequest{Key: []byte("/apisix/routes/1"), Value: bytes.Repeat([]byte("v"), 256)}
	b.SetParallelism(32) // clients per processor
	before := cpu()
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := kv.Put(context.Background(), request); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

// filled is a server with 10,000 objects of 1 KiB.
func filled(b *testing.B) *server {
	b.Helper()
	s := start(b, gateway.Config{})
	var txn store.Txn
	for n := range 10_000 {
		txn.Success = append(txn.Success, store.Op{Put: &store.PutOp{
			Key: fmt.Appendf(nil, "/apisix/routes/%05d", n), Value: bytes.Repeat([]byte("v"), 1<<10),
		}})
	}
	if _, err := s.store.Txn(txn); err != nil {
		b.Fatal(err)
	}
	return s
}

func BenchmarkRange10kHTTP(b *testing.B) {
	s := filled(b)
	body := `{"key":"` + b64("/apisix/") + `","range_end":"` + b64("/apisix0") + `"}`
	client := httpClient(b)
	scratch := make([]byte, 1<<20)
	before := cpu()
	for b.Loop() {
		r, err := client.Post(s.url+"/v3/kv/range", "", strings.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r.Body, scratch)
		if err != nil {
			b.Fatal(err)
		}
		_ = r.Body.Close()
		b.SetBytes(n)
	}
	b.ReportMetric(float64((cpu()-before).Milliseconds())/float64(b.N), "cpu-ms/op")
}

func BenchmarkRange10kGRPC(b *testing.B) {
	s := filled(b)
	c := etcdClient(b, s)
	before := cpu()
	for b.Loop() {
		r, err := c.Get(context.Background(), "/apisix/", clientv3.WithPrefix())
		if err != nil || r.Count != 10_000 {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpu()-before).Milliseconds())/float64(b.N), "cpu-ms/op")
}

// fanOut measures events through a number of watchers: open starts one that calls got for every event.
// Each put waits for all of them, so every event wakes an idle connection.
func fanOut(b *testing.B, open func(b *testing.B, s *server, got func())) {
	b.Helper()
	for _, watchers := range []int{1, 100, 1000} {
		b.Run(strconv.Itoa(watchers), func(b *testing.B) {
			s := start(b, gateway.Config{})
			var count atomic.Int64
			var all atomic.Pointer[sync.WaitGroup]
			got := func() { count.Add(1); all.Load().Done() }
			for range watchers {
				open(b, s, got)
			}
			value := strings.Repeat("v", 256)
			before := cpu()
			for b.Loop() {
				var round sync.WaitGroup
				round.Add(watchers)
				all.Store(&round)
				put(b, s.store, "/apisix/routes/1", value)
				round.Wait()
			}
			events := float64(count.Load())
			b.ReportMetric(float64((cpu()-before).Nanoseconds())/events/1000, "cpu-µs/event")
			b.ReportMetric(events/b.Elapsed().Seconds(), "events/s")
		})
	}
}

func BenchmarkFanOutHTTP(b *testing.B) {
	fanOut(b, func(b *testing.B, s *server, got func()) {
		b.Helper()
		body := `{"create_request":{"key":"L2FwaXNpeC8=","range_end":"L2FwaXNpeDA="}}`
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		fmt.Fprintf(conn, "POST /v3/watch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		reader := bufio.NewReaderSize(conn, 1<<10)
		created := make(chan struct{})
		go func() {
			for {
				line, err := reader.ReadSlice('\n')
				switch {
				case err != nil:
					return
				case bytes.Contains(line, []byte(`"created"`)):
					close(created)
				case bytes.Contains(line, []byte(`"events"`)):
					got()
				}
			}
		}()
		<-created
	})
}

func BenchmarkFanOutGRPC(b *testing.B) {
	fanOut(b, func(b *testing.B, s *server, got func()) {
		b.Helper()
		stream := openWatch(b, s, create(&pb.WatchCreateRequest{Key: []byte("/apisix/"), RangeEnd: []byte("/apisix0")}))
		receive(b, stream)
		go func() {
			for {
				r, err := stream.Recv()
				if err != nil {
					return
				}
				for range r.GetEvents() {
					got()
				}
			}
		}()
	})
}
