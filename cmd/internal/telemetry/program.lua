-- Counts requests by what APISIX knows of them, and reports to the bridge. One state for each process of APISIX;
-- it outlives changes of this program, whose number goes up when the state is another.
local state = package.loaded["meshbridge.requests.1"]
if not state then
  state = {
    series = {}, size = 0, sequence = 0, folded = 0, failures = 0,
    worker = ngx.worker.pid() .. "." .. string.format("%.0f", ngx.now() * 1000),
  }
  package.loaded["meshbridge.requests.1"] = state
end

local ngx, start_time = ngx, ngx.req.start_time
local now, timer_at, exiting = ngx.now, ngx.timer.at, ngx.worker.exiting
local pairs, tonumber, floor = pairs, tonumber, math.floor
local byte, find, sub = string.byte, string.find, string.sub

local bounds = {@BOUNDS@}
local last = #bounds + 1

-- A distribution: the sum, and how many are in each bucket.
local function distribution()
  local d = {0}
  for i = 1, last do d[i + 1] = 0 end
  return d
end

local function observe(d, value)
  d[1] = d[1] + value
  local i = 1
  while i < last and value > bounds[i] do i = i + 1 end
  d[i + 1] = d[i + 1] + 1
end

local function send(body)
  local client = require("resty.http").new()
  client:set_timeout(3000)
  local answer, failure = client:request_uri("@URL@", {
    method = "POST", body = body, headers = {["Content-Type"] = "application/json"},
  })
  if answer and answer.status < 300 then
    return true
  end
  failure = failure or answer.status
  -- What the bridge refuses, it would refuse again.
  local refused = answer and answer.status >= 400 and answer.status < 500
  if refused or state.failures % 60 == 0 then
    ngx.log(ngx.ERR, "the bridge does not take counts of requests: ", failure)
  end
  state.failures = state.failures + 1
  return refused
end

-- One report is under way at a time, and is repeated as it is until the bridge has it.
local function report()
  state.armed = false
  if state.busy then
    return
  end
  state.busy = true
  local attempts = 0
  repeat
    if not state.body and state.size > 0 then
      local series, n = {}, 0
      for _, s in pairs(state.series) do
        n = n + 1
        series[n] = s
      end
      state.sequence = state.sequence + 1
      state.body = require("cjson.safe").encode({
        worker = state.worker, sequence = state.sequence, folded = state.folded, series = series,
      })
      state.series, state.size, state.folded = {}, 0, 0
    end
    if not state.body then
      break
    end
    attempts = attempts + 1
    local done = send(state.body)
    if done then
      state.body, state.failures = nil, 0
    end
    -- A process that ends has no later.
  until not exiting() or attempts >= 3 and not done
  state.busy = false
  if (state.body or state.size > 0) and not exiting() then
    state.armed = timer_at(@INTERVAL@, report)
  end
end

return function(_, ctx)
  local var = ngx.var -- for these names, that of APISIX takes longer
  local route = ctx.matched_route
  route = route and route.value
  local id = route and route.id or @CHAIN@ or ""
  local upstream = ctx.upstream_id or route and route.upstream_id or ""
  local address, status = ctx.balancer_ip, ngx.status
  local node = address and address .. ":" .. ctx.balancer_port or ""
  local principal = @PRINCIPAL@ or ""

  -- How it failed: no endpoint to choose, no connection, no answer; and whether that was tried again.
  local failure = ""
  if status >= 499 then
    if address then
      local connected, answered = var.upstream_connect_time or "-", var.upstream_header_time or "-"
      if byte(connected, -1) == 45 then
        failure = "connect"
      elseif byte(answered, -1) == 45 then
        failure = "answer"
      end
      if failure ~= "" and find(connected, ",", 1, true) then
        failure = failure .. "+"
      end
    elseif ctx.matched_upstream then
      failure = "choose"
    end
  end

  local grpc = ""
  local kind = var.http_content_type
  if kind and sub(kind, 1, 16) == "application/grpc" then
    grpc = var.sent_trailer_grpc_status or var.sent_http_grpc_status or "-"
  end

  local peer, host = "", ""
  if @INBOUND@ then
    peer = sub(var.http_x_envoy_peer_metadata_id or "", 1, 256)
  elseif @HOSTS@ and (upstream == "" or sub(upstream, 1, 20) == "u.PassthroughCluster") then
    host = sub(var.http_host or "", 1, 256)
  end

  local key = id .. "\n" .. upstream .. "\n" .. node .. "\n" .. status .. "\n" .. failure .. "\n" .. grpc
    .. "\n" .. principal .. "\n" .. peer .. "\n" .. host
  local series = state.series[key]
  if not series and state.size >= @SERIES@ and (peer ~= "" or host ~= "") then
    -- Clients make up names: what is beyond the limit is counted without them.
    peer, host, state.folded = "", "", state.folded + 1
    key = id .. "\n" .. upstream .. "\n" .. node .. "\n" .. status .. "\n" .. failure .. "\n" .. grpc
      .. "\n" .. principal .. "\n\n"
    series = state.series[key]
  end
  if not series then
    series = {
      route = id, upstream = upstream, node = node, status = status, failure = failure, grpc = grpc,
      principal = principal, peer = peer, host = host, count = 0,
      duration = distribution(), received = distribution(), sent = distribution(),
    }
    if peer ~= "" then
      series.metadata = sub(var.http_x_envoy_peer_metadata or "", 1, 8192)
    end
    state.series[key] = series
    state.size = state.size + 1
  end
  series.count = series.count + 1
  observe(series.duration, floor((now() - start_time()) * 1000 + 0.5))
  observe(series.received, tonumber(var.request_length) or 0)
  observe(series.sent, tonumber(var.bytes_sent) or 0)

  if not state.armed and not state.busy then
    state.armed = timer_at(exiting() and 0 or @INTERVAL@, report)
  end
end
