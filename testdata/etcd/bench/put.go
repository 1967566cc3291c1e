package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const valueSize = 1024

// noop answers puts without doing anything: the floor of any gRPC server.
type noop struct {
	pb.UnimplementedKVServer
}

// Put implements the etcd service.
func (noop) Put(context.Context, *pb.PutRequest) (*pb.PutResponse, error) {
	return &pb.PutResponse{Header: &pb.ResponseHeader{ClusterId: 1, MemberId: 1, Revision: 1, RaftTerm: 1}}, nil
}

func serveNoop(ctx context.Context) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	pb.RegisterKVServer(server, noop{})
	slog.New(slog.NewJSONHandler(os.Stderr, nil)).InfoContext(ctx, "serving noop",
		slog.String("address", listener.Addr().String()))
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	return server.Serve(listener)
}

func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
}

func (o *options) measurePut(ctx context.Context, dir string) error {
	t := table{
		title:  fmt.Sprintf("Put over gRPC, %d B values", valueSize),
		header: []string{"server", "clients", "puts/s", "p50 / p99 ms", "server CPU µs per put"},
	}
	for _, start := range []func(context.Context, string) (*process, error){o.startNoop, o.startEtcd, o.startStore} {
		p, err := start(ctx, dir)
		if err != nil {
			return err
		}
		for _, clients := range []int{1, 64} {
			r, err := o.putLoad(ctx, p, clients)
			if err != nil {
				p.stop()
				return err
			}
			t.add(p.name, strconv.Itoa(clients), rate(len(r.latencies), o.per), p50p99(r.latencies), micros(r.cpu, len(r.latencies)))
		}
		p.stop()
	}
	t.print()
	return nil
}

type putResult struct {
	latencies []time.Duration
	cpu       time.Duration
}

// putLoad puts as fast as the clients can, each on a connection of its own.
func (o *options) putLoad(ctx context.Context, p *process, clients int) (putResult, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	value := make([]byte, valueSize)
	before, err := p.cpu()
	if err != nil {
		return putResult{}, err
	}
	end := time.Now().Add(o.per)
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		all []time.Duration
	)
	for client := range clients {
		wg.Go(func() {
			latencies, err := putUntil(ctx, p.address, end, client, value)
			if err != nil {
				cancel(err)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, latencies...)
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return putResult{}, err
	}
	after, err := p.cpu()
	return putResult{latencies: all, cpu: after - before}, err
}

func putUntil(ctx context.Context, address string, end time.Time, client int, value []byte) ([]time.Duration, error) {
	conn, err := dial(address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	kv := pb.NewKVClient(conn)
	var latencies []time.Duration
	for i := 0; ; i++ {
		sent := time.Now()
		if sent.After(end) {
			return latencies, nil
		}
		key := fmt.Appendf(nil, "/put/%02d/%04d", client, i%1000)
		if _, err := kv.Put(ctx, &pb.PutRequest{Key: key, Value: value}); err != nil {
			return nil, err
		}
		latencies = append(latencies, time.Since(sent))
	}
}
