package gateway_test

import (
	"context"
	"fmt"
	"net"

	clientv3 "go.etcd.io/etcd/client/v3"

	"meshbridge/gateway"
	"meshbridge/store"
)

// A store and a gateway make an etcd that any of its clients can use.
func Example() {
	kv, err := store.New(store.Config{})
	if err != nil {
		panic(err)
	}
	server, err := gateway.New(gateway.Config{Store: kv})
	if err != nil {
		panic(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- server.Serve(ctx, listener) }()

	client, err := clientv3.New(clientv3.Config{Endpoints: []string{listener.Addr().String()}})
	if err != nil {
		panic(err)
	}
	events := client.Watch(ctx, "/services/", clientv3.WithPrefix())
	if _, err := kv.Put(store.PutOp{Key: []byte("/services/a"), Value: []byte("10.0.0.1:80")}); err != nil {
		panic(err)
	}
	for _, e := range (<-events).Events {
		fmt.Printf("%s %s %s\n", e.GetType(), e.GetKv().GetKey(), e.GetKv().GetValue())
	}

	if err := client.Close(); err != nil {
		panic(err)
	}
	stop()
	fmt.Println("served:", <-served)
	// Output:
	// PUT /services/a 10.0.0.1:80
	// served: <nil>
}
