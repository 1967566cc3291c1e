package difftest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"meshbridge/translate/apisix"
	"meshbridge/translate/envoytest"
)

// pair is one request in the form of each side.
type pair struct {
	entrance *entrance
	envoy    envoytest.Request
	apisix   apisix.Request
}

// windows is how many digits of a request id decide one random choice, see apisix.HexLess.
const windowDigits = 6

// generator makes requests.
type generator struct {
	random Random
	words  *vocabulary
}

func pick[T any](r Random, of ...T) T { return of[r.IntN(len(of))] }

// chance holds in n of 100 cases.
func (g *generator) chance(n int) bool { return g.random.IntN(100) < n }

// request returns a random request to a chain. Most are ordinary in all but what decides about
// routes: what is hostile is one thing at a time more often than not.
func (e *entrance) request(random Random) envoytest.Request {
	g := &generator{random, e.words}
	r := envoytest.Request{
		Connection: e.connection, Method: g.method(), Host: g.host(), Target: g.path() + g.query(), Headers: g.headers(),
		Draws: envoytest.Draws{Cluster: g.draw(), Match: g.draw(), Delay: g.draw(), Abort: g.draw()},
		Response: []envoytest.Header{
			{Name: "content-type", Value: "text/plain"},
			{Name: "x-upstream", Value: "u"},
		},
	}
	for _, name := range e.words.changed {
		if g.chance(25) {
			r.Response = append(r.Response, envoytest.Header{Name: name, Value: pick(random, "theirs", "", "a, b")})
		}
	}
	return r
}

// draw is a fraction that the windows of a request id can hold.
func (g *generator) draw() float64 {
	return float64(g.random.Uint32()>>8) / (1 << (4 * windowDigits))
}

func (g *generator) method() string {
	// Envoy knows these, and takes no others.
	methods := []string{"GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "PROPFIND", "PURGE", "TRACE", "REPORT", "MKCOL"}
	if len(g.words.methods) > 0 && g.chance(40) {
		if m := pick(g.random, g.words.methods...); slices.Contains(methods, m) {
			return m
		}
	}
	if g.chance(40) {
		return "GET"
	}
	return pick(g.random, methods...)
}

func (g *generator) host() string {
	host := "other.example"
	if len(g.words.hosts) > 0 && g.chance(92) {
		host = pick(g.random, g.words.hosts...)
	}
	if host == "*" {
		host = "any.example"
	}
	host = strings.ReplaceAll(host, "*", pick(g.random, "w", "a.b", "w-1", ""))
	if strings.Count(host, ":") > 1 && !strings.HasPrefix(host, "[") {
		host = "[" + host + "]"
	}
	host = strings.Trim(host, " \t") // which is not part of a header's value
	if g.chance(75) {
		return host
	}
	switch g.random.IntN(12) {
	case 0, 1:
		return host + ":" + strconv.Itoa(1+g.random.IntN(65535))
	case 2:
		return host + ":80"
	case 3, 4:
		return strings.ToUpper(host)
	case 5:
		return host + "."
	case 6:
		return "x." + host
	case 7:
		return strings.TrimPrefix(host, "w")
	case 8:
		return host + ".:80"
	case 9:
		return "x-" + host
	case 10:
		return pick(g.random, "[::1]", "[::1]:80", "10.1.2.3", "a..b", "a_b.c", "a b", "a/b", "", "a:", ":80", "a:b", "é.example", `a"b`, "x@y", "a,b", "a%41")
	}
	return "sub." + strings.ToUpper(host) + ":8080"
}

func (g *generator) path() string {
	path := "/"
	if len(g.words.paths) > 0 && g.chance(90) {
		path = pick(g.random, g.words.paths...)
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	path = strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f { // cannot be in a request line
			return '_'
		}
		return r
	}, path)
	if g.chance(55) {
		return path
	}
	for range 1 + g.random.IntN(2) {
		path = g.mutatePath(path)
	}
	return path
}

