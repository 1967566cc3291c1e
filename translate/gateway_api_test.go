package translate_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"

	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"meshbridge/translate"
	"meshbridge/translate/apisix"
	"meshbridge/translate/difftest"
	"meshbridge/xds"
)

// gatewayAPIFixtures is the index that the conformance module writes: see testdata/conformance/gatewayapi.
type gatewayAPIFixtures struct {
	Fixtures []struct {
		Name     string   `json:"name"`
		Recorded []string `json:"recorded"`
		Skipped  []struct {
			Name string `json:"name"`
			Why  string `json:"why"`
		} `json:"skipped"`
	} `json:"fixtures"`
}

// What there is at least in Istio's fixtures, lest they are silently not read any more.
const (
	leastFixtures     = 50
	leastProxies      = 95
	leastVirtualHosts = 480
	leastRoutes       = 500
	leastChosen       = 480
	leastEqual        = 75000
	mostSkipped       = 4
)

// fixtureCounts is a line of the table that the test prints.
type fixtureCounts struct {
	proxies, virtualHosts, routes, chosen int
	report                                *difftest.Report
}

// TestGatewayAPIFixtures translates what istiod sends for the fixtures of Istio's Gateway API conversion,
// and compares with Envoy: requests that each route asks for, and random ones.
func TestGatewayAPIFixtures(t *testing.T) {
	if *recordings == "" {
		t.Skip("the conformance module runs this, with -recordings")
	}
	raw, err := os.ReadFile(filepath.Join(*recordings, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index gatewayAPIFixtures
	if err := json.Unmarshal(raw, &index); err != nil {
		t.Fatal(err)
	}
	byName := map[string]translate.Recording{}
	for _, r := range translate.RecordingsIn(t, *recordings) {
		byName[r.Name] = r
	}
	var table strings.Builder
	out := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "fixture\tproxies\tvirtual hosts\troutes\tchosen\trequests\tequal\texplained\tnot compared\t")
	total := fixtureCounts{report: difftest.NewReport()}
	seed := uint64(0)
	var skipped []string
	for _, f := range index.Fixtures {
		c := fixtureCounts{report: difftest.NewReport()}
		for _, name := range f.Recorded {
			seed++
			c.proxy(t, byName[name], seed)
		}
		c.print(out, f.Name)
		for _, s := range f.Skipped {
			skipped = append(skipped, fmt.Sprintf("%s without %s: %s\n", f.Name, s.Name, s.Why))
		}
		total.add(c)
	}
	total.print(out, fmt.Sprintf("%d fixtures", len(index.Fixtures)))
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Logf("Istio's fixtures of the Gateway API\n%s%d proxies are left out:\n%s", table.String(), len(skipped), strings.Join(skipped, ""))
	check(t, total.report)
	if len(index.Fixtures) < leastFixtures || total.proxies < leastProxies || total.virtualHosts < leastVirtualHosts || total.routes < leastRoutes ||
		total.chosen < leastChosen || total.report.Equal < leastEqual || len(skipped) > mostSkipped {
		t.Error("this is less than Istio's fixtures had")
	}
}

// proxy checks what one proxy is sent, and counts.
func (c *fixtureCounts) proxy(t *testing.T, r translate.Recording, seed uint64) {
	t.Helper()
	c.proxies++
	const each, requests = 40, 300
	for i, options := range r.Options {
		name := r.Name + "/" + options.Profile.Name()
		state, _, err := translate.Translate(options, r.Snapshot, translate.Inputs{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for o := range state.Objects() {
			translate.CheckAccepted(t, o)
		}
		checkDiagnostics(t, name, state)
		hosts, routes := checkNothingIsSilent(t, name, state, r.Snapshot)
		w, err := difftest.NewWorld(name, r.Snapshot, options)
		if err != nil {
			t.Error(err)
			continue
		}
		reached, unreached := w.Served()
		if unreached > 0 {
			t.Errorf("%s has %d chains for which there is no connection to test them with", name, unreached)
		}
		if reached == 0 {
			continue
		}
		random := newRandom(ofFixtures, 2*seed+uint64(i))
		_, chosen := w.RunRoutes(random, each, c.report)
		w.Run(random, requests, c.report)
		if i == 1 { // the profile in which all chains can be served
			c.virtualHosts, c.routes, c.chosen = c.virtualHosts+hosts, c.routes+routes, c.chosen+chosen
		}
	}
}

func (c *fixtureCounts) add(o fixtureCounts) {
	c.proxies, c.virtualHosts, c.routes, c.chosen = c.proxies+o.proxies, c.virtualHosts+o.virtualHosts, c.routes+o.routes, c.chosen+o.chosen
	c.report.Add(o.report)
}

func (c *fixtureCounts) print(out *tabwriter.Writer, name string) {
	r := c.report
	fmt.Fprintf(out, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", name, c.proxies, c.virtualHosts, c.routes, c.chosen,
		r.Pairs, r.Equal, r.Compared-r.Equal-len(r.Failures), r.Pairs-r.Compared)
}

// checkDiagnostics fails for codes that do not exist, for messages that miss something, and for objects
// that could not be made.
func checkDiagnostics(t *testing.T, name string, s *translate.State) {
	t.Helper()
	known := map[translate.Code]bool{}
	for _, info := range translate.Codes() {
		known[info.Code] = true
	}
	for _, d := range s.Diagnostics() {
		if !known[d.Code] || d.Message == "" || strings.Contains(d.Message, "%!") || d.Code == "invalid_object" || d.Code == "id_collision" {
			t.Errorf("%s: %v", name, d)
		}
	}
}

// sharedBy is how a diagnostic says that it is about other listeners, too.
var sharedBy = regexp.MustCompile(`and the same on (\d+) other listeners`)

// checkNothingIsSilent fails for what became neither an object nor a diagnostic: listeners, virtual hosts
// and routes. It returns how many of the latter are served.
func checkNothingIsSilent(t *testing.T, name string, s *translate.State, snap *xds.Snapshot) (virtualHosts, routes int) {
	t.Helper()
	var objects strings.Builder
	for o := range s.Objects() {
		if o.Kind != apisix.KindRoute {
			continue
		}
		var r apisix.Route
		if err := json.Unmarshal(o.Value, &r); err != nil {
			t.Fatal(err)
		}
		objects.WriteString(r.Name + "|\n")
	}
	var reported strings.Builder
	others := 0 // that diagnostics are about which name one listener
	for _, d := range s.Diagnostics() {
		reported.WriteString(d.Resource + "\x00" + d.Field + "\n")
		if m := sharedBy.FindStringSubmatch(d.Message); m != nil && d.Code == "default_chain" {
			n, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			others += n
		}
	}
	captured := map[string]bool{}
	for _, l := range s.Listeners() {
		for _, fc := range append(l.Chains, l.DefaultChain) {
			if fc != nil {
				captured[fc.Key] = true
			}
		}
	}
	silent := map[string]bool{}
	for _, c := range s.Chains() {
		switch {
		case c.NotServed != "" && captured[c.Key]: // by APISIX, but by capture
			continue
		case c.NotServed != "":
			if !strings.Contains(reported.String(), "Listener "+c.Listener+"\x00") {
				silent[c.Listener] = true
			}
			continue
		case len(c.Denied) > 0 || !c.HTTP || c.Inline:
			continue
		}
		resource := snap.Get(xds.Key{Type: xds.RouteType, Name: c.RouteConfig})
		if resource == nil {
			continue
		}
		config, err := xds.Decode[*routepb.RouteConfiguration](resource)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range config.GetVirtualHosts() {
			virtualHosts++
			routes += len(v.GetRoutes())
			host := fmt.Sprintf("RouteConfiguration %s\x00virtual_hosts[%q]", c.RouteConfig, v.GetName())
			switch {
			case strings.Contains(reported.String(), host+"\n"):
				continue // all of it
			case !strings.Contains(objects.String(), "|"+v.GetName()+"|"):
				t.Errorf("%s: nothing became of virtual host %s of %s", name, v.GetName(), c.RouteConfig)
				continue
			}
			for i, r := range v.GetRoutes() {
				if r.GetName() == "" {
					continue
				}
				if !strings.Contains(objects.String(), "|"+v.GetName()+"|"+r.GetName()+"|") && !strings.Contains(reported.String(), host+fmt.Sprintf(".routes[%d]", i)) &&
					!strings.Contains(reported.String(), host+fmt.Sprintf(".routes[%q]", r.GetName())) {
					t.Errorf("%s: nothing became of route %d, %s, of virtual host %s", name, i, r.GetName(), v.GetName())
				}
			}
		}
	}
	if len(silent) > others {
		t.Errorf("%s: listeners are not served, of which only %d are reported: %v", name, others, slices.Sorted(maps.Keys(silent)))
	}
	return virtualHosts, routes
}
