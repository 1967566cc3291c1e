package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// Istiod is a running istiod command.
type Istiod struct {
	*Process

	// GRPC, HTTP and Secure are the addresses it serves; Secure may be empty.
	GRPC, HTTP, Secure string

	path string
	args []string
}

var readyLine = regexp.MustCompile(`^ready grpc=(\S+) http=(\S+) secure=(\S*)$`)

// StartIstiod runs the command on free ports over a directory of manifests
// and returns when it serves. Further flags may be given.
func StartIstiod(t testing.TB, path, dir string, flags ...string) *Istiod {
	t.Helper()
	i := &Istiod{path: path, GRPC: "127.0.0.1:0", HTTP: "127.0.0.1:0", args: append([]string{"--dir", dir}, flags...)}
	i.Start(t)
	return i
}

// Start runs the command again, at the addresses it had before.
func (i *Istiod) Start(t testing.TB) {
	t.Helper()
	args := append(slices.Clone(i.args), "--grpc", i.GRPC, "--http", i.HTTP)
	if i.Secure != "" {
		args = append(args, "--secure", i.Secure)
	}
	line := i.startUntilReady(t, args)
	addresses := readyLine.FindStringSubmatch(line)
	i.GRPC, i.HTTP, i.Secure = addresses[1], addresses[2], addresses[3]
}

// startUntilReady starts istiod and returns its ready line. While it was away, a connection of another test may
// have been given one of its ports; it goes on when that has ended.
func (i *Istiod) startUntilReady(t testing.TB, args []string) string {
	t.Helper()
	for end := time.Now().Add(Patience); time.Now().Before(end); {
		i.Process = Start(t, i.path, args...)
		line, ok := i.FindLine(t, "ready line", readyLine.MatchString)
		switch taken := func(line string) bool { return strings.Contains(line, "address already in use") }; {
		case ok:
			return line
		case !slices.ContainsFunc(i.Lines(), taken):
			t.Fatalf("%v ended without ready line", i.Process)
		}
	}
	t.Fatalf("%s: the ports that it had stay taken", i.path)
	return ""
}

// Sync is the state of one resource type of one proxy, as istiod sees it.
type Sync struct {
	Sent      string `json:"sent"`
	Acked     string `json:"acked"`
	LastError string `json:"lastError"`
}

// Proxy is one connected proxy, as istiod sees it.
type Proxy struct {
	ID        string          `json:"proxy"`
	Resources map[string]Sync `json:"resources"` // by type URL
}

// Type URLs of the resources that the bridge subscribes to.
const (
	ClusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	ListenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
)

// Proxies returns what `istioctl proxy-status` is made from.
func (i *Istiod) Proxies(ctx context.Context) ([]Proxy, error) {
	body, err := get(ctx, "http://"+i.HTTP+"/debug/syncz")
	if err != nil {
		return nil, err
	}
	var proxies []Proxy
	return proxies, json.Unmarshal(body, &proxies)
}

// Proxy returns the only proxy that is connected.
func (i *Istiod) Proxy(ctx context.Context) (Proxy, error) {
	proxies, err := i.Proxies(ctx)
	if err != nil {
		return Proxy{}, err
	}
	if len(proxies) != 1 {
		return Proxy{}, fmt.Errorf("%d proxies are connected, want 1", len(proxies))
	}
	return proxies[0], nil
}

// WaitSynced waits until the only proxy has acknowledged the latest of every
// type that the bridge needs, which `istioctl proxy-status` shows as SYNCED.
func (i *Istiod) WaitSynced(t testing.TB) Proxy {
	t.Helper()
	var synced Proxy
	Eventually(t, "SYNCED in istiod's view", func(ctx context.Context) error {
		proxy, err := i.Proxy(ctx)
		if err != nil {
			return err
		}
		synced = proxy
		return proxy.synced()
	})
	return synced
}

func (p Proxy) synced() error {
	var errs []error
	for _, typeURL := range []string{ClusterType, EndpointType, ListenerType, RouteType} {
		s, subscribed := p.Resources[typeURL]
		switch {
		case !subscribed || s.Sent == "":
			errs = append(errs, fmt.Errorf("%s: never sent", typeURL))
		case s.Sent != s.Acked:
			errs = append(errs, fmt.Errorf("%s: sent %s, acknowledged %s, last error %q", typeURL, s.Sent, s.Acked, s.LastError))
		}
	}
	return errors.Join(errs...)
}

// PushAll makes istiod send everything again to every proxy and waits until
// the only one has acknowledged all of it.
func (i *Istiod) PushAll(t testing.TB) {
	t.Helper()
	before := i.WaitSynced(t)
	if _, err := get(t.Context(), "http://"+i.HTTP+"/debug/adsz?push=true"); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "acknowledgement of a full push", func(ctx context.Context) error {
		after, err := i.Proxy(ctx)
		if err != nil {
			return err
		}
		for typeURL, s := range before.Resources {
			if after.Resources[typeURL].Sent == s.Sent {
				return fmt.Errorf("%s: not pushed again", typeURL)
			}
		}
		return after.synced()
	})
}

// Disconnect makes istiod end the only proxy's stream in the clean way, as it
// does at the maximum age of a connection.
func (i *Istiod) Disconnect(t testing.TB) {
	t.Helper()
	proxy, err := i.Proxy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := get(t.Context(), "http://"+i.HTTP+"/debug/force_disconnect?proxyID="+url.QueryEscape(proxy.ID)); err != nil {
		t.Fatal(err)
	}
}

// Connection identifies the only proxy's stream in istiod's own words.
func (i *Istiod) Connection(ctx context.Context) (string, error) {
	body, err := get(ctx, "http://"+i.HTTP+"/debug/connections")
	if err != nil {
		return "", err
	}
	var connections struct {
		Clients []struct {
			ID string `json:"connectionId"`
		} `json:"clients"`
	}
	if err := json.Unmarshal(body, &connections); err != nil {
		return "", err
	}
	if len(connections.Clients) != 1 {
		return "", fmt.Errorf("%d connections, want 1", len(connections.Clients))
	}
	return connections.Clients[0].ID, nil
}

// Debug returns one of istiod's debug pages, for example "configz".
func (i *Istiod) Debug(ctx context.Context, page string) (string, error) {
	body, err := get(ctx, "http://"+i.HTTP+"/debug/"+page)
	return string(body), err
}

func get(ctx context.Context, address string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", address, response.Status, strings.TrimSpace(string(body)))
	}
	return body, err
}
