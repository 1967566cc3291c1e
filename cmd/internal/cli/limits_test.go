package cli

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"meshbridge/gateway"
)

// Without flags the limits are the gateway's, and zero turns pings off as in etcd.
func TestLimitFlags(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want func(*gateway.Limits)
	}{
		"defaults":         {nil, func(*gateway.Limits) {}},
		"no pings":         {[]string{"--grpc-keepalive-interval=0"}, func(l *gateway.Limits) { l.KeepaliveInterval = math.MaxInt64 }},
		"no waiting":       {[]string{"--grpc-keepalive-timeout=0"}, func(l *gateway.Limits) { l.KeepaliveInterval, l.KeepaliveTimeout = math.MaxInt64, 0 }},
		"larger requests":  {[]string{"--max-request-bytes=10000000"}, func(l *gateway.Limits) { l.RequestBytes = 10_000_000 }},
		"fewer of a thing": {[]string{"--max-txn-ops=1", "--max-connections=9"}, func(l *gateway.Limits) { l.TxnOps, l.Connections = 1, 9 }},
	} {
		var o limitOptions
		f := pflag.NewFlagSet(name, pflag.ContinueOnError)
		o.add(f)
		if err := f.Parse(test.args); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		d := gateway.DefaultLimits()
		want := gateway.Limits{
			RequestBytes: d.RequestBytes, TxnOps: d.TxnOps, Streams: d.Streams, WatchesPerStream: d.WatchesPerStream, Watches: d.Watches,
			KeepaliveMinTime: d.KeepaliveMinTime, KeepaliveInterval: d.KeepaliveInterval, KeepaliveTimeout: d.KeepaliveTimeout,
		}
		test.want(&want)
		if diff := cmp.Diff(want, o.resolve()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
