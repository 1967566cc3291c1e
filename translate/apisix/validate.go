package apisix

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// FieldError is a rule of APISIX that an object breaks. APISIX drops an object that its schema
// refuses, and takes others without a word although they cannot work.
type FieldError struct {
	// Object is the key of the object, for example "routes/r.80.reviews.k3v9q2m1x7".
	Object string
	// Field is the path of the field, for example "plugins.redirect.uri".
	Field string
	// Rule says what is wrong.
	Rule string
}

func (e *FieldError) Error() string { return e.Object + ": " + e.Field + ": " + e.Rule }

// Validate checks an object against the rules of the APISIX version, those of its schema and those
// that it does not tell. The error joins one [FieldError] per broken rule.
func Validate(o Object, version Version) error {
	switch o.Kind {
	case KindRoute:
		return validateJSON(o, func(r *routeEntry) error { return r.validate(version) })
	case KindUpstream:
		return validateJSON(o, func(u *Upstream) error { return u.Validate(version) })
	case KindPluginConfig:
		return validateJSON(o, func(c *PluginConfig) error { return c.Validate(version) })
	case KindStreamRoute:
		return validateJSON(o, func(r *streamRouteFields) error { return r.validate(version) })
	case KindSSL:
		return validateJSON(o, func(s *SSL) error { return s.Validate(version) })
	case KindGlobalRule:
		return validateJSON(o, func(r *GlobalRule) error { return r.Validate(version) })
	case KindConsumer, KindConsumerGroup, KindPluginMetadata, KindProto, KindSecret:
	}
	return &FieldError{o.Key(), "kind", "is not one that meshbridge makes"}
}

func validateJSON[T any](o Object, validate func(*T) error) error {
	v := new(T)
	d := json.NewDecoder(bytes.NewReader(o.Value))
	d.DisallowUnknownFields() // as APISIX does: additionalProperties is false
	if err := d.Decode(v); err != nil {
		return &FieldError{o.Key(), "value", err.Error()}
	}
	if err := validate(v); err != nil {
		return err
	}
	var id struct{ ID string }
	if err := json.Unmarshal(o.Value, &id); err != nil || id.ID != o.ID {
		return &FieldError{o.Key(), "id", fmt.Sprintf("is %q, and APISIX takes the one in the key", id.ID)}
	}
	return nil
}

// validation collects the errors of one object.
type validation struct {
	object  string
	version Version
	errs    []error
}

func (v *validation) fail(field, format string, args ...any) {
	v.errs = append(v.errs, &FieldError{v.object, field, fmt.Sprintf(format, args...)})
}

func (v *validation) err() error { return errors.Join(v.errs...) }

func (v *validation) require(ok bool, field, format string, args ...any) {
	if !ok {
		v.fail(field, format, args...)
	}
}

func (v *validation) within(field string, n, low, high int) {
	if n < low || n > high {
		v.fail(field, "%d is not within %d and %d", n, low, high)
	}
}

// needs fails where the version is older than the feature that a field uses.
func (v *validation) needs(field string, f Feature) {
	if !v.version.Has(f) {
		v.fail(field, "needs APISIX %s, not %s: %s", f.Since(), v.version, f)
	}
}

// template checks that the version resolves a template as it is meant.
func (v *validation) template(field, s string) {
	if HasTemplateDefault(s) {
		v.needs(field, FeatureTemplateDefault)
	}
}

func (v *validation) oneOf(field, s string, allowed ...string) {
	if !slices.Contains(allowed, s) {
		v.fail(field, "%q is none of %s", s, strings.Join(allowed, ", "))
	}
}

func at(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }

// common checks what every object has.
func (v *validation) common(id, name, desc string, labels map[string]string) {
	v.id("id", id)
	v.require(len(name) <= v.version.maxName(), "name", "is longer than %d bytes", v.version.maxName())
	v.require(len(desc) <= maxTextLength, "desc", "is longer than %d bytes", maxTextLength)
	for key, value := range labels {
		if value == "" || value != v.version.LabelValue(value) {
			v.fail("labels."+key, "%q is empty, has white space, or is longer than %d bytes", value, v.version.maxLabel())
		}
	}
}

