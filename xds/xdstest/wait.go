package xdstest

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Requests returns what has been received so far, in order.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Streams returns how many streams have been opened so far.
func (s *Server) Streams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

// WaitStreams waits until that many streams have been opened.
func (s *Server) WaitStreams(n int) {
	s.t.Helper()
	s.wait(fmt.Sprintf("%d streams", n), func() bool { return len(s.streams) >= n })
}

// WaitRequest waits for a request that matches, among those received already too, and returns it.
func (s *Server) WaitRequest(what string, match func(Request) bool) Request {
	s.t.Helper()
	var found Request
	s.wait(what, func() bool {
		i := slices.IndexFunc(s.requests, match)
		if i >= 0 {
			found = s.requests[i]
		}
		return i >= 0
	})
	return found
}

// WaitAnswered waits until everything that was set is sent, and the clients have ACKed or NACKed the
// last response of each of these types on every open stream, of which there must be one.
func (s *Server) WaitAnswered(typeURLs ...string) {
	s.t.Helper()
	s.wait("answers to "+strings.Join(typeURLs, ", "), func() bool {
		open := 0
		for _, st := range s.streams {
			if st.closing {
				continue
			}
			open++
			if st.read < len(s.log) || len(st.scripted) > 0 || len(st.requests) > 0 ||
				slices.ContainsFunc(typeURLs, func(url string) bool { return !st.types[url].settled() }) {
				return false
			}
		}
		return open > 0
	})
}

// wait blocks until the condition holds, which it checks under mu.
func (s *Server) wait(what string, condition func() bool) {
	s.t.Helper()
	timeout := time.AfterFunc(patience, s.changed.Broadcast)
	defer timeout.Stop()
	deadline := time.Now().Add(patience)
	s.mu.Lock()
	defer s.mu.Unlock()
	for !condition() {
		if time.Now().After(deadline) {
			var requests strings.Builder
			for _, r := range s.requests {
				fmt.Fprintf(&requests, "\n  %+v", r)
			}
			s.t.Fatalf("xdstest: no %s within %s; requests:%s", what, patience, requests.String())
		}
		s.changed.Wait()
	}
}

func (w *watched) settled() bool { return w != nil && w.sent != "" && w.answered == w.sent }
