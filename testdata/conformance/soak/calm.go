package soak

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Limits of what processes may hold in calm, beyond what they held in the first.
const (
	moreResident    = 48 << 10 // KiB
	moreDescriptors = 24
	moreGoroutines  = 24
)

// check finds out in calm whether everything is as it should be.
func (s *soak) check(ctx context.Context) {
	for _, g := range s.gateways {
		if err := s.recover(ctx, func(ctx context.Context) error { return errors.Join(g.ready(ctx), g.connected(ctx)) }); err != nil {
			s.line.fail("recovery", "%s: %v", g.name, err)
			return
		}
	}
	for _, g := range s.gateways {
		s.checkObjects(ctx, g)
	}
	if ctx.Err() != nil || s.line.failed() > 0 {
		return
	}
	for _, g := range s.gateways {
		g.current.settle()
		s.checkRoutes(ctx, g)
	}
	s.checkUsage(ctx)
	s.checkLeftovers()
}

// checkObjects compares the objects of a gateway with those of a bridge that is started for this, and with
// what its clients have of them.
func (s *soak) checkObjects(ctx context.Context, g *gateway) {
	fresh, err := s.fresh(ctx, g)
	if err != nil {
		s.line.fail("soak", "a fresh bridge for %s: %v", g.name, err)
		return
	}
	err = eventually(ctx, patience, func(ctx context.Context) error {
		objects, err := readObjects(ctx, g.etcd)
		if err != nil {
			return err
		}
		return differ(alike(fresh, nil), alike(objects, fresh))
	})
	if err != nil {
		s.line.fail("objects", "%s and a bridge that was just started: %v", g.name, err)
	}
	err = eventually(ctx, patience, func(ctx context.Context) error {
		objects, err := readObjects(ctx, g.etcd)
		if err != nil {
			return err
		}
		return differ(objects, g.observer.snapshot())
	})
	if err != nil {
		s.line.fail("objects", "%s and a client that has watched it: %v", g.name, err)
	}
	if g.apisix != nil {
		s.checkAPISIX(ctx, g)
	}
}

func (s *soak) checkAPISIX(ctx context.Context, g *gateway) {
	err := eventually(ctx, patience, func(ctx context.Context) error {
		objects, err := readObjects(ctx, g.etcd)
		if err != nil {
			return err
		}
		maps.DeleteFunc(objects, func(key, _ string) bool { return strings.HasSuffix(key, "/") })
		text, err := get(ctx, "http://"+g.debug+"/world")
		if err != nil {
			return err
		}
		loaded := map[string]string{}
		if err := json.Unmarshal([]byte(text), &loaded); err != nil {
			return err
		}
		return differ(objects, loaded)
	})
	if err != nil {
		s.line.fail("objects", "%s and its APISIX: %v", g.name, err)
	}
	var told struct {
		Faults  []string
		Reloads []struct {
			Reason, Detail string
			Needed         bool
		}
	}
	text, err := get(ctx, "http://"+g.debug+"/client")
	if err == nil {
		err = json.Unmarshal([]byte(text), &told)
	}
	if err != nil {
		s.line.fail("soak", "APISIX of %s: %v", g.name, err)
	}
	for _, f := range told.Faults {
		s.line.fail("etcd", "APISIX of %s: %s", g.name, f)
	}
	for _, r := range told.Reloads {
		if !r.Needed {
			s.line.fail("etcd", "APISIX of %s read everything again without need, %s: %s", g.name, r.Reason, r.Detail)
		}
	}
}

