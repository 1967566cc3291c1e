package telemetry

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Limits of entries: of what a process of APISIX keeps between two reports, hence of a report, and of one text.
const (
	maxEntries    = 10_000
	maxEntryBytes = 8 << 20
	maxEntryText  = 16 << 10
)

// column is the place of a text in an entry. After the last one come the headers of the entry's series.
type column int

const (
	columnSeries   column = iota // its number, from 1
	columnStart                  // Unix time in seconds
	columnDuration               // milliseconds
	columnRequest                // the request line: the columns from here on are variables of nginx
	columnAuthority
	columnScheme
	columnTold // the client, as a PROXY protocol header tells it
	columnToldPort
	columnClient // as nginx takes it from there, from a header, or from the connection
	columnClientPort
	columnPeer // whom the connection came from
	columnPeerPort
	columnDestination // the address that the client connected to, or address and port
	columnDestinationPort
	columnServer // our address
	columnServerPort
	columnServerName
	columnReceived // bytes, with the headers
	columnReceivedBody
	columnSent
	columnSentBody
	columnConnected // these have an element for each attempt
	columnAnswered
	columnEnded
	columnUpstreamReceived
	columnUpstreamSent
	columnConnection
	columns
)

// reportedEntry is an entry as a process of APISIX reports it.
type reportedEntry []string

// parseEntry reads a line of a report, and returns the index of its series.
func parseEntry(line []byte, series []reportedSeries) (e reportedEntry, of int, err error) {
	e, err = parseTexts(strings.ToValidUTF8(string(line), string(unicode.ReplacementChar)))
	if err != nil {
		return nil, 0, err
	}
	if len(e) < int(columns) {
		return nil, 0, fmt.Errorf("%d texts", len(e))
	}
	number, err := strconv.Atoi(e[columnSeries])
	if err != nil || number < 1 || number > len(series) {
		return nil, 0, fmt.Errorf("series %.20q", e[columnSeries])
	}
	of = number - 1
	if headers := len(series[of].Headers); len(e) != int(columns)+headers {
		return nil, 0, fmt.Errorf("%d headers, not %d", len(e)-int(columns), headers)
	}
	for i, text := range e {
		if len(text) > maxEntryText*utf8Growth {
			return nil, 0, errors.New("a text is too long")
		}
		e[i] = printable(text)
	}
	return e, of, nil
}

