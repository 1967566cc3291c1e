#!/usr/bin/env bash
# Runs the bridge on a real istiod (demo.sh istiod BIN) or on captured xDS (demo.sh file BIN) and
# shows changes as they happen. Configuration is copied to a temporary folder for you to edit.
set -euo pipefail

source=$1 bin=$2
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d "${TMPDIR:-/tmp}/meshbridge-demo.XXXXXX")
pids=()
cleanup() {
  trap - EXIT INT TERM
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

etcd=${ETCD_ADDRESS:-127.0.0.1:2379}
status=${STATUS_ADDRESS:-127.0.0.1:15021}
istiod=${ISTIOD_ADDRESS:-127.0.0.1:15010}
debug=${ISTIOD_DEBUG_ADDRESS:-127.0.0.1:15014}
node='sidecar~10.1.0.99~demo-client.default~default.svc.cluster.local'

case $source in
istiod)
  echo "Building istiod (the first time this compiles Istio: several minutes on two cores)…"
  (cd "$root/testdata/conformance" && go build -o "$bin/istiod" ./cmd/istiod)
  cp "$root"/testdata/conformance/demo/*.yaml "$dir/"
  "$bin/istiod" --dir "$dir" --grpc "$istiod" --http "$debug" >"$dir/istiod.log" 2>&1 &
  pids+=($!)
  xds=grpc://$istiod
  edit="Istio YAML: $dir/*.yaml (try the canary weights, or scale a Service's EndpointSlice)"
  ;;
file)
  cp -r "$root/testdata/istiod/bookinfo-client/xds/." "$dir/"
  xds=file:$dir
  edit="captured xDS: $dir/*.json (try an endpoint's address in eds.json)"
  ;;
*)
  echo "SOURCE=$source: want istiod or file" >&2
  exit 2
  ;;
esac

# The node is no pod of the mesh's: a client of all its services.
"$bin/meshbridge" run --xds "$xds" --listen "$etcd" --status "$status" --node-id "$node" --log-level debug,grpc:warn &
pids+=($!)
# ready asks /healthz/ready with bash alone: not every machine has curl.
ready() {
  local host=${1%:*} port=${1##*:} line
  exec 3<>"/dev/tcp/$host/$port" || return 1
  printf 'GET /healthz/ready HTTP/1.0\r\n\r\n' >&3
  read -r line <&3
  exec 3>&-
  [[ $line == *" 200 "* ]]
}
until ready "$status" 2>/dev/null; do
  kill -0 "${pids[-1]}" 2>/dev/null || { echo "the bridge ended" >&2; exit 1; }
  sleep 0.1
done

cat <<EOF

The bridge serves a real mesh's configuration as APISIX objects on $etcd.

In another terminal, try:
  curl -s http://$etcd/v3/kv/range -d '{"key":"L2FwaXNpeC8=","range_end":"L2FwaXNpeDA=","keys_only":true}'
  curl -sN http://$etcd/v3/watch -d '{"create_request":{"key":"L2FwaXNpeC8=","range_end":"L2FwaXNpeDA="}}'
  etcdctl --endpoints=$etcd get --prefix /apisix/routes
  etcdctl --endpoints=$etcd watch --prefix /apisix
  $bin/meshbridge explain http://reviews:9080/ -H 'end-user: jason'
  a browser on http://127.0.0.1:15000/: each resource beside what it became, warnings, changes
  $bin/meshbridge translate -f $root/testdata/istiod/bookinfo-client/xds -o table

Edit the $edit
and watch the commits below. Ctrl-C ends the demo.

EOF
wait "${pids[-1]}"
