package gateway

import (
	"runtime"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
)

// The metrics below have etcd's names, labels and meaning, so that its dashboards and alerts work. What etcd
// has beyond them is left out:
//
//   - etcd_disk_*, etcd_snap_*, etcd_debugging_snap_*, etcd_debugging_disk_*, etcd_mvcc_db_open_read_transactions
//     and all durations of compactions and hashes: there is no disk that could be slow, no database file and
//     no log.
//   - etcd_network_peer_*, etcd_network_known_peers, etcd_server_heartbeat_*, *_read_indexes_*,
//     *_learner_promote_*, *_snapshot_apply_*, *_slow_apply_*: there are no peers.
//   - etcd_debugging_store_*: of etcd's API before version 3.
//   - etcd_grpc_proxy_*: of a proxy that this is not.
//   - etcd_server_apply_duration_seconds, etcd_server_range_duration_seconds, etcd_debugging_lease_ttl_total:
//     a histogram would cost the calls that it measures more than the rest of their bookkeeping together.
//   - etcd_server_client_requests_total: its label is whatever clients say that they are, without bound.
//   - etcd_debugging_mvcc_pending_events_total: nothing is queued for a watcher; it lags instead.
//   - etcd_server_feature_enabled: there are no feature gates.
//   - etcd_server_healthcheck, etcd_server_healthchecks_total: of their checks but one cannot fail, and that
//     one is etcd_debugging_server_alarms.
//   - os_fd_*, promhttp_*: the process collector has process_open_fds and process_max_fds.

// etcdDescriptions are those of the metrics that etcd has too, by name.
type etcdDescriptions map[string]*prometheus.Desc

func newEtcdDescriptions() etcdDescriptions {
	descriptions := make(etcdDescriptions)
	for name, help := range map[string]string{
		"etcd_cluster_version":                          "1 for the version of the cluster.",
		"etcd_debugging_auth_revision":                  "Revision of users and roles.",
		"etcd_debugging_lease_granted_total":            "Leases that were granted.",
		"etcd_debugging_lease_renewed_total":            "Keep-alives of leases.",
		"etcd_debugging_lease_revoked_total":            "Leases that ended, because they were revoked or expired.",
		"etcd_debugging_mvcc_compact_revision":          "Revision of the last compaction.",
		"etcd_debugging_mvcc_current_revision":          "Current revision.",
		"etcd_debugging_mvcc_db_compaction_keys_total":  "Changes that compactions have dropped.",
		"etcd_debugging_mvcc_db_compaction_last":        "When the last compaction was, as Unix time; 0 if there was none.",
		"etcd_debugging_mvcc_events_total":              "Events sent to watches.",
		"etcd_debugging_mvcc_keys_total":                "Keys that exist.",
		"etcd_debugging_mvcc_slow_watcher_total":        "Streams of watches that have not been sent the current revision yet.",
		"etcd_debugging_mvcc_total_put_size_in_bytes":   "Size of all keys and values that were put.",
		"etcd_debugging_mvcc_watch_stream_total":        "Streams of watches that are open.",
		"etcd_debugging_mvcc_watcher_total":             "Watches that are open.",
		"etcd_debugging_server_alarms":                  "1 for an alarm that is active.",
		"etcd_debugging_server_lease_expired_total":     "Leases that expired.",
		"etcd_mvcc_db_total_size_in_bytes":              "Size of the store in memory.",
		"etcd_mvcc_db_total_size_in_use_in_bytes":       "Size of the store in memory; there is no part that is not in use.",
		"etcd_mvcc_delete_total":                        "Deletes that were executed.",
		"etcd_mvcc_put_total":                           "Puts that were executed.",
		"etcd_mvcc_range_total":                         "Ranges that were executed.",
		"etcd_mvcc_txn_total":                           "Transactions of several operations that were executed.",
		"etcd_network_client_grpc_received_bytes_total": "Bytes of messages that clients sent over gRPC.",
		"etcd_network_client_grpc_sent_bytes_total":     "Bytes of messages sent to clients over gRPC.",
		"etcd_server_go_version":                        "1 for the version of Go.",
		"etcd_server_has_leader":                        "1: a single server is its own leader.",
		"etcd_server_health_failures":                   "Answers of /health that were bad.",
		"etcd_server_health_success":                    "Answers of /health that were good.",
		"etcd_server_id":                                "1 for the id of the member.",
		"etcd_server_is_leader":                         "1: a single server is its own leader.",
		"etcd_server_is_learner":                        "0: a single server is no learner.",
		"etcd_server_leader_changes_seen_total":         "1: a single server becomes its own leader once.",
		"etcd_server_proposals_applied_total":           "Current revision, which stands for the index of a log.",
		"etcd_server_proposals_committed_total":         "Current revision, which stands for the index of a log.",
		"etcd_server_proposals_failed_total":            "0: there is nobody to disagree.",
		"etcd_server_proposals_pending":                 "0: writes are applied at once.",
		"etcd_server_quota_backend_bytes":               "Size from which on the store may not grow; less than 0 is none.",
		"etcd_server_version":                           "1 for the version that the server says it has.",
		"grpc_server_handled_total":                     "Calls that ended, by gRPC code.",
		"grpc_server_msg_received_total":                "Messages received from clients.",
		"grpc_server_msg_sent_total":                    "Messages sent to clients.",
		"grpc_server_started_total":                     "Calls that began.",
	} {
		descriptions[name] = prometheus.NewDesc(name, help, etcdLabels(name), nil)
	}
	return descriptions
}

