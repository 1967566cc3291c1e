package gateway

import (
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strconv"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protowire"

	"meshbridge/store"
)

// form is one of the two in which events are sent.
type form uint8

const (
	formJSON  form = iota // the JSON line of a whole revision, without its last two braces
	formProto             // repeated field 11 of a WatchResponse
)

// class is what makes two watches receive the same bytes for a block.
type class struct {
	form                    form
	key, end                string
	prevKV, noPut, noDelete bool
}

// encodedBlock is what Block.Encoded keeps for a class: the number of events, then their bytes. A
// block of which the class sees nothing has zero events and no bytes.
type encodedBlock []byte

const encodedBlockHead = 4

func (b encodedBlock) events() int  { return int(binary.LittleEndian.Uint32(b)) }
func (b encodedBlock) body() []byte { return b[encodedBlockHead:] }

// encodeBlock gives the bytes of a block for a class, shared by all watches of the class.
func (s *Server) encodeBlock(c class, b *store.Block) encodedBlock {
	return b.Encoded(c, func() []byte {
		events := b.Select([]byte(c.key), []byte(c.end))
		if c.noPut || c.noDelete {
			events = slices.DeleteFunc(slices.Clone(events), func(e store.Event) bool {
				return e.Delete && c.noDelete || !e.Delete && c.noPut
			})
		}
		size := encodedBlockHead
		if len(events) > 0 && c.form == formJSON {
			size += 160
		}
		for i := range events {
			size += eventSizeHint(&events[i], c)
		}
		buf := binary.LittleEndian.AppendUint32(make([]byte, 0, size), uint32(len(events)))
		switch {
		case len(events) == 0:
		case c.form == formJSON:
			buf = s.appendJSONEvents(buf, b.Revision, events, c.prevKV)
		default:
			for i := range events {
				buf = appendProtoEvent(buf, &events[i], c.prevKV)
			}
		}
		return buf
	})
}

// eventSizeHint bounds the encoded size of an event, so that encoding allocates once.
func eventSizeHint(e *store.Event, c class) int {
	size := kvSizeHint(e.KV, c.form)
	if c.prevKV && e.Prev != nil {
		size += kvSizeHint(e.Prev, c.form)
	}
	return size
}

func kvSizeHint(kv *store.KeyValue, f form) int {
	if f == formJSON {
		return base64.StdEncoding.EncodedLen(len(kv.Key)) + base64.StdEncoding.EncodedLen(len(kv.Value)) + 200
	}
	return len(kv.Key) + len(kv.Value) + 80
}

// appendJSONEvents appends {"result":{…"events":[…] without the two braces that close it, so that a
// watch id can still follow.
func (s *Server) appendJSONEvents(buf []byte, revision int64, events []store.Event, prevKV bool) []byte {
	buf = append(buf, `{"result":{"header":`...)
	buf = s.appendJSONHeader(buf, revision)
	buf = append(buf, `,"events":[`...)
	for i := range events {
		if i > 0 {
			buf = append(buf, ',')
		}
		e := &events[i]
		if e.Delete {
			buf = append(buf, `{"type":"DELETE","kv":`...)
		} else {
			buf = append(buf, `{"kv":`...)
		}
		buf = s.appendJSONKeyValue(buf, e.KV)
		if prevKV && e.Prev != nil {
			buf = append(buf, `,"prev_kv":`...)
			buf = s.appendJSONKeyValue(buf, e.Prev)
		}
		buf = append(buf, '}')
	}
	return append(buf, ']')
}

// appendJSONHeader appends a response header; a zero revision is left out.
func (s *Server) appendJSONHeader(buf []byte, revision int64) []byte {
	buf = append(buf, `{"cluster_id":"`...)
	buf = strconv.AppendUint(buf, s.cfg.ClusterID, 10)
	buf = append(buf, `","member_id":"`...)
	buf = strconv.AppendUint(buf, s.cfg.MemberID, 10)
	if revision != 0 {
		buf = append(buf, `","revision":"`...)
		buf = strconv.AppendInt(buf, revision, 10)
	}
	buf = append(buf, `","raft_term":"`...)
	buf = strconv.AppendUint(buf, raftTerm, 10)
	return append(buf, `"}`...)
}

// appendJSONKeyValue appends a key-value in etcd's JSON: zero values left out, 64-bit integers as
// strings.
func (s *Server) appendJSONKeyValue(buf []byte, kv *store.KeyValue) []byte {
	buf = append(buf, `{"key":"`...)
	buf = s.base64.append(buf, kv.Key)
	buf = append(buf, '"')
	buf = appendJSONInt(buf, "create_revision", kv.CreateRevision)
	buf = appendJSONInt(buf, "mod_revision", kv.ModRevision)
	buf = appendJSONInt(buf, "version", kv.Version)
	if len(kv.Value) > 0 {
		buf = append(buf, `,"value":"`...)
		buf = s.base64.append(buf, kv.Value)
		buf = append(buf, '"')
	}
	buf = appendJSONInt(buf, "lease", kv.Lease)
	return append(buf, '}')
}

// appendJSONInt appends a member that is not the first, unless it is zero.
func appendJSONInt(buf []byte, name string, v int64) []byte {
	if v == 0 {
		return buf
	}
	buf = append(buf, `,"`...)
	buf = append(buf, name...)
	buf = append(buf, `":"`...)
	buf = strconv.AppendInt(buf, v, 10)
	return append(buf, '"')
}

