// Command echo is an application for tests, and its client. Serving, it tells what arrived: over HTTP/1.1
// and h2c the request as JSON, over TCP the bytes themselves, in one case after a greeting.
//
//	echo serve --name a --http :8080 --tcp :9000 --greeting :9001
//	echo http --url http://10.0.0.1:8080/path --header "x-a: b"
//	echo tcp --address 10.0.0.1:9000 --send hello
package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Greeting is what a server that speaks first says.
const Greeting = "220 ready\n"

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
		}
	}
	return errors.New("want serve, http or tcp")
}

// Request is what the server tells of a request.
type Request struct {
	Name, Method, Host, URI, Protocol string
	Remote, Local                     string
	Headers                           http.Header
}

func serve(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	name := flags.String("name", "echo", "name to answer with")
	web := flags.String("http", "", "addresses for HTTP, with commas between them")
	plain := flags.String("tcp", "", "addresses that give back what they get")
	greeting := flags.String("greeting", "", "addresses that greet first")
	secure := flags.String("tls", "", "addresses for HTTPS, with a certificate that nobody knows")
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
	server := &http.Server{Protocols: protocols, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(Request{*name, r.Method, r.Host, r.RequestURI, r.Proto, r.RemoteAddr, local.String(), r.Header})
	})}
	if err := listen(*web, server.Serve); err != nil {
		return err
	}
	certificate, err := selfSigned()
	if err != nil {
		return err
	}
	if err := listen(*secure, func(l net.Listener) error {
		return server.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}}))
	}); err != nil {
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

// Answer is what the client prints.
type Answer struct {
	Status  int
	Headers http.Header
	Body    string
	Error   string `json:",omitempty"`
}

func callHTTP(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("http", flag.ContinueOnError)
	url := flags.String("url", "", "URL")
	method := flags.String("method", "GET", "method")
	address := flags.String("address", "", "where to connect to, instead of the URL's host")
	serverName := flags.String("server-name", "", "TLS server name, instead of the URL's host")
	h2c := flags.Bool("h2c", false, "speak HTTP/2 without TLS")
	timeout := flags.Duration("timeout", 10*time.Second, "time limit")
	header := http.Header{}
	host := ""
	flags.Func("header", "`name: value`", func(s string) error {
		name, value, ok := strings.Cut(s, ":")
		if !ok {
			return fmt.Errorf("%q is no header", s)
		}
		if strings.EqualFold(name, "host") {
			host = strings.TrimSpace(value)
			return nil
		}
		header.Add(name, strings.TrimSpace(value))
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, *method, *url, nil)
	if err != nil {
		return err
	}
	r.Header, r.Host = header, host
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!*h2c)
	protocols.SetUnencryptedHTTP2(*h2c)
	transport := &http.Transport{
		Protocols: protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: *serverName},
		DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
			if *address != "" {
				to = *address
			}
			return new(net.Dialer).DialContext(ctx, network, to)
		},
	}
	var a Answer
	response, err := transport.RoundTrip(r)
	if err != nil {
		a.Error = err.Error()
		return json.NewEncoder(os.Stdout).Encode(a)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		a.Error = err.Error()
	}
	a.Status, a.Headers, a.Body = response.StatusCode, response.Header, string(body)
	return json.NewEncoder(os.Stdout).Encode(a)
}

func callTCP(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("tcp", flag.ContinueOnError)
	address := flags.String("address", "", "address")
	send := flags.String("send", "", "bytes to send")
	readFirst := flags.Bool("read-first", false, "wait for a line before sending")
	secure := flags.Bool("tls", false, "speak TLS")
	serverName := flags.String("server-name", "", "TLS server name")
	timeout := flags.Duration("timeout", 10*time.Second, "time limit")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var a Answer
	body, err := exchange(ctx, *address, *send, *readFirst, *secure, *serverName, *timeout)
	a.Body = body
	if err != nil {
		a.Error = err.Error()
	}
	return json.NewEncoder(os.Stdout).Encode(a)
}

// exchange sends, ends its side, and reads until the other side has ended.
func exchange(ctx context.Context, address, send string, readFirst, secure bool, serverName string, timeout time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	if secure {
		client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: serverName})
		if err := client.HandshakeContext(ctx); err != nil {
			return "", err
		}
		conn = client
	}
	var got bytes.Buffer
	if readFirst {
		line := make([]byte, len(Greeting))
		if _, err := io.ReadFull(conn, line); err != nil {
			return "", fmt.Errorf("waiting for the greeting: %w", err)
		}
		got.Write(line)
	}
	if _, err := io.WriteString(conn, send); err != nil {
		return got.String(), err
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return got.String(), err
	}
	_, err = io.Copy(&got, conn)
	return got.String(), err
}
