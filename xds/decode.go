package xds

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
)

// decoded is a resource that passed, and what it needs.
type decoded struct {
	*Resource
	message *decodedMessage // nil for an opaque one
	refs    []Key
}

// job is a resource of a response on its way through decode.
type job struct {
	received
	index   int // in the response
	key     Key
	decoded decoded
	err     error
}

// parallelFrom is the number of resources from which on decoding is shared out over the processors.
// Only the first sync and changes to much of a mesh have as many.
const parallelFrom = 64

// decodeAll completes the jobs, and returns when all are done.
func decodeAll(t resourceType, jobs []*job) {
	workers := runtime.GOMAXPROCS(0)
	if len(jobs) < parallelFrom {
		workers = 1
	}
	var next atomic.Int64
	work := func() {
		for i := next.Add(1) - 1; i < int64(len(jobs)); i = next.Add(1) - 1 {
			j := jobs[i]
			j.decoded, j.err = t.decode(j.name, j.version, j.body)
		}
	}
	var others sync.WaitGroup
	for range workers - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
}

// decode checks one resource: its type, its encoding, its name, and the constraints of its proto.
// wireName is the name a delta response gives it; "" where the protocol carries none.
func (t resourceType) decode(wireName, version string, body *anypb.Any) (decoded, error) {
	if body == nil {
		return decoded{}, errors.New("has no body")
	}
	if body.GetTypeUrl() != t.url {
		return decoded{}, fmt.Errorf("is a %q in a response for %q", body.GetTypeUrl(), t.url)
	}
	// Every Any decoded from the wire brings its own copy of the URL.
	body.TypeUrl = t.url
	r := &Resource{Key: Key{Type: t.url, Name: wireName}, Version: version, Body: body}
	if t.opaque {
		if t.checkBody != nil {
			if err := t.checkBody(body); err != nil {
				return decoded{}, err
			}
		}
		return decoded{Resource: r}, nil
	}

	m, err := body.UnmarshalNew()
	if err != nil {
		return decoded{}, err
	}
	name := t.name(m)
	switch {
	case name == "":
		return decoded{}, errors.New("has no name")
	case wireName != "" && name != wireName:
		return decoded{}, fmt.Errorf("is named %q in its body", name)
	}
	r.Name = name
	if v, ok := m.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return decoded{}, err
		}
	}
	if t.check != nil {
		if err := t.check(m); err != nil {
			return decoded{}, err
		}
	}
	d := decoded{Resource: r}
	if t.refs != nil {
		if d.refs, err = t.refs(m); err != nil {
			return decoded{}, err
		}
	}
	d.message = r.cache(m)
	return d, nil
}

// peekName returns the name of a resource whose body need not decode, or "" if there is none before
// the damage. Every type that is not opaque has its name in field 1; the last one counts. It keeps a
// damaged resource from being mistaken for a removed one.
func peekName(body *anypb.Any) (name string) {
	for b := body.GetValue(); len(b) > 0; {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return name
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return name
		}
		if number == 1 && kind == protowire.BytesType {
			name, _ = protowire.ConsumeString(b)
		}
		b = b[n:]
	}
	return name
}
