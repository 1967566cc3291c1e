package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// Answer is what the client prints.
type Answer struct {
	Status  int
	Headers http.Header
	Body    string
	Error   string   `json:",omitempty"`
	Peer    []string `json:",omitempty"` // of the server's certificate
}

func (a *Answer) print() error { return json.NewEncoder(os.Stdout).Encode(a) }

// target is what a client connects to, and how.
type target struct {
	address, serverName string
	timeout, every      time.Duration
	files               pki
}

func (t *target) add(flags *flag.FlagSet) {
	flags.StringVar(&t.address, "address", "", "where to connect to; by default, the URL's host")
	flags.StringVar(&t.serverName, "server-name", "", "TLS server name; by default, the URL's host")
	flags.DurationVar(&t.timeout, "timeout", 10*time.Second, "time limit")
	flags.DurationVar(&t.every, "every", 0, "do it again and again, after this time")
	t.files.add(flags)
}

// repeat calls once, or until ctx ends or call returns false.
func (t *target) repeat(ctx context.Context, call func(context.Context) bool) {
	if t.every == 0 {
		call(ctx)
		return
	}
	ticker := time.NewTicker(t.every)
	defer ticker.Stop()
	for call(ctx) {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func callHTTP(ctx context.Context, args []string) error {
	var to target
	flags := flag.NewFlagSet("http", flag.ContinueOnError)
	to.add(flags)
	where := flags.String("url", "", "URL")
	method := flags.String("method", "GET", "method")
	h2c := flags.Bool("h2c", false, "speak HTTP/2 without TLS")
	data := flags.String("data", "", "body")
	proxy := flags.String("proxy", "", "URL of an HTTP proxy")
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
	r, err := http.NewRequestWithContext(ctx, *method, *where, strings.NewReader(*data))
	if err != nil {
		return err
	}
	r.Header, r.Host = header, host
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!*h2c)
	protocols.SetUnencryptedHTTP2(*h2c)
	secure, err := to.files.client(to.serverName)
	if err != nil {
		return err
	}
	transport := &http.Transport{
		Protocols: protocols, TLSClientConfig: secure, DisableKeepAlives: to.every > 0,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if to.address != "" {
				address = to.address
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}
	if *proxy != "" {
		through, err := url.Parse(*proxy)
		if err != nil {
			return err
		}
		transport.Proxy = http.ProxyURL(through)
	}
	to.repeat(ctx, func(ctx context.Context) bool {
		ctx, cancel := context.WithTimeout(ctx, to.timeout)
		defer cancel()
		r := r.Clone(ctx)
		if r.Body, err = r.GetBody(); err != nil {
			return false
		}
		a := request(transport, r)
		err = a.print()
		return err == nil
	})
	return err
}

func request(transport *http.Transport, r *http.Request) *Answer {
	a := new(Answer)
	response, err := transport.RoundTrip(r)
	if err != nil {
		a.Error = err.Error()
		return a
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		a.Error = err.Error()
	}
	if response.TLS != nil {
		a.Peer = names(response.TLS.PeerCertificates)
	}
	a.Status, a.Headers, a.Body = response.StatusCode, response.Header, string(body)
	return a
}

func callTCP(ctx context.Context, args []string) error {
	var to target
	flags := flag.NewFlagSet("tcp", flag.ContinueOnError)
	to.add(flags)
	send := flags.String("send", "", "bytes to send")
	readFirst := flags.Bool("read-first", false, "wait for a line before sending")
	secure := flags.Bool("tls", false, "speak TLS")
	hold := flags.Bool("hold", false, "send and read on one connection, with --every")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if *hold {
		return to.hold(ctx, *send)
	}
	to.repeat(ctx, func(ctx context.Context) bool {
		a := new(Answer)
		if e := to.exchange(ctx, a, *send, *readFirst, *secure); e != nil {
			a.Error = e.Error()
		}
		err = a.print()
		return err == nil
	})
	return err
}

// dial connects.
func (t *target) dial(ctx context.Context, a *Answer, secure bool) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", t.address)
	if err != nil || !secure {
		return conn, err
	}
	config, err := t.files.client(t.serverName)
	if err == nil {
		client := tls.Client(conn, config)
		if err = client.HandshakeContext(ctx); err == nil {
			a.Peer = names(client.ConnectionState().PeerCertificates)
			return client, nil
		}
	}
	_ = conn.Close()
	return nil, err
}

// exchange sends, ends its side, and reads until the other side has ended.
func (t *target) exchange(ctx context.Context, a *Answer, send string, readFirst, secure bool) error {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	conn, err := t.dial(ctx, a, secure)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(t.timeout)); err != nil {
		return err
	}
	var got bytes.Buffer
	defer func() { a.Body = got.String() }()
	if readFirst {
		line := make([]byte, len(Greeting))
		if _, err := io.ReadFull(conn, line); err != nil {
			return fmt.Errorf("waiting for the greeting: %w", err)
		}
		got.Write(line)
	}
	if _, err := io.WriteString(conn, send); err != nil {
		return err
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return err
	}
	_, err = io.Copy(&got, conn)
	return err
}

// hold keeps one connection, over which it sends and prints what comes back, until that fails or ctx ends.
func (t *target) hold(ctx context.Context, send string) error {
	conn, err := t.dial(ctx, nil, false)
	if err != nil {
		return (&Answer{Error: err.Error()}).print()
	}
	defer func() { _ = conn.Close() }()
	t.repeat(ctx, func(context.Context) bool {
		a := new(Answer)
		buffer := make([]byte, 4096)
		_, e := io.WriteString(conn, send)
		if e == nil {
			e = conn.SetReadDeadline(time.Now().Add(t.timeout))
		}
		n := 0
		if e == nil {
			n, e = conn.Read(buffer)
		}
		a.Body = string(buffer[:n])
		if e != nil {
			a.Error = e.Error()
		}
		err = a.print()
		return err == nil && e == nil
	})
	return err
}
