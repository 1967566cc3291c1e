package apisixtest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// keyValue is an object as it came over the wire.
type keyValue struct {
	key         string
	value       []byte // nil: there is none, which is how a deletion looks
	modRevision int64
}

// wireKV is a key-value in JSON. APISIX takes integers as numbers and as strings.
type wireKV struct {
	Key         string      `json:"key"`
	Value       *string     `json:"value"`
	ModRevision json.Number `json:"mod_revision"`
}

func (kv wireKV) decode() (keyValue, error) {
	key, err := base64.StdEncoding.DecodeString(kv.Key)
	if err != nil {
		return keyValue{}, fmt.Errorf("key %q: %w", kv.Key, err)
	}
	out := keyValue{key: string(key)}
	if kv.Value != nil {
		if out.value, err = base64.StdEncoding.DecodeString(*kv.Value); err != nil {
			return keyValue{}, fmt.Errorf("value of %q: %w", key, err)
		}
	}
	if out.modRevision, err = kv.ModRevision.Int64(); err != nil {
		return keyValue{}, fmt.Errorf("mod_revision of %q: %w", key, err)
	}
	return out, nil
}

// rangeResult is what APISIX takes from the answer to a range.
type rangeResult struct {
	revision int64
	kvs      []keyValue
}

// readRange reads [key, end), or a single key if end is empty.
func (c *Client) readRange(ctx context.Context, key, end string) (rangeResult, error) {
	members := []member{{"key", b64(key)}}
	if end != "" {
		members = append(members, member{"range_end", b64(end)})
	}
	for _, name := range []string{"limit", "revision", "sort_order", "sort_target"} {
		members = append(members, member{name, luaNumber(0)})
	}
	for _, name := range []string{"serializable", "keys_only", "count_only"} {
		members = append(members, member{name, false})
	}
	for _, name := range []string{"min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"} {
		members = append(members, member{name, luaNumber(0)})
	}
	var answer struct {
		Error  any `json:"error"`
		Header struct {
			Revision json.Number `json:"revision"`
		} `json:"header"`
		KVs []wireKV `json:"kvs"`
	}
	if err := c.call(ctx, "/v3/kv/range", object(int(c.requests.Add(1)), members...), &answer); err != nil {
		return rangeResult{}, err
	}
	if answer.Error != nil {
		return rangeResult{}, fmt.Errorf("range %q: %v", key, answer.Error)
	}
	revision, err := answer.Header.Revision.Int64()
	if err != nil {
		c.fault("etcd response missing header.revision")
		return rangeResult{}, fmt.Errorf("range %q: header.revision: %w", key, err)
	}
	result := rangeResult{revision: revision}
	for _, kv := range answer.KVs {
		decoded, err := kv.decode()
		if err != nil {
			return rangeResult{}, err
		}
		result.kvs = append(result.kvs, decoded)
	}
	return result, nil
}

// watch is an open watch stream.
type watch struct {
	client   *Client
	response *response
	conn     *conn
}

// message is a message of a watch, or several merged into one.
type message struct {
	Error *struct {
		HTTPCode   *int   `json:"http_code"`
		HTTPStatus string `json:"http_status"`
	} `json:"error"`
	Result *struct {
		Header struct {
			Revision json.Number `json:"revision"`
		} `json:"header"`
		Created         bool         `json:"created"`
		Canceled        bool         `json:"canceled"`
		CompactRevision *json.Number `json:"compact_revision"`
		Events          []struct {
			Type string `json:"type"`
			KV   wireKV `json:"kv"`
		} `json:"events"`
	} `json:"result"`

	events []keyValue
}

func (m *message) revision() int64 {
	n, err := strconv.ParseInt(m.Result.Header.Revision.String(), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// openWatch starts a watch of [key, key+1).
func (c *Client) openWatch(ctx context.Context, key string, start int64) (*watch, error) {
	token, err := c.authorization(ctx)
	if err != nil {
		return nil, err
	}
	connection, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	connection.token = token
	turn := int(c.requests.Add(1))
	r, err := connection.post("/v3/watch", object(turn, member{"create_request", []member{
		{"key", b64(key)}, {"range_end", b64(prefixEnd(key))}, {"start_revision", luaNumber(start)},
	}}))
	if err == nil && r.status >= 300 {
		err = fmt.Errorf("failed to watch data, response code: %d", r.status)
	}
	if err != nil {
		c.hangUp(connection)
		return nil, err
	}
	return &watch{client: c, response: r, conn: connection}, nil
}

func (w *watch) close() { w.client.hangUp(w.conn) }

// next does what lua-resty-etcd's read_watch does: it joins chunks until one ends in a newline, and
// merges the events of all lines into the last of them, with its fault that a single event is lost
// if a line without events comes after it.
func (w *watch) next() (*message, error) {
	if w.client.BeforeRead != nil {
		w.client.BeforeRead()
	}
	var batch strings.Builder
	for {
		// Every chunk resets the timeout of the socket.
		if err := w.conn.SetDeadline(time.Now().Add(w.client.timeout())); err != nil {
			return nil, fmt.Errorf("watch: %w", err)
		}
		chunk, err := w.response.chunk()
		if err != nil {
			if batch.Len() > 0 {
				w.client.fault("the stream ended within a line")
			}
			return nil, fmt.Errorf("watch: %w", err)
		}
		batch.WriteString(chunk)
		if strings.HasSuffix(chunk, "\n") {
			break
		}
	}
	lines := strings.Split(strings.TrimSuffix(batch.String(), "\n"), "\n")
	var last *message
	var events []keyValue
	for _, line := range lines {
		last = new(message)
		if err := json.Unmarshal([]byte(line), last); err != nil {
			w.client.fault("failed to decode json body: %v in %.200q", err, line)
			return nil, fmt.Errorf("watch: %w", err)
		}
		if err := w.client.checkError(last); err != nil {
			return nil, err
		}
		if last.Result == nil {
			continue
		}
		for _, e := range last.Result.Events {
			kv, err := e.KV.decode()
			if err != nil {
				w.client.fault("%v", err)
				return nil, err
			}
			last.events = append(last.events, kv)
		}
		events = append(events, last.events...)
	}
	if len(events) > 1 {
		last.events = events
	} else if len(events) == 1 && len(last.events) == 0 {
		w.client.fault("an event is lost behind a line without events")
	}
	return last, nil
}

// checkError treats the error of a message as lua-resty-etcd does.
func (c *Client) checkError(m *message) error {
	switch {
	case m.Error == nil:
		return nil
	case m.Error.HTTPCode == nil:
		c.fault("attempt to compare nil with number: error without http_code")
		return errors.New("watch: error without http_code")
	default:
		return fmt.Errorf("watch: %d %s", *m.Error.HTTPCode, m.Error.HTTPStatus)
	}
}