// id checks an id or a reference: ^[a-zA-Z0-9-_.]+$, at most 64 bytes.
func (v *validation) id(field, id string) {
	if id == "" || len(id) > maxIDLength || !only(id, isIDByte) {
		v.fail(field, "%q is not 1 to %d letters, digits, -, _ and .", id, maxIDLength)
	}
}

func only(s string, allowed func(byte) bool) bool {
	for i := range len(s) {
		if !allowed(s[i]) {
			return false
		}
	}
	return true
}

func isIDByte(c byte) bool { return isAlphanumeric(c) || c == '-' || c == '_' || c == '.' }

// isHostPattern is ^\*$|^\*?[0-9a-zA-Z-._\[\]:]+$.
func isHostPattern(s string) bool {
	if s == "*" {
		return true
	}
	s = strings.TrimPrefix(s, "*")
	return s != "" && only(s, func(c byte) bool { return isIDByte(c) || c == '[' || c == ']' || c == ':' })
}

func (v *validation) unique(field string, list []string) {
	for i, s := range list {
		if slices.Index(list, s) != i {
			v.fail(at(field, i), "%q is there twice", s)
		}
	}
}

// expression checks that an expression compiles and can work.
func (v *validation) expression(field string, expression any) {
	e, err := ParseExpr(expression)
	if err == nil {
		err = e.Check()
	}
	if err != nil {
		v.fail(field, "%v", err)
		return
	}
	if v.version.HasAll() {
		return
	}
	for _, f := range e.features() {
		v.needs(field, f)
	}
}

// regex checks that PCRE takes an expression. One beyond what can be checked here is let pass.
func (v *validation) regex(field, pattern string) {
	if _, err := compilePCRE(pattern, false); err != nil && !errors.Is(err, errPCREOnly) {
		v.fail(field, "%v", err)
	}
}

func (v *validation) timeout(field string, t *Timeout) {
	if t == nil {
		return
	}
	if t.Connect <= 0 {
		v.fail(field+".connect", "must be above 0")
	}
	if t.Send <= 0 {
		v.fail(field+".send", "must be above 0")
	}
	if t.Read <= 0 {
		v.fail(field+".read", "must be above 0")
	}
}

// Validate checks the route. See [Validate].
func (r *Route) Validate(version Version) error {
	return (&routeEntry{Route: *r}).validate(version)
}

func (r *routeEntry) validate(version Version) error {
	v := &validation{object: string(KindRoute) + "/" + r.ID, version: version}
	v.common(r.ID, r.Name, r.Desc, r.Labels)

	v.require(r.Host == "" || len(r.Hosts) == 0, "host", "is there beside hosts")
	if r.Host != "" {
		v.routeHost("host", r.Host)
	}
	for i, host := range r.Hosts {
		v.routeHost(at("hosts", i), host)
	}
	v.unique("hosts", r.Hosts)

	v.require((r.URI == "") != (len(r.URIs) == 0), "uri", "there must be either uri or uris")
	if r.URI != "" {
		v.routeURI("uri", r.URI)
	}
	for i, uri := range r.URIs {
		v.routeURI(at("uris", i), uri)
	}
	v.unique("uris", r.URIs)

	for i, method := range r.Methods {
		v.oneOf(at("methods", i), method, "GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "PURGE")
	}
	if len(r.Vars) > 0 {
		v.expression("vars", r.Vars)
	}
	v.timeout("timeout", r.Timeout)
	if r.UpstreamID != "" {
		v.id("upstream_id", r.UpstreamID)
	}
	if r.PluginConfigID != "" {
		v.id("plugin_config_id", r.PluginConfigID)
	}
	v.require(len(r.Plugins) > 0 || r.UpstreamID != "" || r.InlineUpstream != nil || r.ServiceID != nil || r.Script != "", "plugins",
		"there must be a plugin or an upstream; plugin_config_id does not count")
	v.plugins(r.Plugins)
	return v.err()
}

// routeHost refuses what the schema refuses, and a port: $host, to which it is compared, has none.
func (v *validation) routeHost(field, host string) {
	if !isHostPattern(host) {
		v.fail(field, "%q does not match ^\\*$|^\\*?[0-9a-zA-Z-._\\[\\]:]+$", host)
		return
	}
	_, port, _ := strings.Cut(host[strings.IndexByte(host, ']')+1:], ":")
	bare := strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]")
	v.require(port == "" && (bare || !strings.Contains(host, ":")), field,
		"%q never matches: a host is compared without its port, and IPv6 addresses are in brackets", host)
}

