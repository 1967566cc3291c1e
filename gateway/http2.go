package gateway

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	frameHeaderBytes = 9        // RFC 9113, 4.1
	maxFirstFrame    = 16 << 10 // the least that a peer has to accept, so the most it may send first
	hpackTableBytes  = 4096     // until settings say otherwise
)

// isGRPCConn finds out whether a client of HTTP/2 speaks gRPC, by its first request, and returns the
// connection to go on with. JSON over HTTP/2 is rare; but over TLS etcd serves it, and a client offers
// no other protocol.
//
// Clients of gRPC wait for the server's settings before they ask for anything. So they get settings
// here, empty ones, and the server's own later. A client that asks for nothing in time is taken for one
// of gRPC, which may be idle for as long as it likes.
func isGRPCConn(conn net.Conn, headerBytes int) (chosen net.Conn, isGRPC bool, err error) {
	var seen bytes.Buffer
	framer := http2.NewFramer(conn, io.TeeReader(conn, &seen))
	framer.SetMaxReadFrameSize(maxFirstFrame)
	framer.ReadMetaHeaders = hpack.NewDecoder(hpackTableBytes, nil)
	framer.MaxHeaderListSize = uint32(headerBytes)
	if err := framer.WriteSettings(); err != nil {
		return nil, false, fmt.Errorf("writing settings: %w", err)
	}
	contentType, err := firstContentType(conn, framer, &seen)
	peeked := &peekedConn{Conn: conn, head: seen.Bytes()}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), err == nil && strings.HasPrefix(contentType, "application/grpc"):
		return peeked, true, nil
	case err != nil:
		return nil, false, fmt.Errorf("reading the first request: %w", err)
	default:
		return &settingsConn{Conn: peeked, left: len(http2.ClientPreface)}, false, nil
	}
}

// firstContentType reads up to the end of the first header and returns its content type.
func firstContentType(conn io.Reader, framer *http2.Framer, seen *bytes.Buffer) (string, error) {
	if _, err := io.CopyN(seen, conn, int64(len(http2.ClientPreface))); err != nil {
		return "", err
	}
	if seen.String() != http2.ClientPreface {
		return "", errors.New("no HTTP/2")
	}
	// What may come before a request is little: settings, their acknowledgement, a window, pings.
	for seen.Len() < 4*maxFirstFrame {
		frame, err := framer.ReadFrame()
		if err != nil {
			return "", err
		}
		if headers, ok := frame.(*http2.MetaHeadersFrame); ok {
			for _, field := range headers.RegularFields() {
				if field.Name == "content-type" {
					return field.Value, nil
				}
			}
			return "", nil
		}
	}
	return "", errors.New("no request among the first frames")
}

// settingsConn hides the acknowledgement of the settings that isGRPCConn sent from a server that does not
// know of them, and would take it for an attack.
type settingsConn struct {
	net.Conn

	// Owned by the reader.
	left   int    // bytes until the next frame
	header []byte // of a frame, not yet read by the server
	done   bool   // it was found
}

// Read implements net.Conn.
func (c *settingsConn) Read(p []byte) (int, error) {
	if len(c.header) == 0 && c.left == 0 && !c.done {
		if err := c.nextFrame(); err != nil {
			return 0, err
		}
	}
	if len(c.header) > 0 {
		n := copy(p, c.header)
		c.header = c.header[n:]
		return n, nil
	}
	if c.done {
		return c.Conn.Read(p)
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// nextFrame reads the header of the next frame, unless it is the acknowledgement, which is a header
// alone.
func (c *settingsConn) nextFrame() error {
	header := make([]byte, frameHeaderBytes)
	if _, err := io.ReadFull(c.Conn, header); err != nil {
		return err
	}
	if http2.FrameType(header[3]) == http2.FrameSettings && http2.Flags(header[4]).Has(http2.FlagSettingsAck) {
		c.done = true
		return nil
	}
	c.header, c.left = header, int(binary.BigEndian.Uint32(header)>>8)
	return nil
}