// parseTexts reads an array of texts in JSON. Package json takes most of the time that an entry costs.
func parseTexts(line string) ([]string, error) {
	texts := make([]string, 0, int(columns)+8)
	for i := 0; ; {
		var before byte = ','
		if i == 0 {
			before = '['
		}
		if !strings.HasPrefix(line[i:], string(before)+`"`) {
			return nil, fmt.Errorf("no text at byte %d", i)
		}
		i += 2
		length, escaped := 0, false
		for ; i+length < len(line) && line[i+length] != '"'; length++ {
			if line[i+length] == '\\' {
				escaped = true
				length++
			}
		}
		end := i + length
		if end >= len(line)-1 {
			return nil, errors.New("a text does not end")
		}
		text := line[i:end]
		if escaped { // of most texts only slashes, which is how APISIX writes them
			text = strings.ReplaceAll(text, `\/`, "/")
		}
		if escaped && strings.Contains(text, `\`) {
			if err := json.Unmarshal([]byte(line[i-1:end+1]), &text); err != nil {
				return nil, err
			}
		}
		texts = append(texts, text)
		if i = end + 1; line[i:] == "]" {
			return texts, nil
		}
	}
}

// utf8Growth is how much longer a text becomes in which each byte is none of UTF-8.
const utf8Growth = 3

// printable takes out what would end a line. No client can send it, but whoever reports for APISIX.
func printable(text string) string {
	for i := range len(text) {
		if text[i] < ' ' && text[i] != '\t' || text[i] == 0x7f {
			return strings.Map(func(r rune) rune {
				if unicode.IsControl(r) && r != '\t' {
					return unicode.ReplacementChar
				}
				return r
			}, text)
		}
	}
	return text
}

// start is when the request began: within a year of now, so that it is a time in every format.
func (e reportedEntry) start(now time.Time) time.Time {
	seconds, err := strconv.ParseFloat(e[columnStart], 64)
	if err != nil || math.IsNaN(seconds) || math.Abs(seconds-float64(now.Unix())) > 366*24*3600 {
		return now
	}
	return time.UnixMilli(int64(math.Round(seconds * 1000)))
}

func (e reportedEntry) number(c column) int64 { return number(e[c]) }

func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// requestLine returns the parts of "GET /path HTTP/1.1", of which the path may be a whole URL.
func (e reportedEntry) requestLine() (method, path, protocol string) {
	method, rest, ok := strings.Cut(e[columnRequest], " ")
	if !ok {
		return "", "", "" // not even a request
	}
	path, protocol = rest, "HTTP/1.0"
	if i := strings.LastIndex(rest, " HTTP/"); i >= 0 {
		path, protocol = rest[:i], rest[i+1:]
	}
	switch protocol {
	case "HTTP/2.0":
		protocol = "HTTP/2"
	case "HTTP/3.0":
		protocol = "HTTP/3"
	}
	if _, after, ok := strings.Cut(path, "://"); ok && !strings.HasPrefix(path, "/") {
		path = "/"
		if i := strings.IndexByte(after, '/'); i >= 0 {
			path = after[i:]
		}
	}
	return method, path, protocol
}

// address returns that of two columns. What is not known, or is no address of IP, is invalid.
func (e reportedEntry) address(address, port column) netip.AddrPort {
	a, err := netip.ParseAddr(e[address])
	if err != nil {
		return netip.AddrPort{}
	}
	p, err := strconv.ParseUint(e[port], 10, 16)
	if err != nil {
		p = 0
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p))
}

// addresses are the ends of the client's connection.
func (e reportedEntry) addresses() (source, direct, destination netip.AddrPort) {
	source = e.address(columnTold, columnToldPort)
	if !source.IsValid() {
		source = e.address(columnClient, columnClientPort)
	}
	if peer := e.address(columnPeer, columnPeerPort); peer != source {
		direct = peer
	}
	destination = e.address(columnDestination, columnDestinationPort)
	if !destination.IsValid() {
		if whole, err := netip.ParseAddrPort(e[columnDestination]); err == nil {
			destination = netip.AddrPortFrom(whole.Addr().Unmap(), whole.Port())
		} else {
			destination = e.address(columnServer, columnServerPort)
		}
	}
	return source, direct, destination
}

// attempts is how many endpoints were tried. Of each, nginx has an element in its lists: those of one pass
// with commas between, and colons between passes. Where one more was wanted, but all endpoints had been tried,
// they end in a colon.
func (e reportedEntry) attempts() int {
	times := strings.TrimSuffix(e[columnConnected], passEnd)
	if times == "" {
		return 0
	}
	return 1 + strings.Count(times, ",") + strings.Count(times, passEnd)
}

const passEnd = " : "

// last returns the element of the last attempt, empty where nginx has none.
func (e reportedEntry) last(c column) string {
	text := strings.TrimSuffix(e[c], passEnd)
	if i := strings.LastIndexAny(text, ", "); i >= 0 {
		text = text[i+1:]
	}
	if text == "-" {
		return ""
	}
	return text
}

// took is a time of the last attempt; negative where it is unknown.
func (e reportedEntry) took(c column) time.Duration {
	seconds, err := strconv.ParseFloat(e.last(c), 64)
	if err != nil || !(seconds >= 0 && seconds < 1e6) {
		return -1
	}
	return time.Duration(math.Round(seconds*1000)) * time.Millisecond
}
