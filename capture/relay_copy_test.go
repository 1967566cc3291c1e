package capture

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestCopiesGoOnAfterSilence(t *testing.T) {
	// Buffers are given back in the meantime.
	synctest.Test(t, func(t *testing.T) {
		client, accepted := net.Pipe()
		dialled, backend := net.Pipe()
		c := &copying{client: accepted, upstream: dialled, buffers: new(sync.Pool)}
		var running sync.WaitGroup
		running.Go(func() { c.run(t.Context()) })
		running.Go(func() { _, _ = io.Copy(backend, backend) })
		for _, size := range []int{5, waitingSize - 1, waitingSize, waitingSize + 1, 100 << 10} {
			for _, pause := range []time.Duration{0, 2 * bufferedFor} {
				<-time.NewTimer(pause).C
				sent := bytes.Repeat([]byte{'a'}, size)
				running.Go(func() { _, _ = client.Write(sent) })
				got := make([]byte, size)
				if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, sent) {
					t.Fatalf("%d bytes after %v: %v", size, pause, err)
				}
			}
		}
		_ = client.Close()
		_ = backend.Close()
		running.Wait()
	})
}

func TestTheHeaderWaitsForClientsThatSpeakFirst(t *testing.T) {
	for _, first := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			client, accepted := net.Pipe()
			dialled, backend := net.Pipe()
			c := &copying{
				client: accepted, upstream: dialled, buffers: new(sync.Pool),
				lead: lead{header: []byte("header "), clientFirst: first},
			}
			var running sync.WaitGroup
			running.Go(func() { c.run(t.Context()) })
			var got string
			running.Go(func() {
				b := make([]byte, 100)
				n, _ := backend.Read(b)
				got = string(b[:n])
			})
			<-time.NewTimer(2 * bufferedFor).C
			synctest.Wait()
			if want := map[bool]string{false: "header ", true: ""}[first]; got != want {
				t.Errorf("before the client speaks, the upstream has %q, want %q", got, want)
			}
			if first {
				_, _ = client.Write([]byte("request"))
				synctest.Wait()
				if got != "header request" {
					t.Errorf("with the client's first bytes came %q", got)
				}
			}
			_ = client.Close()
			_ = backend.Close()
			running.Wait()
		})
	}
}
