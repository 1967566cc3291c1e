package capture

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"meshbridge/identity"
	"meshbridge/translate"
)

// certificateSource returns the certificate of the moment, for one handshake; authoritySource the
// authorities. They are safe for concurrent use, and answer with the same pointer as long as nothing
// has changed. Errors are of tlsMissingCredential.
type (
	certificateSource func() (*tls.Certificate, error)
	authoritySource   func() (*x509.CertPool, error)
)

// credentials tells where certificates and authorities come from.
type credentials struct {
	identity identity.Source // may be nil
	log      *slog.Logger
}

// certificate returns nil for a credential without certificate.
func (c credentials) certificate(of translate.Credential) certificateSource {
	switch {
	case of.Missing != "":
		return missing[*tls.Certificate](of.Missing)
	case of.Workload:
		return func() (*tls.Certificate, error) {
			current, err := c.current()
			if err != nil {
				return nil, err
			}
			return current.Certificate, nil
		}
	case of.CertificateFile != "":
		return newFiles(c.log, parseCertificate, of.CertificateFile, of.KeyFile).current
	case len(of.Certificate) > 0:
		return parsed(parseCertificate(of.Certificate, of.Key))
	default:
		return nil
	}
}

// authorities returns nil for a credential without authorities.
func (c credentials) authorities(of translate.Credential) authoritySource {
	switch {
	case of.Missing != "":
		return missing[*x509.CertPool](of.Missing)
	case of.Workload:
		return func() (*x509.CertPool, error) {
			current, err := c.current()
			if err != nil {
				return nil, err
			}
			return current.Authorities, nil
		}
	case of.AuthoritiesFile != "":
		return newFiles(c.log, parseAuthorities, of.AuthoritiesFile).current
	case len(of.Authorities) > 0:
		return parsed(parseAuthorities(of.Authorities))
	default:
		return nil
	}
}

// systemAuthorities are those of the operating system; reading them takes milliseconds.
func systemAuthorities() authoritySource {
	return sync.OnceValues(func() (*x509.CertPool, error) {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, refuse(tlsMissingCredential, "authorities of the system: %w", err)
		}
		return pool, nil
	})
}

func (c credentials) current() (*identity.Identity, error) {
	if c.identity != nil {
		if current := c.identity.Current(); current != nil {
			return current, nil
		}
	}
	return nil, refuse(tlsMissingCredential, "the workload has no certificate yet")
}

// trustDomain returns that of the workload, empty before there is one.
func (c credentials) trustDomain() string {
	current, err := c.current()
	if err != nil {
		return ""
	}
	domain, _ := trustDomainOf(current.ID)
	return domain
}

func missing[T any](secret string) func() (T, error) {
	err := refuse(tlsMissingCredential, "secret %q has not arrived", secret)
	return func() (none T, _ error) { return none, err }
}

// parsed is a source of what came with the configuration.
func parsed[T any](value T, err error) func() (T, error) {
	if err != nil {
		err = refuse(tlsMissingCredential, "%w", err)
	}
	return func() (T, error) { return value, err }
}

func parseCertificate(texts ...[]byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(texts[0], texts[1])
	if err != nil {
		return nil, fmt.Errorf("certificate and key: %w", err)
	}
	return &pair, nil
}

func parseAuthorities(texts ...[]byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(texts[0]) {
		return nil, errors.New("authorities: no certificate in PEM")
	}
	return pool, nil
}

// files keeps what files hold, and reads them again when they have changed. As long as the new content
// cannot be used, such as a certificate whose key is yet to be written, the last good one stays.
type files[T any] struct {
	// set once
	log   *slog.Logger
	parse func(texts ...[]byte) (T, error)
	paths []string

	mu     sync.Mutex
	read   []fileVersion // those of the last attempt
	loaded bool
	value  T     // of the last attempt that succeeded
	err    error // of the last attempt, if none has succeeded
}

// fileVersion differs when a file has changed, or been replaced as Kubernetes does it.
type fileVersion struct {
	info     os.FileInfo
	modified time.Time
	size     int64
}

func newFiles[T any](log *slog.Logger, parse func(...[]byte) (T, error), paths ...string) *files[T] {
	return &files[T]{log: log, parse: parse, paths: paths}
}

func (f *files[T]) current() (T, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, err := f.versions()
	if err == nil && f.read != nil && slices.EqualFunc(f.read, now, fileVersion.equal) {
		return f.value, f.err
	}
	f.read = now // nil where there is an error: tried again each time
	if err == nil {
		var value T
		if value, err = f.load(); err == nil {
			f.value, f.err, f.loaded = value, nil, true
			return f.value, nil
		}
	}
	if !f.loaded {
		f.err = refuse(tlsMissingCredential, "%w", err)
	} else if now != nil {
		f.log.Warn("changed files cannot be used, the last content stays", slog.Any("files", f.paths), slog.Any("error", err))
	}
	return f.value, f.err
}

func (f *files[T]) load() (none T, err error) {
	texts := make([][]byte, len(f.paths))
	for i, path := range f.paths {
		if texts[i], err = os.ReadFile(path); err != nil {
			return none, err
		}
	}
	value, err := f.parse(texts...)
	if err != nil {
		return none, fmt.Errorf("%s: %w", strings.Join(f.paths, ", "), err)
	}
	return value, nil
}

func (f *files[T]) versions() ([]fileVersion, error) {
	var all []fileVersion
	for _, path := range f.paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		all = append(all, fileVersion{info, info.ModTime(), info.Size()})
	}
	return all, nil
}

func (v fileVersion) equal(o fileVersion) bool {
	return v.modified.Equal(o.modified) && v.size == o.size && os.SameFile(v.info, o.info)
}
