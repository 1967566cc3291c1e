package capture_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"testing"
	"time"

	"meshbridge/capture"
	"meshbridge/translate"
)

func TestBytesPassInBothDirections(t *testing.T) {
	b := serve(t, false, echo)
	f := start(t, capture.Config{}, virtual(translate.Outbound, passthrough(0)))
	f.sends(b.addr)
	conn := f.dial("virtualoutbound")
	exchange(t, conn, "hello")
	exchange(t, conn, "again")
	if n := f.Connections(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	_ = conn.Close()
	f.awaitMetric(1, "connections_ended_total", "direction", "outbound", "outcome", "closed")
	if sent, received := f.metric("bytes_total", "towards", "client"), f.metric("bytes_total", "towards", "upstream"); sent != 10 || received != 10 {
		t.Errorf("%v bytes to the client and %v to the upstream, want 10 each", sent, received)
	}
}

func TestLargeTransfersPassUnchanged(t *testing.T) {
	// More than any buffer, both ways at a time: each direction waits for the other's reader.
	b := serve(t, false, echo)
	f := start(t, capture.Config{}, virtual(translate.Outbound, passthrough(0)))
	f.sends(b.addr)
	sent := make([]byte, 32<<20)
	_, _ = rand.Read(sent)
	conn := f.dial("virtualoutbound")
	go func() {
		_, _ = conn.Write(sent)
		_ = conn.CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes came back, want %d: %v", len(got), len(sent), err)
	}
}

func TestTheEndOfOneDirectionIsPassedOn(t *testing.T) {
	b := serve(t, false, func(r *bufio.Reader, conn *net.TCPConn) {
		request, _ := io.ReadAll(r) // until the client has ended
		_, _ = conn.Write(append([]byte("answer to "), request...))
	})
	f := start(t, capture.Config{}, virtual(translate.Outbound, passthrough(0)))
	f.sends(b.addr)
	conn := f.dial("virtualoutbound")
	_, _ = io.WriteString(conn, "request")
	_ = conn.CloseWrite()
	got, err := io.ReadAll(conn)
	if err != nil || string(got) != "answer to request" {
		t.Fatalf("%q, %v", got, err)
	}
	f.awaitMetric(1, "connections_ended_total", "outcome", "closed")
}

func TestAResetOfOneSideResetsTheOther(t *testing.T) {
	t.Run("of the upstream", func(t *testing.T) {
		b := serve(t, false, func(r *bufio.Reader, conn *net.TCPConn) {
			_, _ = r.ReadByte()
			_ = conn.SetLinger(0)
		})
		f := start(t, capture.Config{}, virtual(translate.Outbound, passthrough(0)))
		f.sends(b.addr)
		conn := f.dial("virtualoutbound")
		_, _ = io.WriteString(conn, "x")
		if !isReset(conn) {
			t.Error("the client sees no reset")
		}
		f.awaitMetric(1, "connections_ended_total", "outcome", "reset")
	})
	t.Run("of the client", func(t *testing.T) {
		seen := make(chan bool, 1)
		b := serve(t, false, func(_ *bufio.Reader, conn *net.TCPConn) {
			_, _ = conn.Write([]byte("x"))
			seen <- isReset(conn)
		})
		f := start(t, capture.Config{}, virtual(translate.Outbound, passthrough(0)))
		f.sends(b.addr)
		conn := f.dial("virtualoutbound")
		_, _ = io.ReadFull(conn, make([]byte, 1))
		_ = conn.SetLinger(0)
		_ = conn.Close()
		if !<-seen {
			t.Error("the upstream sees no reset")
		}
	})
	t.Run("of a client that takes nothing", func(t *testing.T) {
		seen := make(chan bool, 1)
		b := serve(t, false, func(_ *bufio.Reader, conn *net.TCPConn) {
			_, err := io.Copy(conn, zeros{}) // until it fails
			seen <- err != nil
		})
		f := start(t, capture.Config{}, virtual(translate.Outbound, passthrough(0)))
		f.sends(b.addr)
		conn := f.dial("virtualoutbound")
		eventually(t, func() bool { return f.metric("bytes_total", "towards", "client") > 1<<17 })
		_ = conn.SetLinger(0)
		_ = conn.Close()
		if !<-seen {
			t.Error("the upstream goes on")
		}
	})
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func TestAnEarlyAnswerIsPassedOnThoughTheServerHangsUp(t *testing.T) {
	b := serve(t, false, func(r *bufio.Reader, conn *net.TCPConn) {
		_, _ = r.ReadByte()
		_, _ = conn.Write([]byte("too large")) // and the rest of the request is never read
	})
	f := start(t, capture.Config{}, virtual(translate.Outbound, passthrough(0)))
	f.sends(b.addr)
	conn := f.dial("virtualoutbound")
	_, _ = conn.Write(make([]byte, 1<<16))
	got := make([]byte, len("too large"))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "too large" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	b := serve(t, false, echo)
	f := start(t, capture.Config{}, virtual(translate.Outbound, passthrough(50*time.Millisecond)))
	f.sends(b.addr)
	conn := f.dial("virtualoutbound")
	exchange(t, conn, "hello")
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("the client sees %v, not an end", err)
	}
	f.awaitMetric(1, "connections_ended_total", "outcome", "idle")
}

func TestASlowReaderHoldsNothingButItsOwnBuffer(t *testing.T) {
	// While one client takes nothing, its upstream is not read from, and others go on.
	stalled := make(chan int64, 1)
	b := serve(t, false, func(r *bufio.Reader, conn *net.TCPConn) {
		if c, _ := r.ReadByte(); c == 'x' {
			n, _ := io.Copy(conn, zeros{})
			stalled <- n
			return
		}
		echo(r, conn)
	})
	f := start(t, capture.Config{}, virtual(translate.Outbound, passthrough(0)))
	f.sends(b.addr)
	slow := f.dial("virtualoutbound")
	_, _ = io.WriteString(slow, "x")
	for range 16 {
		quick := f.dial("virtualoutbound")
		_, _ = io.WriteString(quick, "-")
		exchange(t, quick, "hello")
	}
	// What it takes later arrives: the writer is woken again.
	if _, err := io.CopyN(io.Discard, slow, 32<<20); err != nil {
		t.Fatal(err)
	}
	_ = slow.Close()
	if n := <-stalled; n < 32<<20 {
		t.Errorf("only %d bytes were taken", n)
	}
}
