package envoytest

import "slices"

// runGRPCWeb makes a gRPC request of one of gRPC-Web. The body is not evaluated.
func (s *Stream) runGRPCWeb() {
	if !slices.Contains([]string{
		"application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text", "application/grpc-web-text+proto",
	}, s.headers.get("content-type")) {
		return
	}
	s.grpcWeb = true
	s.headers.set("content-type", "application/grpc")
	s.headers.set("te", "trailers")
	s.headers.set("grpc-accept-encoding", Unpredictable) // depends on the version
}
