package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	rangeKeys   = 10_000
	rangePrefix = "/range/"
)

func prefixEnd(prefix string) string {
	return prefix[:len(prefix)-1] + string(prefix[len(prefix)-1]+1)
}

func (o *options) measureRange(ctx context.Context, dir string) error {
	t := table{
		title:  fmt.Sprintf("Range of %d keys of %d B", rangeKeys, valueSize),
		header: []string{"server", "protocol", "p50 / p99 ms", "server CPU ms per range", "MB received", "server RSS MB"},
	}
	for _, start := range o.servers() {
		p, err := start(ctx, dir)
		if err != nil {
			return err
		}
		err = o.rangeRows(ctx, p, &t)
		p.stop()
		if err != nil {
			return err
		}
	}
	t.print()
	return nil
}

func (o *options) rangeRows(ctx context.Context, p *process, t *table) error {
	conn, err := dial(p.address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	kv := pb.NewKVClient(conn)
	if err := fill(ctx, kv, rangePrefix, rangeKeys); err != nil {
		return err
	}
	overGRPC := func() (int, error) {
		r, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte(rangePrefix), RangeEnd: []byte(prefixEnd(rangePrefix))})
		if err != nil {
			return 0, err
		}
		if len(r.GetKvs()) != rangeKeys {
			return 0, fmt.Errorf("%s: %d keys over gRPC, want %d", p.name, len(r.GetKvs()), rangeKeys)
		}
		return rangeKeys * valueSize, nil
	}
	overHTTP := func() (int, error) { return rangeHTTP(ctx, p.address, rangePrefix) }
	for _, way := range []struct {
		name string
		read func() (int, error)
	}{{"gRPC", overGRPC}, {"HTTP", overHTTP}} {
		if err := o.rangeRow(p, way.name, way.read, t); err != nil {
			return err
		}
	}
	return nil
}

func (o *options) rangeRow(p *process, way string, read func() (int, error), t *table) error {
	if _, err := read(); err != nil { // not timed: what is cached is cached
		return err
	}
	before, err := p.cpu()
	if err != nil {
		return err
	}
	var latencies []time.Duration
	size := 0
	for end := time.Now().Add(o.per); time.Now().Before(end); {
		sent := time.Now()
		if size, err = read(); err != nil {
			return err
		}
		latencies = append(latencies, time.Since(sent))
	}
	after, err := p.cpu()
	if err != nil {
		return err
	}
	used, err := p.memory()
	if err != nil {
		return err
	}
	t.add(p.name, way, p50p99(latencies), millis((after-before)/time.Duration(len(latencies))), megabytes(int64(size)), megabytes(used.resident))
	return nil
}

// fill puts n keys of valueSize below the prefix.
func fill(ctx context.Context, kv pb.KVClient, prefix string, n int) error {
	value := bytes.Repeat([]byte("v"), valueSize)
	for i := 0; i < n; i += 100 {
		txn := &pb.TxnRequest{}
		for j := i; j < min(i+100, n); j++ {
			txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
				RequestPut: &pb.PutRequest{Key: fmt.Appendf(nil, "%s%08d", prefix, j), Value: value},
			}})
		}
		if _, err := kv.Txn(ctx, txn); err != nil {
			return err
		}
	}
	return nil
}

func countKeys(ctx context.Context, address, prefix string) (int64, error) {
	conn, err := dial(address)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	r, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte(prefix), RangeEnd: []byte(prefixEnd(prefix)), CountOnly: true})
	return r.GetCount(), err
}

// rangeHTTP reads a prefix as APISIX does and returns the size of the answer.
func rangeHTTP(ctx context.Context, address, prefix string) (int, error) {
	response, err := post(ctx, http.DefaultClient, address, "/v3/kv/range", map[string]any{
		"key": []byte(prefix), "range_end": []byte(prefixEnd(prefix)),
	})
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	n, err := io.Copy(io.Discard, response.Body)
	return int(n), err
}

func post(ctx context.Context, client *http.Client, address, path string, body any) (*http.Response, error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+path, bytes.NewReader(encoded))
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1000))
		_ = response.Body.Close()
		return nil, fmt.Errorf("%s: %s: %s", path, response.Status, text)
	}
	return response, nil
}
