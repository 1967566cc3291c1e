// Package allocate gives out APISIX's stream ports and the addresses of capture's overlay.
//
// A number that changes hands too early would send the connections of one service to another: APISIX
// and capture learn of a change at different times. So a number that is given back rests before
// something else gets it, the number that a name gets first is derived from the name, and with a state
// directory a restart finds the numbers that were given out before.
package allocate

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"meshbridge/translate"
)

// Quarantine is how long a number rests.
const Quarantine = 10 * time.Minute

// journalFile is in the state directory.
const journalFile = "allocations.jsonl"

// Config configures Open.
type Config struct {
	// FirstPort and LastPort are APISIX's stream ports.
	FirstPort, LastPort uint16
	// Overlay holds the addresses of the overlay.
	Overlay netip.Prefix
	// StateDir keeps what was given out; empty keeps nothing.
	StateDir string
	// Known is what another process has given out, as far as the state directory does not say so.
	Known []Number
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Allocator is a translate.Allocations. It belongs to one goroutine.
type Allocator struct {
	config    Config
	ports     *pool
	addresses *pool
	journal   *journal // nil without a state directory
}

var _ translate.Allocations = (*Allocator)(nil)

// Open returns an Allocator that knows what the last process gave out. Close it.
func Open(c Config) (*Allocator, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	switch {
	case c.FirstPort == 0 || c.LastPort < c.FirstPort:
		return nil, fmt.Errorf("stream ports %d-%d: want two ports, the lower one first", c.FirstPort, c.LastPort)
	case !c.Overlay.Addr().Is4() || c.Overlay.Bits() < 8 || c.Overlay.Bits() > 28 || !c.Overlay.Addr().IsLoopback():
		return nil, fmt.Errorf("overlay %s: want a range of 127.0.0.0/8 with 16 addresses or more", c.Overlay)
	}
	c.Overlay = c.Overlay.Masked()
	a := &Allocator{
		config: c,
		ports:  newPool(uint32(c.LastPort-c.FirstPort) + 1),
		// The first and the last address look like those of a network and of its broadcasts.
		addresses: newPool(1<<(32-c.Overlay.Bits()) - 2),
	}
	records := c.Known
	if c.StateDir != "" {
		j, kept, err := openJournal(filepath.Join(c.StateDir, journalFile))
		if err != nil {
			return nil, err
		}
		a.journal, records = j, slices.Concat(kept, c.Known)
	}
	now := c.Now()
	for _, r := range records {
		switch r.Kind {
		case kindPort:
			a.ports.restore(r.Name, r.Number-uint32(c.FirstPort), now)
		case kindAddress:
			a.addresses.restore(r.Name, r.Number, now)
		}
	}
	// The numbers are known without it, so that a full disk is no reason not to start.
	if err := a.Rewrite(); err != nil && !noSpace(err) {
		return nil, errors.Join(err, a.journal.close())
	}
	return a, nil
}

// noSpace tells a full disk, which passes, from a state directory that is none.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// StreamPort is as translate.Allocations has it.
func (a *Allocator) StreamPort(upstream string) (port uint16, ok bool) {
	number, fresh, ok := a.ports.take(upstream, a.config.Now())
	if !ok {
		return 0, false
	}
	port = a.config.FirstPort + uint16(number)
	if fresh {
		a.note(kindPort, upstream, uint32(port))
	}
	return port, true
}

// OverlayAddress is as translate.Allocations has it.
func (a *Allocator) OverlayAddress(endpoint string) (address netip.Addr, ok bool) {
	number, fresh, ok := a.addresses.take(endpoint, a.config.Now())
	if !ok {
		return netip.Addr{}, false
	}
	if fresh {
		a.note(kindAddress, endpoint, number)
	}
	return addressAt(a.config.Overlay, number), true
}

// Release gives numbers back. Their names get the same again as long as nothing else has them.
func (a *Allocator) Release(ports []uint16, addresses []netip.Addr) {
	now := a.config.Now()
	for _, p := range ports {
		a.ports.release(uint32(p-a.config.FirstPort), now)
	}
	for _, address := range addresses {
		a.addresses.release(numberOf(a.config.Overlay, address), now)
	}
}

// Save writes what was given out since the last Save that succeeded. It must be called before anything is
// told of the numbers. Where it fails they can be used all the same: it is only the next process that may
// give some of them to others.
func (a *Allocator) Save() error {
	switch {
	case a.journal == nil:
		return nil
	case a.journal.file == nil:
		return a.Rewrite()
	}
	if err := a.journal.flush(); err != nil {
		return err
	}
	if a.journal.lines > 2*(a.ports.len()+a.addresses.len())+1000 {
		return a.Rewrite()
	}
	return nil
}

// Close saves and closes the file.
func (a *Allocator) Close() error {
	if a.journal == nil {
		return nil
	}
	return errors.Join(a.Save(), a.journal.close())
}

func (a *Allocator) note(kind, name string, number uint32) {
	if a.journal != nil {
		a.journal.add(Number{Kind: kind, Name: name, Number: number})
	}
}

// Abandon closes the file, which is another process's, without saving.
func (a *Allocator) Abandon() error {
	if a.journal == nil {
		return nil
	}
	return a.journal.close()
}

// Numbers returns what is known, for Config.Known of another process.
func (a *Allocator) Numbers() []Number {
	records := make([]Number, 0, a.ports.len()+a.addresses.len())
	for name, number := range a.ports.all() {
		records = append(records, Number{kindPort, name, number + uint32(a.config.FirstPort)})
	}
	for name, number := range a.addresses.all() {
		records = append(records, Number{kindAddress, name, number})
	}
	return records
}

// Rewrite writes the file anew, with what is known.
func (a *Allocator) Rewrite() error {
	if a.journal == nil {
		return nil
	}
	return a.journal.rewrite(a.Numbers())
}

func addressAt(p netip.Prefix, number uint32) netip.Addr {
	b := p.Addr().As4()
	n := (uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])) + number + 1
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

func numberOf(p netip.Prefix, address netip.Addr) uint32 {
	b, base := address.As4(), p.Addr().As4()
	n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	return n - (uint32(base[0])<<24 | uint32(base[1])<<16 | uint32(base[2])<<8 | uint32(base[3])) - 1
}