// etcdLabels are the labels of a metric of etcd's.
func etcdLabels(name string) []string {
	switch name {
	case "etcd_cluster_version":
		return []string{"cluster_version"}
	case "etcd_debugging_server_alarms":
		return []string{"server_id", "alarm_type"}
	case "etcd_server_go_version":
		return []string{"server_go_version"}
	case "etcd_server_id":
		return []string{"server_id"}
	case "etcd_server_version":
		return []string{"server_version"}
	case "grpc_server_handled_total":
		return []string{"grpc_type", "grpc_service", "grpc_method", "grpc_code"}
	case "grpc_server_started_total", "grpc_server_msg_received_total", "grpc_server_msg_sent_total":
		return []string{"grpc_type", "grpc_service", "grpc_method"}
	default:
		return nil
	}
}

// etcdMetrics sends metrics of etcd's names.
type etcdMetrics struct {
	descriptions etcdDescriptions
	values       chan<- prometheus.Metric
}

func (e *etcdMetrics) counter(name string, value int64, labels ...string) {
	e.values <- prometheus.MustNewConstMetric(e.descriptions[name], prometheus.CounterValue, float64(value), labels...)
}

func (e *etcdMetrics) gauge(name string, value int64, labels ...string) {
	e.values <- prometheus.MustNewConstMetric(e.descriptions[name], prometheus.GaugeValue, float64(value), labels...)
}

func (c *collector) collectEtcd(e *etcdMetrics) {
	s := c.server
	e.collectStore(s)
	e.collectCalls(s.metrics)
	version, _ := s.downgrade.version()
	id := hexadecimal(s.cfg.MemberID)
	revision := s.store.Revision()
	e.gauge("etcd_cluster_version", 1, strings.TrimSuffix(version, ".0"))
	e.gauge("etcd_debugging_auth_revision", int64(s.auth.State().Revision))
	for _, active := range s.alarms.list(pb.AlarmType_NONE) {
		e.gauge("etcd_debugging_server_alarms", 1, hexadecimal(active.member), active.kind.String())
	}
	e.gauge("etcd_mvcc_db_total_size_in_bytes", s.dbSize())
	e.gauge("etcd_mvcc_db_total_size_in_use_in_bytes", s.dbSize())
	e.gauge("etcd_server_go_version", 1, runtime.Version())
	e.gauge("etcd_server_has_leader", 1)
	e.counter("etcd_server_health_failures", s.metrics.health.failures.Load())
	e.counter("etcd_server_health_success", s.metrics.health.successes.Load())
	e.gauge("etcd_server_id", 1, id)
	e.gauge("etcd_server_is_leader", 1)
	e.gauge("etcd_server_is_learner", 0)
	e.counter("etcd_server_leader_changes_seen_total", 1)
	e.gauge("etcd_server_proposals_applied_total", revision)
	e.gauge("etcd_server_proposals_committed_total", revision)
	e.counter("etcd_server_proposals_failed_total", 0)
	e.gauge("etcd_server_proposals_pending", 0)
	e.gauge("etcd_server_quota_backend_bytes", s.cfg.QuotaBytes)
	e.gauge("etcd_server_version", 1, serverVersion)
}

