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

// Txn implements the etcd service.
func (noop) Txn(context.Context, *pb.TxnRequest) (*pb.TxnResponse, error) {
	header := &pb.ResponseHeader{ClusterId: 1, MemberId: 1, Revision: 1, RaftTerm: 1}
	return &pb.TxnResponse{Header: header, Succeeded: true}, nil
}

// write is one request of a client, about its own n-th key.
type write func(ctx context.Context, kv pb.KVClient, key, value []byte) error

func put(ctx context.Context, kv pb.KVClient, key, value []byte) error {
	_, err := kv.Put(ctx, &pb.PutRequest{Key: key, Value: value})
	return err
}

// compareAndPut is what clients do that must not overwrite each other: a
// condition, a put when it holds and a read when it does not.
func compareAndPut(ctx context.Context, kv pb.KVClient, key, value []byte) error {
	_, err := kv.Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{{
			Key: key, Target: pb.Compare_VERSION, Result: pb.Compare_LESS, TargetUnion: &pb.Compare_Version{Version: 1 << 40},
		}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value}}}},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}},
	})
	return err
}

func (o *options) measurePut(ctx context.Context, dir string) error {
	return o.measureWrites(ctx, dir, "Put", put)
}

func (o *options) measureTxn(ctx context.Context, dir string) error {
	return o.measureWrites(ctx, dir, "Transaction of one condition and one put", compareAndPut)
}

func (o *options) measureWrites(ctx context.Context, dir, title string, do write) error {
	t := table{
		title:  fmt.Sprintf("%s over gRPC, %d B values", title, valueSize),
		header: []string{"server", "clients", "requests/s", "p50 / p99 ms", "server CPU µs per request"},
	}
	for _, start := range append([]func(context.Context, string) (*process, error){o.startNoop}, o.servers()...) {
		p, err := start(ctx, dir)
		if err != nil {
			return err
		}
		for _, clients := range []int{1, 64} {
			r, err := o.writeLoad(ctx, p, clients, do)
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

type writeResult struct {
	latencies []time.Duration
	cpu       time.Duration
}

// writeLoad writes as fast as the clients can, each on a connection of its own.
func (o *options) writeLoad(ctx context.Context, p *process, clients int, do write) (writeResult, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	value := make([]byte, valueSize)
	before, err := p.cpu()
	if err != nil {
		return writeResult{}, err
	}
	end := time.Now().Add(o.per)
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		all []time.Duration
	)
	for client := range clients {
		wg.Go(func() {
			latencies, err := writeUntil(ctx, p.address, end, client, value, do)
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
		return writeResult{}, err
	}
	after, err := p.cpu()
	return writeResult{latencies: all, cpu: after - before}, err
}

func writeUntil(ctx context.Context, address string, end time.Time, client int, value []byte, do write) ([]time.Duration, error) {
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
		if err := do(ctx, kv, fmt.Appendf(nil, "/put/%02d/%04d", client, i%1000), value); err != nil {
			return nil, err
		}
		latencies = append(latencies, time.Since(sent))
	}
}
