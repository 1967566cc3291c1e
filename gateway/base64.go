package gateway

import (
	"encoding/base64"
	"encoding/binary"
	"slices"
)

// base64Pairs holds the two characters of every 12 bits, the first in the low byte.
//
// Nearly all the time of a large range goes into base64. Looking up two characters at a time is several
// times as fast as the standard library, which does one.
type base64Pairs [1 << 12]uint16

func newBase64Pairs() *base64Pairs {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	pairs := new(base64Pairs)
	for i := range pairs {
		pairs[i] = uint16(alphabet[i>>6]) | uint16(alphabet[i&63])<<8
	}
	return pairs
}

// append appends src in standard base64 with padding.
func (p *base64Pairs) append(dst, src []byte) []byte {
	n, size := len(dst), base64.StdEncoding.EncodedLen(len(src))
	dst = slices.Grow(dst, size)[:n+size]
	out := dst[n:]
	for len(src) >= 8 && len(out) >= 8 { // of which 6 become 8 characters
		bits := binary.BigEndian.Uint64(src)
		binary.LittleEndian.PutUint64(out, uint64(p[bits>>52])|
			uint64(p[bits>>40&0xfff])<<16|uint64(p[bits>>28&0xfff])<<32|uint64(p[bits>>16&0xfff])<<48)
		src, out = src[6:], out[8:]
	}
	base64.StdEncoding.Encode(out, src)
	return dst
}