// alike makes objects of two bridges comparable. Priorities of routes keep what they were where that
// is right still, so that it is their order that counts. What nothing refers to any more stays for a while.
func alike(objects, fresh map[string]string) map[string]string {
	out := map[string]string{}
	type route struct {
		key      string
		priority float64
	}
	order := map[string][]route{}
	for key, text := range objects {
		out[key] = text
		if _, known := fresh[key]; fresh != nil && !known && !refersTo(objects, key) {
			delete(out, key)
			continue
		}
		if !strings.HasPrefix(key, prefix+"routes/") {
			continue
		}
		var fields map[string]any
		if json.Unmarshal([]byte(text), &fields) != nil {
			continue
		}
		priority, _ := fields["priority"].(float64)
		delete(fields, "priority")
		encoded, _ := json.Marshal(fields)
		out[key] = string(encoded)
		for _, host := range append(texts(fields["hosts"]), texts(fields["host"])...) {
			order[host] = append(order[host], route{key, priority})
		}
	}
	for host, routes := range order {
		slices.SortFunc(routes, func(a, b route) int {
			if a.priority != b.priority {
				return int(b.priority - a.priority)
			}
			return strings.Compare(a.key, b.key)
		})
		var keys []string
		for _, r := range routes {
			keys = append(keys, r.key)
		}
		out["order of "+host] = strings.Join(keys, " ")
	}
	return out
}

func texts(v any) (all []string) {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		for _, e := range v {
			all = append(all, texts(e)...)
		}
	}
	return all
}

// refersTo tells whether an object that is in use has the id of one: a route is in use always, and a
// stream_route only as far as capture knows, which nothing here tells.
func refersTo(objects map[string]string, key string) bool {
	id := key[strings.LastIndexByte(key, '/')+1:]
	if strings.HasPrefix(key, prefix+"routes/") {
		return true
	}
	for other, text := range objects {
		if other != key && !strings.HasPrefix(other, prefix+"stream_routes/") && strings.Contains(text, `"`+id+`"`) {
			return true
		}
	}
	return false
}

// differ describes the first differences.
func differ(want, got map[string]string) error {
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(want)) {
		switch text, ok := got[key]; {
		case !ok:
			lines = append(lines, "missing "+key)
		case text != want[key]:
			lines = append(lines, fmt.Sprintf("%s is\n%s\nwant\n%s", key, text, want[key]))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[key]; !ok {
			lines = append(lines, "more than wanted: "+key)
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return fmt.Errorf("%d differences:\n%s", len(lines), strings.Join(lines[:min(len(lines), 5)], "\n"))
}

// checkRoutes asks for everything that is configured.
func (s *soak) checkRoutes(ctx context.Context, g *gateway) {
	if len(g.clients) == 0 {
		return
	}
	c := g.clients[0]
	for h := range hosts {
		for _, path := range []string{"/a/x", "/b", "/c"} {
			for _, v := range []bool{false, true} {
				c.ask(ctx, request{h, path, v}, false)
			}
		}
	}
	if g.secure {
		for p := range tcpPorts {
			c.askTCP(ctx, p)
		}
	}
}

// checkUsage compares what the processes hold with what they held in the first calm.
func (s *soak) checkUsage(ctx context.Context) {
	const samples = 5
	for _, g := range s.gateways {
		var least usage
		for i := range samples {
			u, err := g.bridge.usage(ctx, g.admin)
			if err != nil {
				s.line.fail("soak", "usage of %s: %v", g.name, err)
				return
			}
			if i == 0 {
				least = u
			}
			least = usage{min(least.resident, u.resident), min(least.descriptors, u.descriptors), min(least.goroutines, u.goroutines)}
			wait(ctx, 200*time.Millisecond)
		}
		first, known := s.usage[g]
		s.line.note("the bridge of %s holds %v", g.name, least)
		if !known {
			s.usage[g] = least
			continue
		}
		if least.resident > first.resident+moreResident || least.descriptors > first.descriptors+moreDescriptors || least.goroutines > first.goroutines+moreGoroutines {
			s.line.fail("leak", "the bridge of %s holds %v, at first it was %v", g.name, least, first)
		}
	}
}

// checkLeftovers looks for files and processes that nobody needs.
func (s *soak) checkLeftovers() {
	for _, g := range s.gateways {
		strange, err := g.leftovers()
		if err != nil {
			s.line.fail("soak", "%v", err)
		}
		for _, name := range strange {
			s.line.fail("leftovers", "%s has left %s", g.name, name)
		}
	}
	// In this namespace of processes there is nothing but what the test has started.
	processes, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range processes {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		if _, rest, ok := strings.Cut(string(text), ") "); ok && strings.HasPrefix(rest, "Z") {
			s.line.fail("leftovers", "a zombie: %s", text)
		}
	}
}