// Field numbers of the messages that are encoded by hand.
const (
	fieldResponseHeader   = 1 // WatchResponse
	fieldResponseWatchID  = 2
	fieldResponseFragment = 7
	fieldResponseEvents   = 11

	fieldEventType = 1 // Event
	fieldEventKV   = 2
	fieldEventPrev = 3

	fieldKVKey     = 1 // KeyValue
	fieldKVCreate  = 2
	fieldKVMod     = 3
	fieldKVVersion = 4
	fieldKVValue   = 5
	fieldKVLease   = 6

	fieldHeaderCluster  = 1 // ResponseHeader
	fieldHeaderMember   = 2
	fieldHeaderRevision = 3
	fieldHeaderTerm     = 4
)

// appendProtoEvent appends an event as an element of WatchResponse.events.
func appendProtoEvent(buf []byte, e *store.Event, prevKV bool) []byte {
	kvSize := protoKeyValueSize(e.KV)
	size := protowire.SizeTag(fieldEventKV) + protowire.SizeBytes(kvSize)
	if e.Delete {
		size += protoIntSize(fieldEventType, int64(mvccpb.Event_DELETE))
	}
	prevKV = prevKV && e.Prev != nil
	prevSize := 0
	if prevKV {
		prevSize = protoKeyValueSize(e.Prev)
		size += protowire.SizeTag(fieldEventPrev) + protowire.SizeBytes(prevSize)
	}
	buf = protowire.AppendTag(buf, fieldResponseEvents, protowire.BytesType)
	buf = protowire.AppendVarint(buf, uint64(size))
	if e.Delete {
		buf = appendProtoInt(buf, fieldEventType, int64(mvccpb.Event_DELETE))
	}
	buf = appendProtoKeyValue(buf, fieldEventKV, e.KV, kvSize)
	if prevKV {
		buf = appendProtoKeyValue(buf, fieldEventPrev, e.Prev, prevSize)
	}
	return buf
}

func protoKeyValueSize(kv *store.KeyValue) int {
	return protoBytesSize(fieldKVKey, kv.Key) + protoIntSize(fieldKVCreate, kv.CreateRevision) +
		protoIntSize(fieldKVMod, kv.ModRevision) + protoIntSize(fieldKVVersion, kv.Version) +
		protoBytesSize(fieldKVValue, kv.Value) + protoIntSize(fieldKVLease, kv.Lease)
}

// appendProtoKeyValue appends a key-value of the given size as field num.
func appendProtoKeyValue(buf []byte, num protowire.Number, kv *store.KeyValue, size int) []byte {
	buf = protowire.AppendTag(buf, num, protowire.BytesType)
	buf = protowire.AppendVarint(buf, uint64(size))
	return appendProtoKeyValueBody(buf, kv)
}

// appendProtoKeyValueBody appends the marshalled key-value, fields in order as etcd writes them.
func appendProtoKeyValueBody(buf []byte, kv *store.KeyValue) []byte {
	buf = appendProtoBytes(buf, fieldKVKey, kv.Key)
	buf = appendProtoInt(buf, fieldKVCreate, kv.CreateRevision)
	buf = appendProtoInt(buf, fieldKVMod, kv.ModRevision)
	buf = appendProtoInt(buf, fieldKVVersion, kv.Version)
	buf = appendProtoBytes(buf, fieldKVValue, kv.Value)
	return appendProtoInt(buf, fieldKVLease, kv.Lease)
}

// appendProtoHeader appends a response header as field 1 of a response.
func (s *Server) appendProtoHeader(buf []byte, revision int64) []byte {
	size := protoIntSize(fieldHeaderCluster, int64(s.cfg.ClusterID)) + protoIntSize(fieldHeaderMember, int64(s.cfg.MemberID)) +
		protoIntSize(fieldHeaderRevision, revision) + protoIntSize(fieldHeaderTerm, raftTerm)
	buf = protowire.AppendTag(buf, fieldResponseHeader, protowire.BytesType)
	buf = protowire.AppendVarint(buf, uint64(size))
	buf = appendProtoInt(buf, fieldHeaderCluster, int64(s.cfg.ClusterID))
	buf = appendProtoInt(buf, fieldHeaderMember, int64(s.cfg.MemberID))
	buf = appendProtoInt(buf, fieldHeaderRevision, revision)
	return appendProtoInt(buf, fieldHeaderTerm, raftTerm)
}

func protoIntSize(num protowire.Number, v int64) int {
	if v == 0 {
		return 0
	}
	return protowire.SizeTag(num) + protowire.SizeVarint(uint64(v))
}

func appendProtoInt(buf []byte, num protowire.Number, v int64) []byte {
	if v == 0 {
		return buf
	}
	buf = protowire.AppendTag(buf, num, protowire.VarintType)
	return protowire.AppendVarint(buf, uint64(v))
}

func protoBytesSize(num protowire.Number, b []byte) int {
	if len(b) == 0 {
		return 0
	}
	return protowire.SizeTag(num) + protowire.SizeBytes(len(b))
}

func appendProtoBytes(buf []byte, num protowire.Number, b []byte) []byte {
	if len(b) == 0 {
		return buf
	}
	buf = protowire.AppendTag(buf, num, protowire.BytesType)
	return protowire.AppendBytes(buf, b)
}
