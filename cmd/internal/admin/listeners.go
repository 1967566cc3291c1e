package admin

import (
	"fmt"
	"net/http"
	"strings"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"meshbridge/xds"
)

func (s *Server) serveListeners(w http.ResponseWriter, r *http.Request) {
	all := &adminpb.Listeners{}
	for r := range s.config.World().Active.All(xds.ListenerType) {
		l, err := xds.Decode[*listenerpb.Listener](r)
		if err != nil {
			continue // it was decoded when it came
		}
		status := &adminpb.ListenerStatus{Name: l.GetName(), LocalAddress: l.GetAddress()}
		for _, more := range l.GetAdditionalAddresses() {
			status.AdditionalLocalAddresses = append(status.AdditionalLocalAddresses, more.GetAddress())
		}
		all.ListenerStatuses = append(all.ListenerStatuses, status)
	}
	switch format := r.URL.Query().Get("format"); format {
	case "json":
		writeMessage(w, all)
	case "", "text":
		var lines strings.Builder
		for _, l := range all.GetListenerStatuses() {
			fmt.Fprintf(&lines, "%s::%s\n", l.GetName(), hostAddress(l.GetLocalAddress()))
			for _, more := range l.GetAdditionalLocalAddresses() {
				fmt.Fprintf(&lines, "%s::%s\n", l.GetName(), hostAddress(more))
			}
		}
		writeText(w, http.StatusOK, lines.String())
	default:
		writeText(w, http.StatusBadRequest, fmt.Sprintf("format %q: want text or json\n", format))
	}
}