// collectStore sends what the store counts, and what becomes of its events.
func (e *etcdMetrics) collectStore(s *Server) {
	stats, m := s.store.Stats(), s.metrics
	e.counter("etcd_debugging_lease_granted_total", stats.LeasesGranted)
	e.counter("etcd_debugging_lease_renewed_total", stats.LeasesRenewed)
	e.counter("etcd_debugging_lease_revoked_total", stats.LeasesRevoked)
	e.counter("etcd_debugging_server_lease_expired_total", stats.LeasesExpired)
	e.gauge("etcd_debugging_mvcc_compact_revision", stats.CompactRevision)
	e.gauge("etcd_debugging_mvcc_current_revision", stats.Revision)
	e.counter("etcd_debugging_mvcc_db_compaction_keys_total", stats.Compacted)
	last := int64(0)
	if !stats.CompactedAt.IsZero() {
		last = stats.CompactedAt.Unix()
	}
	e.gauge("etcd_debugging_mvcc_db_compaction_last", last)
	e.counter("etcd_debugging_mvcc_events_total", m.grpc.events.Load()+m.http.events.Load())
	e.gauge("etcd_debugging_mvcc_keys_total", stats.Keys)
	e.gauge("etcd_debugging_mvcc_slow_watcher_total", s.delivery.lagging(stats.Revision))
	e.gauge("etcd_debugging_mvcc_total_put_size_in_bytes", stats.PutBytes)
	e.gauge("etcd_debugging_mvcc_watch_stream_total", m.grpc.streams.Load()+m.http.streams.Load())
	e.gauge("etcd_debugging_mvcc_watcher_total", m.grpc.watchers.Load()+m.http.watchers.Load())
	e.counter("etcd_mvcc_delete_total", stats.Deletes)
	e.counter("etcd_mvcc_put_total", stats.Puts)
	e.counter("etcd_mvcc_range_total", stats.Ranges)
	e.counter("etcd_mvcc_txn_total", stats.Txns)
}

// collectCalls sends what gRPC counts. As in etcd calls of the JSON gateway are among them. Codes that did
// not occur are left out, but for OK, so that a rate of errors always has something to compare with.
func (e *etcdMetrics) collectCalls(m *metrics) {
	e.counter("etcd_network_client_grpc_received_bytes_total", m.wire.received.Load())
	e.counter("etcd_network_client_grpc_sent_bytes_total", m.wire.sent.Load())
	for _, c := range m.calls {
		labels := []string{c.kind, c.service, c.method}
		e.counter("grpc_server_started_total", c.grpc.started.Load()+c.http.started.Load(), labels...)
		e.counter("grpc_server_msg_received_total", c.grpc.received.Load()+c.http.received.Load(), labels...)
		e.counter("grpc_server_msg_sent_total", c.grpc.sent.Load()+c.http.sent.Load(), labels...)
		for i := range c.grpc.handled {
			code := codes.Code(i)
			if n := c.grpc.handled[i].Load() + c.http.handled[i].Load(); n > 0 || code == codes.OK {
				e.counter("grpc_server_handled_total", n, c.kind, c.service, c.method, code.String())
			}
		}
	}
}

// lagging returns the number of streams that have not been sent the revision.
func (d *delivery) lagging(revision int64) (number int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for m := range d.streams {
		if m.at() < revision {
			number++
		}
	}
	return number
}

// at returns the revision that was reached.
func (m *deliveryMark) at() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.revision
}

// hexadecimal is how etcd writes the id of a member.
func hexadecimal(id uint64) string { return strconv.FormatUint(id, 16) }
