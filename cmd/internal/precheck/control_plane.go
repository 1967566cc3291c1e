package precheck

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"meshbridge/xds"
)

// patience is for each step towards istiod.
const patience = 10 * time.Second

// Istiod is where it is and how it is verified.
type Istiod struct {
	Target     xds.Target
	RootFile   string
	ServerName string
	NewSource  func() (xds.Source, error)
}

// ControlPlane goes towards istiod step by step, up to its first answer; of files, it reads them.
func ControlPlane(i Istiod) Check {
	return func(ctx context.Context) (results []Result) {
		if i.Target.Scheme == xds.SchemeFile {
			return append(results, i.subscribe(ctx, "xDS files"))
		}
		host, _, err := net.SplitHostPort(i.Target.Address)
		if err != nil {
			return append(results, bad(Fail, "istiod", "correct --xds", "%v", err))
		}
		r, reached := resolve(ctx, host)
		if results = append(results, r); !reached {
			return results
		}
		if r, reached = i.connect(ctx, host); !reached {
			return append(results, r)
		}
		results = append(results, r)
		return append(results, i.subscribe(ctx, "xDS"))
	}
}

func resolve(ctx context.Context, host string) (Result, bool) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return bad(Fail, "istiod's name", "look at /etc/resolv.conf; a machine needs istiod's address in /etc/hosts or DNS", "%v", err), false
	}
	return ok("istiod's name", "%s is %s", host, strings.Join(addresses, ", ")), true
}

// connect opens a connection, with TLS where the target has it.
func (i *Istiod) connect(ctx context.Context, host string) (Result, bool) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", i.Target.Address)
	if err != nil {
		return bad(Fail, "istiod", "look at istiod's Service, NetworkPolicies and firewalls", "%v", err), false
	}
	defer func() { _ = conn.Close() }()
	if i.Target.Scheme != xds.SchemeTLS {
		return ok("istiod", "%s accepts connections (plaintext)", i.Target.Address), true
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, RootCAs: x509.NewCertPool(), NextProtos: []string{"h2"}}
	if i.ServerName != "" {
		config.ServerName = i.ServerName
	}
	roots, err := os.ReadFile(i.RootFile)
	if err != nil || !config.RootCAs.AppendCertsFromPEM(roots) {
		return bad(Fail, "istiod's certificate", "see the root certificate", "cannot be verified"), false
	}
	client := tls.Client(conn, config)
	if err := client.HandshakeContext(ctx); err != nil {
		do := "is something between here and istiod?"
		var unknown x509.UnknownAuthorityError
		var name x509.HostnameError
		var invalid x509.CertificateInvalidError
		switch {
		case errors.As(err, &unknown):
			do = "the root certificate is that of another mesh, or old"
		case errors.As(err, &name):
			do = "connect by a name of its certificate, or give it as --xds-server-name"
		case errors.As(err, &invalid):
			do = "is the clock right?"
		}
		return bad(Fail, "istiod's certificate", do, "%v", err), false
	}
	leaf := client.ConnectionState().PeerCertificates[0]
	return ok("istiod's certificate", "%s, valid for %s", leaf.Subject, ago(time.Until(leaf.NotAfter))), true
}

// subscribe waits for the first answer.
func (i *Istiod) subscribe(ctx context.Context, check string) Result {
	source, err := i.NewSource()
	if err != nil {
		return bad(Fail, check, "correct the flags", "%v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	first := make(chan xds.Update, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- source.Run(ctx, func(u xds.Update) {
			select {
			case first <- u:
			default:
			}
		})
	}()
	var result Result
	select {
	case u := <-first:
		result = ok(check, "%d resources in the first answer", len(u.Changed))
	case err := <-ended:
		if err == nil {
			err = errors.New("ended")
		}
		return i.noAnswer(check, source, err)
	case <-ctx.Done():
		result = i.noAnswer(check, source, fmt.Errorf("no answer within %s", patience))
	}
	cancel()
	if err := <-ended; err != nil {
		return i.noAnswer(check, source, err)
	}
	return result
}

func (*Istiod) noAnswer(check string, source xds.Source, err error) Result {
	if client, ok := source.(*xds.Client); ok {
		if last := client.Status().LastError; last != nil {
			err = last
		}
	}
	return bad(Fail, check, "Unauthenticated: the token, its audience, or its account's namespace; other reasons are in istiod's log", "%v", err)
}
