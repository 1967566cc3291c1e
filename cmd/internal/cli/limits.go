package cli

import (
	"math"

	"github.com/spf13/pflag"

	"meshbridge/gateway"
)

// limitOptions bound what clients of the etcd port can make the server spend, and say what browsers
// may do. Names and defaults are etcd's where etcd has the flag.
type limitOptions struct {
	limits      gateway.Limits
	cors, hosts []string
}

func (o *limitOptions) add(f *pflag.FlagSet) {
	d := gateway.DefaultLimits()
	l := &o.limits
	f.IntVar(&l.RequestBytes, "max-request-bytes", d.RequestBytes, "largest write in `bytes`")
	f.IntVar(&l.TxnOps, "max-txn-ops", d.TxnOps, "largest `number` of operations in a transaction")
	f.Uint32Var(&l.Streams, "max-concurrent-streams", d.Streams, "largest `number` of streams that one gRPC connection may have open")
	f.IntVar(&l.Connections, "max-connections", 0, "largest `number` of client connections; 0 is the limit of open files less 150")
	f.IntVar(&l.WatchesPerStream, "max-watches-per-stream", d.WatchesPerStream, "largest `number` of watches in one stream")
	f.IntVar(&l.Watches, "max-watches", d.Watches, "largest `number` of watches in all")
	f.DurationVar(&l.KeepaliveMinTime, "grpc-keepalive-min-time", d.KeepaliveMinTime, "least `duration` between pings of a gRPC client")
	f.DurationVar(&l.KeepaliveInterval, "grpc-keepalive-interval", d.KeepaliveInterval, "`duration` after which an idle gRPC client is pinged; 0 never does")
	f.DurationVar(&l.KeepaliveTimeout, "grpc-keepalive-timeout", d.KeepaliveTimeout, "`duration` for which the answer to a ping is waited for; 0 turns pings off")
	f.StringSliceVar(&o.cors, "cors", []string{"*"}, "`origins` that browsers may use the JSON gateway from; * is all")
	f.StringSliceVar(&o.hosts, "host-whitelist", []string{"*"}, "`host names` that HTTP requests without TLS may be for; * is all")
}

// resolve makes what the options describe. To the gateway zero means its default, and not never.
func (o *limitOptions) resolve() gateway.Limits {
	limits := o.limits
	if limits.KeepaliveInterval == 0 || limits.KeepaliveTimeout == 0 {
		limits.KeepaliveInterval = math.MaxInt64
	}
	return limits
}
