package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Greeting is what a server that speaks first says.
const Greeting = "220 ready\n"

// Request is what the server tells of a request.
type Request struct {
	Name, Method, Host, URI, Protocol string
	Remote, Local                     string
	Headers                           http.Header
	// ServerName and Peer are of TLS: what the client asked for, and who it is.
	ServerName string
	Peer       []string
}

func serve(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	name := flags.String("name", "echo", "name to answer with")
	web := flags.String("http", "", "addresses for HTTP, with commas between them")
	plain := flags.String("tcp", "", "addresses that give back what they get")
	greeting := flags.String("greeting", "", "addresses that greet first")
	secure := flags.String("tls", "", "addresses for HTTPS, by default with a certificate that nobody knows")
	var files pki
	files.add(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	listen := func(addresses string, serve func(net.Listener) error) error {
		for address := range strings.SplitSeq(addresses, ",") {
			if address == "" {
				continue
			}
			l, err := net.Listen("tcp", address)
			if err != nil {
				return err
			}
			context.AfterFunc(ctx, func() { _ = l.Close() })
			group.Go(func() error {
				if err := serve(l); ctx.Err() == nil {
					return err
				}
				return nil
			})
		}
		return nil
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: protocols, ReadHeaderTimeout: time.Minute, Handler: answer(*name)}
	if err := listen(*web, server.Serve); err != nil {
		return err
	}
	config, err := files.server()
	if err != nil {
		return err
	}
	if err := listen(*secure, func(l net.Listener) error { return server.Serve(tls.NewListener(l, config)) }); err != nil {
		return err
	}
	if err := listen(*plain, func(l net.Listener) error { return echo(l, *name+" ") }); err != nil {
		return err
	}
	if err := listen(*greeting, func(l net.Listener) error { return echo(l, Greeting) }); err != nil {
		return err
	}
	fmt.Println("ready")
	return group.Wait()
}

// answer tells what arrived, after the time that the query's "wait" says.
func answer(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if wait, err := time.ParseDuration(r.URL.Query().Get("wait")); err == nil {
			timer := time.NewTimer(wait)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-r.Context().Done():
				return
			}
		}
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		seen := Request{
			Name: name, Method: r.Method, Host: r.Host, URI: r.RequestURI, Protocol: r.Proto,
			Remote: r.RemoteAddr, Local: local.String(), Headers: r.Header,
		}
		if r.TLS != nil {
			seen.ServerName, seen.Peer = r.TLS.ServerName, names(r.TLS.PeerCertificates)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(seen)
	}
}

// echo gives back what it gets, behind a greeting.
func echo(l net.Listener, greeting string) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = conn.Close() }()
			if _, err := io.WriteString(conn, greeting); err == nil {
				_, _ = io.Copy(conn, conn)
			}
		}()
	}
}

// selfSigned makes a certificate.
func selfSigned() (tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"echo"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, err
}
