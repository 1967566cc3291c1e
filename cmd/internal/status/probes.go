package status

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
)

// Probes are those of the application's containers, by the path to which the injector has moved each:
// /app-health/CONTAINER/{livez,readyz,startupz} or /app-lifecycle/CONTAINER/{prestopz,poststartz}.
type Probes map[string]*Probe

// Probe has one of its actions, in the form of Kubernetes' API.
type Probe struct {
	HTTPGet   *HTTPGet   `json:"httpGet,omitempty"`
	TCPSocket *TCPSocket `json:"tcpSocket,omitempty"`
	GRPC      *GRPC      `json:"grpc,omitempty"`
	// TimeoutSeconds is how long it may take; 0 is Kubernetes' default, 1 s, for a probe and without limit
	// for a handler of the lifecycle.
	TimeoutSeconds int32 `json:"timeoutSeconds,omitempty"`
}

// HTTPGet succeeds where the answer's status is from 200 to 399. Its headers come with each request, because
// the injector leaves them to the kubelet.
type HTTPGet struct {
	Path   string `json:"path,omitempty"`
	Port   Port   `json:"port"`
	Scheme string `json:"scheme,omitempty"`
}

// TCPSocket succeeds where a connection opens.
type TCPSocket struct {
	Port Port `json:"port"`
}

// GRPC succeeds where the health service says SERVING.
type GRPC struct {
	Port    Port    `json:"port"`
	Service *string `json:"service,omitempty"`
}

// Port is a number: the injector resolves names.
type Port uint16

// UnmarshalJSON implements json.Unmarshaler.
func (p *Port) UnmarshalJSON(data []byte) error {
	var n uint16
	if err := json.Unmarshal(data, &n); err != nil || n == 0 {
		return fmt.Errorf("port %s: want a number from 1 to 65535", data)
	}
	*p = Port(n)
	return nil
}

var probePath = regexp.MustCompile(`^/(app-health/[^/]+/(livez|readyz|startupz)|app-lifecycle/[^/]+/(prestopz|poststartz))$`)

// ParseProbes reads the environment variable ISTIO_KUBE_APP_PROBERS: JSON, empty for none.
func ParseProbes(text string) (Probes, error) {
	if text == "" {
		return nil, nil
	}
	var all Probes
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return nil, err
	}
	var errs []error
	for path, p := range all {
		if !probePath.MatchString(path) {
			errs = append(errs, fmt.Errorf("%q: want /app-health/CONTAINER/{livez,readyz,startupz} or /app-lifecycle/CONTAINER/{prestopz,poststartz}", path))
			continue
		}
		if err := p.validate(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
		}
	}
	slices.SortFunc(errs, func(a, b error) int {
		if a.Error() < b.Error() {
			return -1
		}
		return 1
	})
	return all, errors.Join(errs...)
}

func (p *Probe) validate() error {
	actions := 0
	if p != nil {
		for _, has := range []bool{p.HTTPGet != nil, p.TCPSocket != nil, p.GRPC != nil} {
			if has {
				actions++
			}
		}
	}
	switch {
	case actions != 1:
		return fmt.Errorf("has %d of httpGet, tcpSocket and grpc, want one", actions)
	case p.TimeoutSeconds < 0:
		return fmt.Errorf("timeoutSeconds: %d is negative", p.TimeoutSeconds)
	case p.port() == 0:
		return errors.New("has no port")
	case p.HTTPGet != nil && p.HTTPGet.Scheme != "" && p.HTTPGet.Scheme != schemeHTTP && p.HTTPGet.Scheme != schemeHTTPS:
		return fmt.Errorf("scheme %q: want HTTP or HTTPS", p.HTTPGet.Scheme)
	}
	return nil
}

// Schemes, as Kubernetes spells them.
const (
	schemeHTTP  = "HTTP"
	schemeHTTPS = "HTTPS"
)

func (p *Probe) port() Port {
	switch {
	case p.HTTPGet != nil:
		return p.HTTPGet.Port
	case p.TCPSocket != nil:
		return p.TCPSocket.Port
	default:
		return p.GRPC.Port
	}
}
