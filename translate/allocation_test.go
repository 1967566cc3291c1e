package translate

import (
	"hash/fnv"
	"net/netip"
)

// testAllocations gives out numbers that depend on the names, so that a new name changes no golden file
// elsewhere. It forgets nothing.
type testAllocations struct {
	ports     map[string]uint16
	addresses map[string]netip.Addr
	taken     map[uint32]bool
}

func newTestAllocations() *testAllocations {
	return &testAllocations{ports: map[string]uint16{}, addresses: map[string]netip.Addr{}, taken: map[uint32]bool{}}
}

func (a *testAllocations) free(name string, first, size uint32) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	for n := h.Sum32() % size; ; n = (n + 1) % size {
		if number := first + n; !a.taken[number] {
			a.taken[number] = true
			return number
		}
	}
}

func (a *testAllocations) StreamPort(upstream string) (uint16, bool) {
	if a.ports[upstream] == 0 {
		a.ports[upstream] = uint16(a.free(upstream, 16000, 512))
	}
	return a.ports[upstream], true
}

func (a *testAllocations) OverlayAddress(endpoint string) (netip.Addr, bool) {
	if !a.addresses[endpoint].IsValid() {
		const first, size = 127<<24 | 96<<16 | 1, 1<<21 - 2
		n := a.free(endpoint, first, size)
		a.addresses[endpoint] = netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	}
	return a.addresses[endpoint], true
}
