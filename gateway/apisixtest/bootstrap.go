package apisixtest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// InitEtcd does what `apisix init_etcd` does before the server starts: it asks for the version and, unless
// the role is data_plane, puts a key for every directory. An error is what makes the command give up.
func (c *Client) InitEtcd(ctx context.Context, dataPlane bool) error {
	body, err := c.socketRequest(ctx, http.MethodGet, "/version", "", "")
	if err != nil {
		return err
	}
	var version struct {
		Cluster string `json:"etcdcluster"`
	}
	if err := json.Unmarshal([]byte(body), &version); err != nil {
		return fmt.Errorf("version %q: %w", body, err)
	}
	var major, minor, patch int
	if n, err := fmt.Sscanf(version.Cluster, "%d.%d.%d", &major, &minor, &patch); n != 3 {
		return fmt.Errorf("etcd cluster version %q: %w", version.Cluster, err)
	}
	if major < 3 || major == 3 && minor < 4 {
		return fmt.Errorf("etcd cluster version %s is less than the required 3.4.0", version.Cluster)
	}
	token := ""
	if c.User != "" {
		body, err := c.socketRequest(ctx, http.MethodPost, "/v3/auth/authenticate", fmt.Sprintf(`{"name":%q,"password":%q}`, c.User, c.Password), "")
		if err != nil {
			return err
		}
		if token, err = tokenIn(body); err != nil {
			return err
		}
	}
	if dataPlane {
		return nil
	}
	for _, name := range c.traits.dirs {
		key := c.prefix + "/" + name + "/"
		put := fmt.Sprintf(`{"value":"%s", "key":"%s"}`, b64("init_dir"), b64(key))
		body, err := c.socketRequest(ctx, http.MethodPost, "/v3/kv/put", put, token)
		if err != nil {
			return err
		}
		for _, fatal := range []string{
			"error", "404 page not found", "CommonName of client sending a request against gateway",
		} {
			if strings.Contains(body, fatal) {
				return fmt.Errorf("put %s: %s", key, body)
			}
		}
	}
	return nil
}

// socketRequest is a request of luasocket: a connection for each, and an offer to take trailers.
func (c *Client) socketRequest(ctx context.Context, method, path, body, token string) (string, error) {
	const timeout = 3 * time.Second
	dialer := net.Dialer{Timeout: timeout}
	conn, err := dialer.DialContext(ctx, "tcp", c.host)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nhost: %s\r\nuser-agent: LuaSocket 3.1.0\r\nte: trailers\r\nconnection: close, TE\r\n", method, path, c.host)
	if token != "" {
		head += "authorization: " + token + "\r\n"
	}
	if body != "" {
		head += fmt.Sprintf("content-length: %d\r\n", len(body))
	}
	if _, err := io.WriteString(conn, head+"\r\n"+body); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return string(text), nil
}
