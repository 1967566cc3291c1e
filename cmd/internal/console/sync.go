package console

import (
	"maps"
	"net/http"
	"slices"
	"time"

	"meshbridge/xds"
)

// syncView has a row for each type of resource.
type syncView struct {
	Source   string         `json:"source"`
	Istiod   *istiodView    `json:"istiod,omitempty"`
	Types    []typeView     `json:"types"`
	Rejected []rejectedView `json:"rejected"`
	Page     paging         `json:"rejected_page"`
}

type typeView struct {
	Type string `json:"type"`
	URL  string `json:"type_url"`
	// Subscribed is "all", or how many names.
	Wildcard   bool `json:"wildcard"`
	Subscribed int  `json:"subscribed"`
	Received   int  `json:"received"`
	Pending    int  `json:"pending"`
	Rejected   int  `json:"rejected"`
	Responses  int  `json:"responses"`

	LastResponse time.Time `json:"last_response,omitzero"`
	LastChange   time.Time `json:"last_change,omitzero"`
	Version      string    `json:"version,omitempty"`
	Nonce        string    `json:"nonce,omitempty"`
	// Answer to the last response: "ack", "nack", or empty where there was none.
	Answer string `json:"answer,omitempty"`
	NACK   string `json:"nack,omitempty"`
}

type rejectedView struct {
	resourceName
	Error    string    `json:"error"`
	Received time.Time `json:"received,omitzero"`
	Version  string    `json:"version,omitempty"`
}

func (s *Server) sync(r *http.Request) (any, error) {
	f, err := readFilter(r)
	if err != nil {
		return nil, err
	}
	world, source := s.config.World(), s.sourceStatus()
	v := syncView{Source: "files"}
	urls := map[string]bool{}
	for _, url := range world.Snapshot.Types() {
		urls[url] = true
	}
	if source != nil {
		v.Source = "istiod"
		v.Istiod = &istiodView{Address: source.Target, controlPlane: parseControlPlane(source.ControlPlane), Connected: source.Connected, Since: source.Since}
		if source.LastError != nil {
			v.Istiod.LastError = source.LastError.Error()
		}
		for url := range source.Types {
			urls[url] = true
		}
	}
	pending, rejected := map[string]int{}, map[string]int{}
	for _, key := range world.Pending {
		urls[key.Type] = true
		pending[key.Type]++
	}
	var refused []rejectedView
	for _, r := range world.Rejected {
		urls[r.Type] = true
		rejected[r.Type]++
		refused = append(refused, rejectedView{resourceName{xds.ShortType(r.Type), r.Name}, r.Err.Error(), r.Received, r.Response})
	}
	v.Rejected, v.Page = pageOf(&f, refused)
	v.Types = make([]typeView, 0, len(urls))
	for _, url := range slices.SortedFunc(maps.Keys(urls), byType) {
		t := typeView{
			Type: xds.ShortType(url), URL: url, Received: world.Snapshot.Len(url), Pending: pending[url], Rejected: rejected[url],
		}
		if source != nil {
			t.fill(source.Types[url])
		}
		v.Types = append(v.Types, t)
	}
	return v, nil
}

func (t *typeView) fill(s xds.TypeStatus) {
	t.Wildcard, t.Subscribed, t.Responses = s.Wildcard, s.Subscribed, s.Responses
	t.LastResponse, t.LastChange, t.Version, t.Nonce = s.LastResponse, s.LastChange, s.Version, s.Nonce
	t.Received = s.Resources
	switch {
	case s.NACK != nil:
		t.Answer, t.NACK = "nack", s.NACK.Error()
	case !s.LastResponse.IsZero():
		t.Answer = "ack"
	}
}
