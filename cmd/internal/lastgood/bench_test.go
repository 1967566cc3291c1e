package lastgood

import (
	"path/filepath"
	"testing"
	"time"

	"meshbridge/xds"
	"meshbridge/xds/xdstest"
)

func BenchmarkFile(b *testing.B) {
	world := snapshotOf(b, xdstest.Mesh(5000, 4).Resources()...)
	path := filepath.Join(b.TempDir(), "world")
	size := int64(0)
	write := func() {
		var err error
		if size, err = writeFile(path, contentOf(world, false)); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			write()
		}
		b.ReportMetric(float64(size), "file-bytes")
	})
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		write()
		for b.Loop() {
			c, _, err := readFile(path)
			if err != nil {
				b.Fatal(err)
			}
			xds.Restore(c.resources, time.Time{})
		}
	})
}
