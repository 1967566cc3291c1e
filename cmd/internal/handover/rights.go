package handover

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// rightsWriter sends what is pending with the next bytes.
type rightsWriter struct{ *peer }

func (w rightsWriter) Write(b []byte) (int, error) {
	if len(w.pending) == 0 || len(b) == 0 {
		return w.conn.Write(b)
	}
	n, _, err := w.conn.WriteMsgUnix(b, syscall.UnixRights(w.pending...), nil)
	if err != nil {
		return max(n, 0), err
	}
	w.pending = nil
	if n < len(b) {
		more, err := w.conn.Write(b[n:])
		return n + more, err
	}
	return n, nil
}

// rightsReader collects the file descriptors that come with what is read.
type rightsReader struct{ *peer }

func (r rightsReader) Read(b []byte) (int, error) {
	// Without room for what comes, the kernel would drop it.
	oob := make([]byte, syscall.CmsgSpace(socketsPerMessage*4))
	n, oobn, flags, _, err := r.conn.ReadMsgUnix(b, oob)
	if err != nil {
		return max(n, 0), err // it is negative in that case
	}
	if flags&syscall.MSG_CTRUNC != 0 {
		return n, fmt.Errorf("file descriptors were lost: %w", io.ErrUnexpectedEOF)
	}
	if n == 0 && oobn == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return n, err
	}
	for i := range messages {
		descriptors, err := syscall.ParseUnixRights(&messages[i])
		if err != nil {
			return n, err
		}
		for _, fd := range descriptors {
			r.files = append(r.files, os.NewFile(uintptr(fd), "socket"))
		}
	}
	return n, nil
}
