// Command standin stands in for APISIX where there is none: it follows the etcd port as APISIX does, and
// serves HTTP and TCP behind capture by the objects it finds there, on the ports of the rendered
// configuration. Which route a request takes is decided by the model in translate/apisix; headers of the
// PROXY protocol are read as nginx reads them.
//
//	go run ./testdata/standin --etcd http://127.0.0.1:2379
//
// With --plain it serves HTTP to clients that connect to it themselves, as APISIX does in profile gateway.
//
// It serves what tests need: routes, upstreams by weight and priority, stream_routes, certificates by
// server name. It is no proxy for anything else.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"meshbridge/gateway/apisixtest"
	"meshbridge/translate/apisix"
)

type config struct {
	etcd, prefix    string
	http, https     string
	streamAddress   string
	firstStreamPort int
	lastStreamPort  int
	plain           bool
	debug           string
}

func main() {
	var c config
	flag.StringVar(&c.etcd, "etcd", "http://127.0.0.1:2379", "the bridge's etcd port")
	flag.StringVar(&c.prefix, "prefix", "/apisix", "etcd prefix")
	flag.StringVar(&c.http, "http", "127.0.0.1:15480", "address for HTTP with a PROXY protocol header")
	flag.StringVar(&c.https, "https", "127.0.0.1:15481", "address for HTTPS with a PROXY protocol header")
	flag.StringVar(&c.streamAddress, "streams", "127.0.0.1", "address of the stream ports")
	flag.IntVar(&c.firstStreamPort, "first-stream-port", 16000, "first port for TCP with a PROXY protocol header")
	flag.IntVar(&c.lastStreamPort, "last-stream-port", 16063, "last port for TCP with a PROXY protocol header")
	flag.BoolVar(&c.plain, "plain", false, "serve HTTP without a PROXY protocol header, and nothing else")
	flag.StringVar(&c.debug, "debug", "", "address where it tells of itself: /world, /client")
	flag.Parse()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, c, log)
	stop()
	if err != nil {
		log.Error("stand-in ended", slog.Any("error", err))
		os.Exit(1)
	}
}

// standin is the running program.
type standin struct {
	config
	log   *slog.Logger
	world atomic.Pointer[world]
}

func run(ctx context.Context, c config, log *slog.Logger) error {
	client, err := apisixtest.New(apisixtest.V3_18, c.etcd, c.prefix)
	if err != nil {
		return err
	}
	s := &standin{config: c, log: log}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return client.Run(ctx) })
	first := make(chan struct{})
	group.Go(func() error { return s.follow(ctx, client, first) })
	if err := s.serveDebug(ctx, group, client); err != nil {
		return errors.Join(err, group.Wait())
	}
	select {
	case <-first:
	case <-ctx.Done():
		return group.Wait()
	}
	if err := s.serveHTTP(ctx, group); err != nil {
		return errors.Join(err, group.Wait())
	}
	if !s.plain {
		if err := s.serveStreams(ctx, group); err != nil {
			return errors.Join(err, group.Wait())
		}
	}
	fmt.Println("ready")
	return group.Wait()
}

// world is what the objects of a moment make.
type world struct {
	objects   map[string]string
	evaluator *apisix.Evaluator
	streams   map[int]*apisix.Upstream // by port
	ssls      []*apisix.SSL
}

// follow replaces the world whenever the objects change.
func (s *standin) follow(ctx context.Context, client *apisixtest.Client, first chan<- struct{}) error {
	var last map[string]string
	for {
		var now map[string]string
		err := client.WaitFor(ctx, func(objects map[string]string) bool {
			// An APISIX that was started before its etcd loads one directory after the other.
			if last == nil && !hasRoutes(s.prefix, objects) || maps.Equal(objects, last) {
				return false
			}
			now = maps.Clone(objects)
			return true
		})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		w, err := newWorld(s.prefix, now)
		if err != nil {
			return err
		}
		s.world.Store(w)
		s.log.Debug("objects", slog.Int("count", len(now)))
		if last == nil {
			close(first)
		}
		last = now
	}
}

func hasRoutes(prefix string, objects map[string]string) bool {
	for key := range objects {
		if strings.HasPrefix(key, prefix+"/"+string(apisix.KindRoute)+"/") {
			return true
		}
	}
	return false
}

func newWorld(prefix string, objects map[string]string) (*world, error) {
	w := &world{objects: objects, streams: map[int]*apisix.Upstream{}}
	all := parse(prefix, objects)
	var err error
	if w.evaluator, err = apisix.NewEvaluator(slices.Values(all), apisix.Options{FallbackSNI: "no-sni.mesh"}); err != nil {
		return nil, err
	}
	upstreams := map[string]*apisix.Upstream{}
	for u := range decoded[apisix.Upstream](all, apisix.KindUpstream) {
		upstreams[u.ID] = u
	}
	for r := range decoded[streamRoute](all, apisix.KindStreamRoute) {
		w.streams[r.ServerPort] = upstreams[r.UpstreamID]
	}
	w.ssls = slices.Collect(decoded[apisix.SSL](all, apisix.KindSSL))
	return w, nil
}

type streamRoute struct {
	ServerPort int    `json:"server_port"`
	UpstreamID string `json:"upstream_id"`
}

// parse returns the objects in the order of their keys.
func parse(prefix string, objects map[string]string) (all []apisix.Object) {
	for _, key := range slices.Sorted(maps.Keys(objects)) {
		kind, id, ok := apisix.ParseKey(strings.TrimPrefix(key, prefix+"/"))
		if ok && id != "" {
			all = append(all, apisix.Object{Kind: kind, ID: id, Value: []byte(objects[key])})
		}
	}
	return all
}

func decoded[T any](all []apisix.Object, kind apisix.Kind) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for _, o := range all {
			if o.Kind != kind {
				continue
			}
			v := new(T)
			if decode(o.Value, v) == nil && !yield(v) {
				return
			}
		}
	}
}

// nodesOf returns the nodes in the order in which they are tried: the best priority first, in it one by
// weight and then the others.
func nodesOf(u *apisix.Upstream) []apisix.Node {
	if u == nil {
		return nil
	}
	nodes := slices.Clone(u.Nodes)
	order := make(map[apisix.Node]float64, len(nodes))
	for _, n := range nodes {
		order[n] = rand.ExpFloat64() / (float64(n.Weight) + 1e-9)
	}
	slices.SortFunc(nodes, func(a, b apisix.Node) int {
		switch {
		case a.Priority != b.Priority:
			return b.Priority - a.Priority
		case order[a] < order[b]:
			return -1
		}
		return 1
	})
	return nodes
}

// dialer connects to nodes: from 127.0.0.6 for inbound chains, as the rendered configuration says.
func dialer(chain string) *net.Dialer {
	d := &net.Dialer{Timeout: 5 * time.Second}
	if strings.HasPrefix(chain, "i:") {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 6)}
	}
	return d
}