// maxURI is the limit on uri.
const maxURI = 4096

// routeURI refuses patterns that do not mean what they look like, see [pathRecheck].
func (v *validation) routeURI(field, uri string) {
	v.require(len(uri) <= maxURI, field, "is longer than %d bytes", maxURI)
	v.require(strings.HasPrefix(uri, "/"), field, "%q does not begin with /", uri)
	star := strings.IndexByte(uri, '*')
	if star < 0 {
		return
	}
	if rest := uri[star+1:]; strings.HasSuffix(uri[:star], "/") && rest != "" && strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz") == "" {
		uri = uri[:star+1] // a wildcard with a name
	}
	v.require(star == len(uri)-1, field, "%q has a * that is not its end: it is a wildcard, and what follows may be ignored", uri)
	prefix := uri[:star]
	if newPathRecheck(uri) == nil {
		return
	}
	v.require(strings.HasSuffix(prefix, "/") && !hasPathMeta(prefix), field,
		"%q is read as a regular expression, because its last segment is * or one begins with a colon", uri)
}

// Validate checks the plugin config. See [Validate].
func (c *PluginConfig) Validate(version Version) error {
	v := &validation{object: string(KindPluginConfig) + "/" + c.ID, version: version}
	v.common(c.ID, c.Name, c.Desc, c.Labels)
	if c.Name != "" {
		v.needs("name", FeaturePluginConfigName)
	}
	v.require(c.Plugins != nil, "plugins", "is required")
	v.plugins(c.Plugins)
	return v.err()
}

// Validate checks the rule as [Validate] does.
func (r *GlobalRule) Validate(version Version) error {
	v := &validation{object: string(KindGlobalRule) + "/" + r.ID, version: version}
	v.common(r.ID, "", "", nil)
	v.require(r.Plugins != nil, "plugins", "is required")
	v.plugins(r.Plugins)
	return v.err()
}

// streamRouteFields are those fields of a stream_route that can be emitted.
type streamRouteFields struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Desc       string            `json:"desc"`
	Labels     map[string]string `json:"labels"`
	ServerPort *int              `json:"server_port"`
	ServerAddr string            `json:"server_addr"`
	RemoteAddr string            `json:"remote_addr"`
	SNI        string            `json:"sni"`
	UpstreamID string            `json:"upstream_id"`
	Plugins    Plugins           `json:"plugins"`
}

func (r *streamRouteFields) validate(version Version) error {
	v := &validation{object: string(KindStreamRoute) + "/" + r.ID, version: version}
	v.common(r.ID, r.Name, r.Desc, r.Labels)
	for _, used := range []struct {
		use   bool
		field string
		f     Feature
	}{
		{len(r.Labels) > 0, "labels", FeatureStreamRouteLabels},
		{r.Name != "", "name", FeatureStreamRouteName},
		{r.Plugins["traffic-split"] != nil, "plugins.traffic-split", FeatureStreamTrafficSplit},
	} {
		if used.use {
			v.needs(used.field, used.f)
		}
	}
	if r.ServerPort != nil {
		v.within("server_port", *r.ServerPort, 1, 65535)
	}
	for field, addr := range map[string]string{"server_addr": r.ServerAddr, "remote_addr": r.RemoteAddr} {
		if addr == "" {
			continue
		}
		if _, err := parsePrefix(addr); err != nil {
			v.fail(field, "%v", err)
		}
	}
	v.require(r.SNI == "" || isHostPattern(r.SNI), "sni", "%q is not a host", r.SNI)
	if r.UpstreamID != "" {
		v.id("upstream_id", r.UpstreamID)
	}
	return v.err()
}