func (g *generator) mutatePath(path string) string {
	at := g.random.IntN(len(path) + 1)
	insert := func(s string) string { return path[:at] + s + path[at:] }
	switch g.random.IntN(22) {
	case 0, 1, 2:
		return path + pick(g.random, "x", "/", "/x", "/x/y", ".html", "/index")
	case 3, 4:
		return path[:max(1, len(path)-1)]
	case 5:
		return strings.ToUpper(path)
	case 6:
		return insert("/")
	case 7:
		return insert(pick(g.random, "%2F", "%2f", "%5C", `\`))
	case 8:
		return insert(pick(g.random, "/./", "/../", "/x/../", "/%2e%2e/", "/.", "/..", "/...", "/.x"))
	case 9, 10: // a character in its escaped form
		if at == 0 || at == len(path) || path[at] == '%' {
			return path
		}
		return path[:at] + fmt.Sprintf("%%%02X", path[at]) + path[at+1:]
	case 11:
		return insert(pick(g.random, "%00", "%0a", "%7f", "%01", "%zz", "%", "%2"))
	case 12:
		return insert(pick(g.random, "é", "%C3%A9", "%c3", "\xff", "日"))
	case 13:
		return insert(pick(g.random, ";p=1", ":", "*", "+", "$", "@", "!", "(", "|", "{x}", "^", `"`, "<", "%20", "%25", "%3F", "%23"))
	case 14:
		return path + "#fragment"
	case 15:
		return path + "/" + strings.Repeat("long/", 1+g.random.IntN(60))
	case 16:
		if g.chance(10) {
			return path + "/" + strings.Repeat("l", 7000)
		}
		return path + "/" + strings.Repeat("l", 500)
	case 17, 18:
		return path + pick(g.random, "0", "a", "-", "_", "~", "=", "&")
	case 19:
		return strings.ToLower(path)
	}
	return "/" + strings.TrimLeft(path, "/")
}

func (g *generator) query() string {
	var pairs []string
	for _, q := range g.words.queries {
		if !g.chance(65) {
			continue
		}
		for range 1 + g.random.IntN(10)/8 {
			value := ""
			if len(q.values) > 0 {
				value = pick(g.random, q.values...)
			}
			if strings.ContainsAny(value, "&#? ") {
				value = "v"
			}
			switch g.random.IntN(10) {
			case 0:
				pairs = append(pairs, q.name)
			case 1:
				pairs = append(pairs, q.name+"=")
			case 2:
				pairs = append(pairs, strings.ToUpper(q.name)+"="+value)
			case 3:
				if value != "" {
					value = fmt.Sprintf("%%%02x", value[0]) + value[1:]
				}
				pairs = append(pairs, q.name+"="+value)
			default:
				pairs = append(pairs, q.name+"="+value)
			}
		}
	}
	if g.chance(15) {
		pairs = append(pairs, pick(g.random, "a=b", "a=b=c", "a", "=", "", "x=%20y", "x=a+b", "q=/../x", "é=1", "a=%2F//"))
	}
	switch {
	case len(pairs) > 0:
		return "?" + strings.Join(pairs, "&")
	case g.chance(5):
		return "?"
	}
	return ""
}

func (g *generator) headers() []envoytest.Header {
	var out []envoytest.Header
	add := func(name string, values ...string) {
		for _, v := range values {
			out = append(out, envoytest.Header{Name: name, Value: headerValue(v)})
		}
	}
	for _, h := range g.words.headers {
		if !g.chance(60) {
			continue
		}
		values := append([]string{"", "x"}, h.values...)
		name := h.name
		if g.chance(8) {
			name = strings.ToUpper(name)
		}
		add(name, pick(g.random, values...))
		if g.chance(8) {
			add(h.name, pick(g.random, values...))
		}
	}
	for _, name := range g.words.changed {
		if g.chance(25) {
			add(name, pick(g.random, "mine", "", "a, b"))
			if g.chance(20) {
				add(name, "second")
			}
		}
	}
	for _, c := range g.words.cookies {
		if g.chance(60) && len(c.values) > 0 {
			add("cookie", c.name+"="+pick(g.random, c.values...))
		}
	}
	if g.chance(10) {
		add("content-type", pick(g.random, "application/grpc", "application/grpc+proto", "application/grpc-web", "text/plain"))
	}
	if g.chance(10) {
		add("x-unrelated", pick(g.random, "1", "", "é", strings.Repeat("v", 300)))
	}
	return out
}

// headerValue makes a text one that a header can have: without control characters, and without white
// space around it, which is not part of the value.
func headerValue(s string) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s), " \t")
}

// pair gives the request to both sides.
func (e *entrance) pair(r envoytest.Request) pair {
	a := apisix.Request{
		Method: r.Method, Scheme: "http", Host: r.Host, URI: r.Target, RemoteAddr: r.Connection.Source.Addr().String(),
		Headers: map[string][]string{}, Response: map[string][]string{}, Vars: map[string]string{
			"request_id": requestID(r.Draws), "remote_port": strconv.Itoa(int(r.Connection.Source.Port())),
			"server_protocol": "HTTP/1.1", "hostname": "host",
		},
	}
	for _, h := range r.Headers {
		a.Headers[strings.ToLower(h.Name)] = append(a.Headers[strings.ToLower(h.Name)], h.Value)
	}
	for _, h := range r.Response {
		a.Response[strings.ToLower(h.Name)] = append(a.Response[strings.ToLower(h.Name)], h.Value)
	}
	maps.Copy(a.Vars, e.vars)
	if r.Connection.TLS && !e.chain.MeshTLS { // which APISIX terminates
		a.Scheme, a.Vars["ssl_client_verify"] = "https", "NONE"
		if r.Connection.Certificate != nil {
			a.Vars["ssl_client_verify"] = "SUCCESS"
		} else if e.chain.Terminated {
			a.TLS = &apisix.Handshake{ServerName: r.Connection.ServerName}
		}
	}
	return pair{e, r, a}
}

// requestID makes the digits that give the draws.
func requestID(d envoytest.Draws) string {
	var b strings.Builder
	for _, draw := range []float64{d.Cluster, d.Match, d.Delay, d.Abort} {
		fmt.Fprintf(&b, "%0*x", windowDigits, int(draw*(1<<(4*windowDigits))))
	}
	return b.String() + "00000000"
}
