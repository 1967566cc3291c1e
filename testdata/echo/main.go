// Command echo is an application for tests, and its client. Serving, it tells what arrived: over HTTP/1.1
// and h2c the request as JSON, over TCP the bytes themselves, in one case after a greeting.
//
//	echo serve --name a --http :8080 --tcp :9000 --greeting :9001
//	echo http --url http://10.0.0.1:8080/path --header "x-a: b"
//	echo tcp --address 10.0.0.1:9000 --send hello
//	echo dns --listen :53 --record a.example=10.0.0.1
//	echo resolve --name a.example
//	echo logs --listen :9000
//
// Clients print one answer as JSON; with --every, one per line until they are told to stop.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "serve":
			return serve(ctx, args[1:])
		case "http":
			return callHTTP(ctx, args[1:])
		case "tcp":
			return callTCP(ctx, args[1:])
		case "dns":
			return serveDNS(ctx, args[1:])
		case "resolve":
			return callResolver(ctx, args[1:])
		case "logs":
			return serveLogs(ctx, args[1:])
		}
	}
	return errors.New("want serve, http, tcp, dns, resolve or logs")
}
