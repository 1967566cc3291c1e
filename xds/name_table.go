package xds

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
)

// NameTable is what istiod would have a proxy's DNS server answer: the one resource, which has no
// name, of type NameTableType (istio.networking.nds.v1.NameTable). Only Istio's own module has a Go
// type for the message, and a second one of the same name could not be linked beside it, so it is
// read and written by hand.
type NameTable struct {
	// Names is by host name as in Istio's services, such as "reviews.default.svc.cluster.local" or
	// "*.example.com".
	Names map[string]NameInfo
	// Ignored are addresses that are none, each with its host name; the others of that name count.
	Ignored []string
}

// NameInfo is the answer to one name.
type NameInfo struct {
	Addresses []netip.Addr
	// Registry is where the service comes from, such as "Kubernetes" or "External". The other fields
	// are those of Kubernetes' services, which have shorter names as well.
	Registry             string
	Shortname, Namespace string
	// AltHosts are more names (deprecated by Istio).
	AltHosts []string
}

// DecodeNameTable reads the table from a resource of NameTableType.
func DecodeNameTable(r *Resource) (*NameTable, error) {
	if r.Type != NameTableType {
		return nil, fmt.Errorf("%s: is no name table", r.Key)
	}
	t, err := parseNameTable(r.Body.GetValue())
	if err != nil {
		return nil, fmt.Errorf("name table: %w", err)
	}
	return t, nil
}

// Body returns the table as a resource; Ignored is not part of it.
func (t *NameTable) Body() *anypb.Any {
	var b []byte
	text := func(b []byte, number protowire.Number, value string) []byte {
		return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), value)
	}
	for _, host := range slices.Sorted(maps.Keys(t.Names)) {
		var info []byte
		for _, ip := range t.Names[host].Addresses {
			info = text(info, 1, ip.String())
		}
		for i, value := range []string{t.Names[host].Registry, t.Names[host].Shortname, t.Names[host].Namespace} {
			if value != "" {
				info = text(info, protowire.Number(2+i), value)
			}
		}
		for _, alt := range t.Names[host].AltHosts {
			info = text(info, 5, alt)
		}
		entry := text(text(nil, 1, host), 2, string(info))
		b = text(b, 1, string(entry))
	}
	return &anypb.Any{TypeUrl: NameTableType, Value: b}
}

// parseNameTable reads message NameTable { map<string, NameInfo> table = 1; }.
func parseNameTable(b []byte) (*NameTable, error) {
	t := &NameTable{Names: map[string]NameInfo{}}
	err := eachBytes(b, func(number int32, entry []byte) error {
		if number != 1 {
			return nil
		}
		var host string
		var info NameInfo
		var bad []string
		err := eachBytes(entry, func(number int32, value []byte) (err error) {
			switch number {
			case 1:
				host, err = utf8Text(value)
			case 2:
				info, bad, err = parseNameInfo(value)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("entry %d, %q: %w", len(t.Names), host, err)
		}
		t.Names[host] = info
		for _, address := range bad {
			t.Ignored = append(t.Ignored, host+": "+address)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// parseNameInfo reads message NameInfo { repeated string ips = 1; string registry = 2; string
// shortname = 3; string namespace = 4; repeated string alt_hosts = 5; }.
func parseNameInfo(b []byte) (info NameInfo, bad []string, err error) {
	err = eachBytes(b, func(number int32, value []byte) error {
		text, err := utf8Text(value)
		if err != nil {
			return err
		}
		switch number {
		case 1:
			if ip, err := netip.ParseAddr(text); err == nil && ip.Zone() == "" {
				info.Addresses = append(info.Addresses, ip.Unmap())
			} else {
				bad = append(bad, text)
			}
		case 2:
			info.Registry = text
		case 3:
			info.Shortname = text
		case 4:
			info.Namespace = text
		case 5:
			info.AltHosts = append(info.AltHosts, text)
		}
		return nil
	})
	return info, bad, err
}

// eachBytes calls yield for each length-delimited field of a message, which all known ones are here;
// fields of other kinds are unknown and passed over.
func eachBytes(b []byte, yield func(int32, []byte) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := yield(int32(number), value); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func utf8Text(b []byte) (string, error) {
	if !utf8.Valid(b) {
		return "", errors.New("a text is not valid UTF-8")
	}
	return string(b), nil
}

// checkNameTable refuses what does not decode.
func checkNameTable(body *anypb.Any) error {
	_, err := parseNameTable(body.GetValue())
	return err
}

// nameTableJSON reads a table from a file, in either naming of protojson.
func nameTableJSON(raw json.RawMessage) (*anypb.Any, error) {
	var table struct {
		Table map[string]struct {
			IPs       []netip.Addr `json:"ips"`
			Registry  string       `json:"registry"`
			Shortname string       `json:"shortname"`
			Namespace string       `json:"namespace"`
			AltHosts  []string     `json:"altHosts"`
			Others    []string     `json:"alt_hosts"`
		} `json:"table"`
	}
	if err := json.Unmarshal(raw, &table); err != nil {
		return nil, fmt.Errorf("name table: %w", err)
	}
	t := &NameTable{Names: make(map[string]NameInfo, len(table.Table))}
	for host, info := range table.Table {
		t.Names[host] = NameInfo{
			Addresses: info.IPs, Registry: info.Registry, Shortname: info.Shortname, Namespace: info.Namespace,
			AltHosts: slices.Concat(info.AltHosts, info.Others),
		}
	}
	return t.Body(), nil
}
