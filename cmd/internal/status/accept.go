package status

import (
	"mime"
	"strconv"
	"strings"

	"github.com/prometheus/common/expfmt"
)

const (
	textType        = "text/plain"
	openMetricsType = "application/openmetrics-text"
	// acceptText asks for what everybody has.
	acceptText = textType + "; version=0.0.4"
)

// acceptFor is the Accept header with which the application is asked: the types that can be merged of those
// that the client takes, in its order of preference. Protobuf cannot be.
func acceptFor(client string) string {
	type choice struct {
		media   string
		quality float64
	}
	var choices []choice
	for part := range strings.SplitSeq(client, ",") {
		media, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		quality := 1.0
		if q, err := strconv.ParseFloat(params["q"], 64); err == nil {
			quality = q
		}
		delete(params, "q")
		switch media {
		case "*/*", "text/*":
			media, params = textType, map[string]string{"version": expfmt.TextVersion}
		case "application/*":
			media, params = openMetricsType, map[string]string{"version": expfmt.OpenMetricsVersion_0_0_1}
		case textType, openMetricsType:
		default:
			continue
		}
		// UTF-8 names are for the client to ask for; here they are passed on as they come.
		if quality > 0 {
			choices = append(choices, choice{mime.FormatMediaType(media, params), quality})
		}
	}
	if len(choices) == 0 {
		return acceptText
	}
	parts := make([]string, len(choices))
	for i, c := range choices {
		parts[i] = c.media + "; q=" + strconv.FormatFloat(c.quality, 'f', -1, 64)
	}
	return strings.Join(parts, ", ")
}

// formatOf is the format that a Content-Type names; what is not OpenMetrics counts as text, as it does for
// pilot-agent.
func formatOf(contentType string) expfmt.Format {
	media, params, err := mime.ParseMediaType(contentType)
	if err == nil && media == openMetricsType {
		version := params["version"]
		if version != expfmt.OpenMetricsVersion_1_0_0 {
			version = expfmt.OpenMetricsVersion_0_0_1
		}
		if f, err := expfmt.NewOpenMetricsFormat(version); err == nil {
			return f
		}
	}
	return expfmt.NewFormat(expfmt.TypeTextPlain)
}
