package accesslog

import (
	"strconv"
	"strings"
	"time"
)

// timeOperator returns a time in UTC, in a format of strftime with Envoy's additions: %s, and %f or %1f to %9f
// for parts of a second.
func (p *parser) timeOperator(format string, at func(*Entry) time.Time) operator {
	parts := []func([]byte, time.Time) []byte{layout("2006-01-02T15:04:05.000Z")}
	if format != "" {
		parts = p.parseTime(format)
	}
	return operator{append: func(dst []byte, _ *Log, e *Entry) ([]byte, bool) {
		t := at(e).UTC()
		for _, part := range parts {
			dst = part(dst, t)
		}
		return dst, true
	}}
}

func (p *parser) parseTime(format string) []func([]byte, time.Time) []byte {
	var parts []func([]byte, time.Time) []byte
	text := func(s string) {
		parts = append(parts, func(dst []byte, _ time.Time) []byte { return append(dst, s...) })
	}
	for format != "" {
		literal, rest, found := strings.Cut(format, "%")
		if literal != "" {
			text(literal)
		}
		if !found || rest == "" {
			break
		}
		if c := rest[0]; '1' <= c && c <= '9' && len(rest) > 1 && rest[1] == 'f' {
			parts = append(parts, fraction(int(c-'0')))
			format = rest[2:]
			continue
		}
		if part := conversion(rest[0]); part != nil {
			parts = append(parts, part)
		} else {
			p.problem("the conversion %" + rest[:1] + " of a time")
			text("%" + rest[:1])
		}
		format = rest[1:]
	}
	return parts
}

// conversion is what a letter stands for in the locale "C"; nil for none.
func conversion(c byte) func([]byte, time.Time) []byte {
	layouts := map[byte]string{
		'Y': "2006", 'y': "06", 'm': "01", 'b': "Jan", 'h': "Jan", 'B': "January", 'd': "02", 'e': "_2", 'j': "002",
		'a': "Mon", 'A': "Monday", 'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM",
		'F': "2006-01-02", 'T': "15:04:05", 'R': "15:04", 'D': "01/02/06", 'r': "03:04:05 PM",
		'c': "Mon Jan _2 15:04:05 2006", 'x': "01/02/06", 'X': "15:04:05", 'z': "-0700", 'Z': "MST",
	}
	if l, ok := layouts[c]; ok {
		return layout(l)
	}
	number := func(width int, pad byte, of func(time.Time) int) func([]byte, time.Time) []byte {
		return func(dst []byte, t time.Time) []byte {
			text := strconv.Itoa(of(t))
			for range width - len(text) {
				dst = append(dst, pad)
			}
			return append(dst, text...)
		}
	}
	switch c {
	case '%':
		return func(dst []byte, _ time.Time) []byte { return append(dst, '%') }
	case 't':
		return func(dst []byte, _ time.Time) []byte { return append(dst, '\t') }
	case 's':
		return func(dst []byte, t time.Time) []byte { return strconv.AppendInt(dst, t.Unix(), 10) }
	case 'f':
		return fraction(9)
	case 'C':
		return number(2, '0', func(t time.Time) int { return t.Year() / 100 })
	case 'G':
		return number(4, '0', func(t time.Time) int { year, _ := t.ISOWeek(); return year })
	case 'g':
		return number(2, '0', func(t time.Time) int { year, _ := t.ISOWeek(); return year % 100 })
	case 'V':
		return number(2, '0', func(t time.Time) int { _, week := t.ISOWeek(); return week })
	case 'u':
		return number(1, '0', func(t time.Time) int { return (int(t.Weekday())+6)%7 + 1 })
	case 'w':
		return number(1, '0', func(t time.Time) int { return int(t.Weekday()) })
	case 'U':
		return number(2, '0', func(t time.Time) int { return (t.YearDay() + 6 - int(t.Weekday())) / 7 })
	case 'W':
		return number(2, '0', func(t time.Time) int { return (t.YearDay() + 6 - (int(t.Weekday())+6)%7) / 7 })
	case 'k':
		return number(2, ' ', time.Time.Hour)
	case 'l':
		return number(2, ' ', func(t time.Time) int { return (t.Hour()+11)%12 + 1 })
	}
	return nil
}

func layout(layout string) func([]byte, time.Time) []byte {
	return func(dst []byte, t time.Time) []byte { return t.AppendFormat(dst, layout) }
}

// fraction is the part of a second, in so many digits.
func fraction(digits int) func([]byte, time.Time) []byte {
	return func(dst []byte, t time.Time) []byte {
		text := strconv.Itoa(1_000_000_000 + t.Nanosecond())
		return append(dst, text[1:1+digits]...)
	}
}
