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

// watchCodec is the proto codec of gRPC, which also sends watchFrames, and counts bytes.
type watchCodec struct {
	encoding.CodecV2
	metrics *wireMetrics
}

func newWatchCodec(m *wireMetrics) watchCodec {
	return watchCodec{CodecV2: encoding.GetCodecV2(grpcproto.Name), metrics: m}
}

// Unmarshal implements encoding.CodecV2.
func (c watchCodec) Unmarshal(data mem.BufferSlice, v any) error {
	c.metrics.received.Add(int64(data.Len()))
	return c.CodecV2.Unmarshal(data, v)
}

// Marshal implements encoding.CodecV2. The buffers are not pooled, so that the transport's releasing
// them is a no-op and they can be shared.
func (c watchCodec) Marshal(v any) (mem.BufferSlice, error) {
	frame, ok := v.(*watchFrame)
	if !ok {
		out, err := c.CodecV2.Marshal(v)
		c.metrics.sent.Add(int64(out.Len()))
		return out, err
	}
	out := make(mem.BufferSlice, 0, 1+len(frame.events))
	out = append(out, mem.SliceBuffer(frame.head))
	for _, events := range frame.events {
		out = append(out, mem.SliceBuffer(events))
	}
	c.metrics.sent.Add(int64(out.Len()))
	return out, nil
}
