package authn

import (
	"fmt"
	"maps"
	"slices"
	"time"

	jwtpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// judgement is one request on its way through a requirement. What it finds out counts whether or not
// the request may pass.
type judgement struct {
	request  *request
	now      time.Time
	metadata *structpb.Struct
}

// requirement is a tree of what tokens a request must have.
type requirement func(j *judgement) status

// requirements makes requirements of a filter's configuration.
type requirements struct {
	configs   map[string]*jwtpb.JwtProvider
	providers map[string]*provider
}

func newRequirements(c *jwtpb.JwtAuthentication) (*requirements, error) {
	x := &requirements{c.GetProviders(), map[string]*provider{}}
	for name, config := range c.GetProviders() {
		p, err := newProvider(config)
		if err != nil {
			return nil, fmt.Errorf("provider %q: %w", name, err)
		}
		x.providers[name] = p
	}
	return x, nil
}

func (x *requirements) of(r *jwtpb.JwtRequirement) (requirement, error) {
	switch kind := r.GetRequiresType().(type) {
	case nil:
		return func(*judgement) status { return statusOK }, nil
	case *jwtpb.JwtRequirement_ProviderName:
		return x.ofProvider(kind.ProviderName, nil)
	case *jwtpb.JwtRequirement_ProviderAndAudiences:
		return x.ofProvider(kind.ProviderAndAudiences.GetProviderName(), newAudiences(kind.ProviderAndAudiences.GetAudiences()))
	case *jwtpb.JwtRequirement_RequiresAny:
		return x.any(kind.RequiresAny.GetRequirements())
	case *jwtpb.JwtRequirement_RequiresAll:
		return x.all(kind.RequiresAll.GetRequirements())
	case *jwtpb.JwtRequirement_AllowMissing:
		return x.ofAll(false), nil
	case *jwtpb.JwtRequirement_AllowMissingOrFailed:
		return x.ofAll(true), nil
	}
	return nil, fmt.Errorf("requirement %T is not supported", r.GetRequiresType())
}

// ofProvider wants a token of a provider, and every token where it may be to be valid.
func (x *requirements) ofProvider(name string, allowed audiences) (requirement, error) {
	p := x.providers[name]
	if p == nil {
		return nil, fmt.Errorf("provider %q is not there", name)
	}
	where := newLocations([]*jwtpb.JwtProvider{p.config})
	return func(j *judgement) status {
		where.sanitize(j.request)
		found := where.find(j.request)
		if len(found) == 0 {
			return statusMissing
		}
		for _, f := range slices.Backward(found) {
			if st := j.verify(f, allowed, func(string) *provider { return p }); st != statusOK {
				return st
			}
		}
		return statusOK
	}, nil
}

// ofAll looks at the tokens of all providers, and wants none. Where failures are not allowed, every one
// that is there must be valid.
func (x *requirements) ofAll(allowFailed bool) requirement {
	names := slices.Sorted(maps.Keys(x.configs))
	var configs []*jwtpb.JwtProvider
	for _, name := range names {
		configs = append(configs, x.configs[name])
	}
	where := newLocations(configs)
	byIssuer := func(issuer string) *provider {
		var any *provider
		for _, name := range names {
			switch x.configs[name].GetIssuer() {
			case issuer:
				return x.providers[name]
			case "":
				if any == nil {
					any = x.providers[name]
				}
			}
		}
		return any
	}
	return func(j *judgement) status {
		where.sanitize(j.request)
		result := statusOK
		for _, f := range slices.Backward(where.find(j.request)) {
			if st := j.verify(f, nil, byIssuer); st != statusOK && result == statusOK {
				result = st
			}
		}
		if allowFailed {
			return statusOK
		}
		return result
	}
}

// verify takes one token.
func (j *judgement) verify(f foundToken, allowed audiences, of func(issuer string) *provider) status {
	t, st := parseToken(f.text)
	if st != statusOK {
		return st
	}
	if !f.issuers.allow(t.issuer) {
		return statusUnknownIssuer
	}
	p := of(t.issuer)
	if p == nil {
		return statusUnknownIssuer
	}
	if st := p.check(t, allowed, j.now); st != statusOK {
		return st
	}
	p.accept(t, f, j.request, j.metadata)
	return statusOK
}

// any wants one of the requirements. Of several failures, one about a token that was found counts
// more than one about another's token, and that more than none.
func (x *requirements) any(list []*jwtpb.JwtRequirement) (requirement, error) {
	var children []requirement
	var missing, failed bool
	for _, r := range list {
		switch r.GetRequiresType().(type) {
		case *jwtpb.JwtRequirement_AllowMissing:
			missing = true
			continue
		case *jwtpb.JwtRequirement_AllowMissingOrFailed:
			failed = true
			continue
		}
		child, err := x.of(r)
		if err != nil {
			return nil, err
		}
		children = append(children, child)
	}
	if len(children) == 0 && (missing || failed) {
		return x.ofAll(failed), nil
	}
	return func(j *judgement) status {
		final := statusMissing
		for _, child := range children {
			st := child(j)
			if st == statusOK {
				return statusOK
			}
			if st != statusMissing && st != statusUnknownIssuer || final == statusMissing {
				final = st
			}
		}
		if failed || missing && final == statusMissing {
			return statusOK
		}
		return final
	}, nil
}

// all wants every one of the requirements.
func (x *requirements) all(list []*jwtpb.JwtRequirement) (requirement, error) {
	children := make([]requirement, len(list))
	for i, r := range list {
		var err error
		if children[i], err = x.of(r); err != nil {
			return nil, err
		}
	}
	return func(j *judgement) status {
		for _, child := range children {
			if st := child(j); st != statusOK {
				return st
			}
		}
		return statusOK
	}, nil
}
