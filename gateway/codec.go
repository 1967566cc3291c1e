package gateway

import (
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// watchFrame is a WatchResponse whose parts are encoded already: a head of its own, and events shared
// with other streams. Protobuf concatenates: fields may come in pieces.
type watchFrame struct {
	head   []byte
	events [][]byte
}

// watchCodec is the proto codec of gRPC, which also sends watchFrames.
type watchCodec struct {
	encoding.CodecV2
}

func newWatchCodec() watchCodec { return watchCodec{encoding.GetCodecV2(grpcproto.Name)} }

// Marshal implements encoding.CodecV2. The buffers are not pooled, so that the transport's releasing
// them is a no-op and they can be shared.
func (c watchCodec) Marshal(v any) (mem.BufferSlice, error) {
	frame, ok := v.(*watchFrame)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	out := make(mem.BufferSlice, 0, 1+len(frame.events))
	out = append(out, mem.SliceBuffer(frame.head))
	for _, events := range frame.events {
		out = append(out, mem.SliceBuffer(events))
	}
	return out, nil
}
