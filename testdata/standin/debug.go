package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"meshbridge/gateway/apisixtest"
)

// serveDebug tells what the program has loaded, and what went wrong with that.
func (s *standin) serveDebug(ctx context.Context, group *errgroup.Group, client *apisixtest.Client) error {
	if s.debug == "" {
		return nil
	}
	l, err := net.Listen("tcp", s.debug)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /world", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(client.Snapshot())
	})
	mux.HandleFunc("GET /client", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"faults": client.Faults(), "reloads": client.Reloads()})
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	group.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return nil
}
