package lastgood

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protodelim"

	"meshbridge/xds"
)

// A file is the line of magic; compressed, a line of JSON (header) and the resources, each a
// envoy.service.discovery.v3.Resource after its length; and the SHA-256 of all that.
const (
	magic = "meshbridge last good state, format 1\n"
	// family is what the magic of all formats starts with.
	family = "meshbridge last good state, format "
	// maxFileBytes and maxResourceBytes bound what is read into memory.
	maxFileBytes     = 1 << 30
	maxResourceBytes = 256 << 20
)

// Identity is whose configuration it is: istiod sends each proxy another one.
type Identity struct {
	Node    string `json:"node"`
	Cluster string `json:"cluster,omitempty"`
}

// World is what is kept.
type World struct {
	Snapshot *xds.Snapshot
	// Received is when the newest of it came from the source.
	Received time.Time
	// Names are the addresses that names of clusters resolved to.
	Names map[string][]netip.Addr
}

// header is the first line.
type header struct {
	Identity
	Saved     time.Time               `json:"saved"`
	Received  time.Time               `json:"received"`
	Resources int                     `json:"resources"`
	LeftOut   int                     `json:"left_out"`
	Names     map[string][]netip.Addr `json:"names,omitempty"`
}

// content is what a file holds.
type content struct {
	header
	resources []*xds.Resource
}

// writeFile replaces the file, so that a crash at any moment leaves the old one or the new one.
func writeFile(path string, c content) (size int64, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return 0, err
	}
	// One name, so that what a crash leaves is overwritten and does not pile up.
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	size, err = encode(f, c)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		return 0, errors.Join(err, os.Remove(next))
	}
	return size, syncDirectory(filepath.Dir(path))
}

// syncDirectory makes a rename last.
func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func encode(w io.Writer, c content) (size int64, err error) {
	sum, counted := sha256.New(), &counter{to: w}
	both := io.MultiWriter(counted, sum)
	if _, err := io.WriteString(both, magic); err != nil {
		return 0, err
	}
	compressed, err := gzip.NewWriterLevel(both, gzip.BestSpeed)
	if err != nil {
		return 0, err
	}
	out := bufio.NewWriterSize(compressed, 64<<10)
	// The encoder ends it with a line feed.
	if err := json.NewEncoder(out).Encode(c.header); err != nil {
		return 0, err
	}
	for _, r := range c.resources {
		if _, err := protodelim.MarshalTo(out, &discoverypb.Resource{Name: r.Name, Version: r.Version, Resource: r.Body}); err != nil {
			return 0, fmt.Errorf("%s: %w", r.Key, err)
		}
	}
	if err := errors.Join(out.Flush(), compressed.Close()); err != nil {
		return 0, err
	}
	_, err = counted.Write(sum.Sum(nil))
	return counted.n, err
}

// counter counts what is written.
type counter struct {
	to io.Writer
	n  int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.n += int64(n)
	return n, err
}

// readFile returns what is in the file. confirmed is when its content was last known to be current.
func readFile(path string) (c content, confirmed time.Time, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return c, confirmed, err
	}
	if info.Size() > maxFileBytes {
		return c, confirmed, fmt.Errorf("%s has %d bytes, and %d are the most", path, info.Size(), int64(maxFileBytes))
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return c, confirmed, err
	}
	c, err = decode(data)
	if err != nil {
		return c, confirmed, fmt.Errorf("%s: %w", path, err)
	}
	return c, info.ModTime(), nil
}

func decode(data []byte) (content, error) {
	var c content
	body, ok := bytes.CutPrefix(data, []byte(magic))
	switch {
	case !ok && bytes.HasPrefix(data, []byte(family)):
		return c, errors.New("was written by another version, in a format that this one does not know")
	case !ok:
		return c, errors.New("is no last good state of meshbridge")
	case len(body) < sha256.Size:
		return c, errors.New("is damaged: it ends too early")
	}
	end := len(data) - sha256.Size
	if sum := sha256.Sum256(data[:end]); !bytes.Equal(sum[:], data[end:]) {
		return c, errors.New("is damaged: its checksum is another one")
	}
	compressed, err := gzip.NewReader(bytes.NewReader(body[:len(body)-sha256.Size]))
	if err != nil {
		return c, fmt.Errorf("is damaged: %w", err)
	}
	in := bufio.NewReader(compressed)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return c, fmt.Errorf("is damaged: header: %w", err)
	}
	if err := json.Unmarshal(line, &c.header); err != nil {
		return c, fmt.Errorf("is damaged: header: %w", err)
	}
	for {
		r := &discoverypb.Resource{}
		switch err := (protodelim.UnmarshalOptions{MaxSize: maxResourceBytes}).UnmarshalFrom(in, r); {
		case errors.Is(err, io.EOF) && len(c.resources) == c.Resources:
			return c, nil
		case err != nil:
			return c, fmt.Errorf("is damaged: resource %d of %d: %w", len(c.resources), c.Resources, err)
		}
		c.resources = append(c.resources, &xds.Resource{
			Key: xds.Key{Type: r.GetResource().GetTypeUrl(), Name: r.GetName()}, Version: r.GetVersion(), Body: r.GetResource(),
		})
	}
}
