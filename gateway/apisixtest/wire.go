package apisixtest

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"
)

// requestTimeout bounds a unary call and the start of a stream; lua-resty-etcd's default is longer.
const requestTimeout = 35 * time.Second

// userAgent is what lua-resty-http says.
const userAgent = "lua-resty-http/0.16.1 (Lua) ngx_lua/10031"

// member is one member of a JSON object.
type member struct {
	name  string
	value any // number (for Lua numbers), string, bool or []member
}

// luaNumber is a number as lua-cjson encodes it: a double, with 14 digits.
type luaNumber int64

func (n luaNumber) String() string { return strconv.FormatFloat(float64(n), 'g', 14, 64) }

// object encodes members, starting with the one at position from: Lua's tables have no order.
func object(from int, members ...member) string {
	members = slices.Concat(members[from%len(members):], members[:from%len(members)])
	parts := make([]string, len(members))
	for i, m := range members {
		switch v := m.value.(type) {
		case []member:
			parts[i] = strconv.Quote(m.name) + ":" + object(from, v...)
		case string:
			parts[i] = strconv.Quote(m.name) + ":" + strconv.Quote(v)
		default:
			parts[i] = fmt.Sprintf("%q:%v", m.name, v)
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// prefixEnd is the range_end that APISIX asks for: the key with its last byte incremented.
func prefixEnd(key string) string { return key[:len(key)-1] + string(key[len(key)-1]+1) }

// conn is a connection that speaks HTTP/1.1 as lua-resty-http does.
type conn struct {
	net.Conn
	reader *bufio.Reader
	host   string
	token  string // sent with requests, unless empty
}

func (c *Client) dial(ctx context.Context) (*conn, error) {
	dialer := net.Dialer{Timeout: requestTimeout}
	raw, err := dialer.DialContext(ctx, "tcp", c.host)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	c.mu.Lock()
	c.conns[raw] = struct{}{}
	c.mu.Unlock()
	connection := &conn{Conn: raw, reader: bufio.NewReader(raw), host: c.host}
	if err := ctx.Err(); err != nil { // too late for the Disconnect at the end of Run
		c.hangUp(connection)
		return nil, err
	}
	return connection, nil
}

func (c *Client) hangUp(conn *conn) {
	c.mu.Lock()
	delete(c.conns, conn.Conn)
	c.mu.Unlock()
	_ = conn.Close()
}

// response is a response whose body has not been read.
type response struct {
	status  int
	header  textproto.MIMEHeader
	conn    *conn
	drained bool // the last chunk was read
}

// post sends a request, head and body in segments of their own as lua-resty-http does, and reads the
// head of the response.
func (c *conn) post(path, body string) (*response, error) {
	if err := c.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nContent-Length: %d\r\nHost: %s\r\nUser-Agent: %s\r\n", path, len(body), c.host, userAgent)
	if c.token != "" {
		head += "Authorization: " + c.token + "\r\n"
	}
	for _, segment := range []string{head + "\r\n", body} {
		if _, err := io.WriteString(c, segment); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	text := textproto.NewReader(c.reader)
	line, err := text.ReadLine()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	fields := strings.SplitN(line, " ", 3)
	if len(fields) < 2 || fields[0] != "HTTP/1.1" {
		return nil, fmt.Errorf("%s: status line %q", path, line)
	}
	status, err := strconv.Atoi(fields[1])
	if err != nil {
		return nil, fmt.Errorf("%s: status line %q", path, line)
	}
	header, err := text.ReadMIMEHeader()
	if err != nil {
		return nil, fmt.Errorf("%s: header: %w", path, err)
	}
	return &response{status: status, header: header, conn: c}, nil
}

// chunk returns what lua-resty-http's body reader returns: one chunk, or all of a body without chunks,
// and io.EOF after that.
func (r *response) chunk() (string, error) {
	if r.drained {
		return "", io.EOF
	}
	if !strings.EqualFold(r.header.Get("Transfer-Encoding"), "chunked") {
		r.drained = true
		size, err := strconv.Atoi(r.header.Get("Content-Length"))
		if err != nil {
			return "", errors.New("body with neither chunks nor a length")
		}
		body := make([]byte, size)
		_, err = io.ReadFull(r.conn.reader, body)
		return string(body), err
	}
	line, err := r.conn.reader.ReadString('\n')
	if err != nil {
		return "", err
	}
	size, err := strconv.ParseUint(strings.TrimSuffix(line, "\r\n"), 16, 31)
	if err != nil {
		return "", fmt.Errorf("size of a chunk: %w", err)
	}
	data := make([]byte, size+2)
	if _, err := io.ReadFull(r.conn.reader, data); err != nil {
		return "", err
	}
	if size == 0 {
		r.drained = true
		return "", io.EOF
	}
	return string(data[:size]), nil
}

// body reads the whole body.
func (r *response) body() (string, error) {
	var body strings.Builder
	for {
		chunk, err := r.chunk()
		if errors.Is(err, io.EOF) && r.drained {
			return body.String(), nil
		}
		if err != nil {
			return "", err
		}
		body.WriteString(chunk)
	}
}

// call makes a unary call on the kept-alive connection, or on a new one if the server has closed it.
func (c *Client) call(ctx context.Context, path, body string, into any) error {
	token, err := c.authorization(ctx)
	if err != nil {
		return err
	}
	for {
		pooled := c.takePooled()
		connection := pooled
		if connection == nil {
			var err error
			if connection, err = c.dial(ctx); err != nil {
				return err
			}
		}
		connection.token = token
		text, status, err := exchange(connection, path, body)
		switch {
		case err != nil:
			c.hangUp(connection)
			if pooled != nil && ctx.Err() == nil {
				continue
			}
			return err
		case status >= 500:
			c.hangUp(connection)
			return fmt.Errorf("%s: invalid response code: %d", path, status)
		}
		c.givePooled(connection)
		if err := json.Unmarshal([]byte(text), into); err != nil {
			return fmt.Errorf("%s: body %.200q: %w", path, text, err)
		}
		return nil
	}
}

func exchange(c *conn, path, body string) (text string, status int, err error) {
	r, err := c.post(path, body)
	if err != nil {
		return "", 0, err
	}
	if text, err = r.body(); err != nil {
		return "", 0, fmt.Errorf("%s: body: %w", path, err)
	}
	return text, r.status, nil
}

func (c *Client) takePooled() *conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pool) == 0 {
		return nil
	}
	last := c.pool[len(c.pool)-1]
	c.pool = c.pool[:len(c.pool)-1]
	return last
}

func (c *Client) givePooled(connection *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pool = append(c.pool, connection)
}
