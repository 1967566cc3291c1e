package pods

import (
	"testing"

	"meshbridge/testdata/conformance/harness"
)

// credentials writes files of a certificate, its key and the authority, and returns their paths.
func (m *mesh) credentials(t testing.TB, a harness.Authority, file, name string) (certificate, key, authorities string) {
	t.Helper()
	c, k := a.Issue(t, name)
	for suffix, text := range map[string]string{".pem": c, ".key": k, ".ca": a.PEM()} {
		m.write(t, file+suffix, text)
	}
	return m.path(file + ".pem"), m.path(file + ".key"), m.path(file + ".ca")
}
