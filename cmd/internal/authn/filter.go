package authn

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"meshbridge/translate"
)

// filter is a filter's configuration, ready for requests. It is immutable.
type filter struct {
	requires requirement
	// bypasses and silent are that preflight requests pass, and that answers give no reason.
	bypasses, silent bool
	claims           []*claimTest
	// answered are the headers that the answer replaces.
	answered []string
}

// verdict is what becomes of a request: it may pass where its code is 200.
type verdict struct {
	code   int
	body   string
	header http.Header
}

func newFilter(a *translate.Authentication) (*filter, error) {
	x, err := newRequirements(a.Filter)
	if err != nil {
		return nil, err
	}
	f := &filter{bypasses: a.Filter.GetBypassCorsPreflight(), silent: a.Filter.GetStripFailureResponse(), answered: a.Headers}
	if f.requires, err = x.of(a.Requirement); err != nil {
		return nil, err
	}
	for i, m := range a.Claims {
		test, err := newClaimTest(m)
		if err != nil {
			return nil, fmt.Errorf("claim %d: %w", i, err)
		}
		f.claims = append(f.claims, test)
	}
	return f, nil
}

func (f *filter) judge(r *request, now time.Time) verdict {
	j := &judgement{request: r, now: now, metadata: &structpb.Struct{Fields: map[string]*structpb.Value{}}}
	if !f.bypasses || !r.preflight {
		if st := f.requires(j); st != statusOK {
			return f.refuse(r, st)
		}
	}
	out := verdict{code: http.StatusOK, header: http.Header{}}
	for _, name := range f.answered {
		if values := r.headers.Values(name); len(values) > 0 {
			out.header[http.CanonicalHeaderKey(name)] = values
		}
	}
	out.header.Set(translate.ClaimsHeader, f.results(j.metadata))
	return out
}

// results has a digit for each claim that rules ask for: 1 where it is so.
func (f *filter) results(metadata *structpb.Struct) string {
	var b strings.Builder
	for _, c := range f.claims {
		if c.holds(metadata) {
			b.WriteByte('1')
		} else {
			b.WriteByte('0')
		}
	}
	return b.String()
}

func (f *filter) refuse(r *request, st status) verdict {
	out := verdict{code: http.StatusUnauthorized, header: http.Header{}}
	if st == statusAudienceNotAllowed {
		out.code = http.StatusForbidden
	}
	if f.silent {
		return out
	}
	challenge := `Bearer realm="` + r.uri() + `"`
	if st != statusMissing {
		challenge += `, error="invalid_token"`
	}
	out.body = string(st)
	out.header.Set("Www-Authenticate", challenge)
	out.header.Set("Content-Type", "text/plain")
	return out
}
