package bridge

import (
	"encoding/json"
	"log/slog"
	"time"

	"meshbridge/translate"
	"meshbridge/translate/apisix"
)

// noteCertificates tells when the certificates in a result expire. It is for people and alerts: one
// that has expired is served all the same, as Envoy does.
func (p *pipeline) noteCertificates(now time.Time, r translate.Result) {
	for _, o := range r.Put {
		if o.Kind != apisix.KindSSL {
			continue
		}
		ssl := new(apisix.SSL)
		if json.Unmarshal(o.Value, ssl) != nil {
			continue // it was encoded a moment ago
		}
		expiry, ok := ssl.NotAfter()
		if !ok {
			continue
		}
		p.expiries[o.ID] = expiry
		if !now.Before(expiry) {
			p.log.Warn("certificate has expired", slog.String("resource", o.Key()), slog.Time("expiry", expiry))
		}
	}
	for _, key := range r.Delete {
		if kind, id, _ := apisix.ParseKey(key); kind == apisix.KindSSL {
			delete(p.expiries, id)
		}
	}
	first := 0.0
	for _, at := range p.expiries {
		if t := float64(at.Unix()); first == 0 || t < first {
			first = t
		}
	}
	p.metrics.expiry.Set(first)
}
