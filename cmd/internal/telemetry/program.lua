-- Counts requests by what APISIX knows of them, keeps entries of those that access logs want, and reports to the
-- bridge. One state for each process of APISIX; it outlives changes of this program, whose number goes up when the
-- state is another.
local state = package.loaded["meshbridge.requests.2"]
if not state then
  state = {
    -- numbers has the place of each series in the list, by what its requests have in common.
    numbers = {}, list = {}, size = 0, sequence = 0, folded = 0, failures = 0,
    entries = {}, gathered = 0, bytes = 0, lost = 0,
    worker = ngx.worker.pid() .. "." .. string.format("%.0f", ngx.now() * 1000),
  }
  package.loaded["meshbridge.requests.2"] = state
end

local ngx, start_time = ngx, ngx.req.start_time
local now, timer_at, exiting = ngx.now, ngx.timer.at, ngx.worker.exiting
local tonumber, floor, encode = tonumber, math.floor, require("cjson.safe").encode
local byte, find, sub = string.byte, string.find, string.sub

local bounds = {@BOUNDS@}
local last = #bounds + 1

-- What access logs want to know, by the chain of a request: variables, false where there is none.
local wanted = {@WANTED@}
local logged = {@LOGGED@}
local logs = next(logged) ~= nil

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

-- Tells whether the last attempt in a list of nginx's has no time: a dash. Where one more was wanted, but all
-- endpoints had been tried, the list ends in a colon.
local function lacks(times)
  local n = #times
  if byte(times, n) == 32 then
    n = n - 3
  end
  return byte(times, n) == 45
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

-- An entry is an array of texts. The bridge makes something of them, which it can do while APISIX serves others.
local function entry(number, wants, started, took)
  local var, vars, row = ngx.var, wants.vars, wants.row
  row[1], row[2], row[3] = number .. "", started .. "", took .. ""
  for i = 1, #vars do
    local name = vars[i]
    local value = name and var[name] or ""
    row[i + 3] = #value > @TEXT@ and sub(value, 1, @TEXT@) or value
  end
  return encode(row)
end

local function keep(text)
  if not text or state.gathered >= @ENTRIES@ or state.bytes + #text > @BYTES@ then
    state.lost = state.lost + 1
    return
  end
  local n = state.gathered + 1
  state.entries[n], state.gathered, state.bytes = text, n, state.bytes + #text
end

local function many()
  return state.gathered >= @MANY@ or state.bytes >= @MANYBYTES@
end

-- The first line of a report has what is counted, and each other line is an entry.
local function compose()
  state.sequence = state.sequence + 1
  local body = encode({
    worker = state.worker, sequence = state.sequence, folded = state.folded, lost_entries = state.lost, series = state.list,
  })
  if state.gathered > 0 then
    body = body .. "\n" .. table.concat(state.entries, "\n")
  end
  state.body = body
  state.numbers, state.list, state.size, state.folded = {}, {}, 0, 0
  state.entries, state.gathered, state.bytes, state.lost = {}, 0, 0, 0
end

-- One report is under way at a time, and is repeated as it is until the bridge has it.
local function report()
  if state.busy then
    return
  end
  state.busy = true
  local attempts, done = 0, true
  repeat
    if not state.body and state.size > 0 then
      compose()
    end
    if not state.body then
      break
    end
    attempts = attempts + 1
    done = send(state.body)
    if done then
      state.body, state.failures = nil, 0
    end
    -- A process that ends has no later.
  until not exiting() and not (done and many()) or attempts >= 3 and not done
  state.busy = false
  if (state.body or state.size > 0) and not state.armed and not exiting() then
    state.armed = timer_at(@INTERVAL@, state.on_time)
  end
end

-- Timers outlive this program, too, and run what is newest.
state.report = report
if not state.on_time then
  state.on_time = function()
    state.armed = false
    return state.report()
  end
  state.on_many = function()
    state.called = false
    return state.report()
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
      if lacks(connected) then
        failure = "connect"
      elseif lacks(answered) then
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

  -- Who the other end says that it is. The global rule that takes that away keeps it, but for that of answers,
  -- which nginx has.
  local inbound, peer, metadata, host = @INBOUND@, "", nil, ""
  if ctx.meshbridge_peer_id then
    peer, metadata = ctx.meshbridge_peer_id, ctx.meshbridge_peer
  elseif inbound then
    peer, metadata = var.http_x_envoy_peer_metadata_id or "", var.http_x_envoy_peer_metadata
  elseif ctx.meshbridge_hides then
    peer = var.upstream_http_x_envoy_peer_metadata_id or ""
    metadata = peer ~= "" and var.upstream_http_x_envoy_peer_metadata
  end
  peer = sub(peer, 1, 256)
  if not inbound and @HOSTS@ and (upstream == "" or sub(upstream, 1, 20) == "u.PassthroughCluster") then
    host = sub(var.http_host or "", 1, 256)
  end

  local wants
  if logs then -- the chain is the first part of a route's name
    local chain = @KEY@
    if route then
      local name = route.name or ""
      chain = sub(name, 1, (find(name, "|", 1, true) or 0) - 1)
    end
    wants = logged[chain or ""]
  end
  local layout = wants and wants.id or ""

  local key = id .. "\n" .. upstream .. "\n" .. node .. "\n" .. status .. "\n" .. failure .. "\n" .. grpc
    .. "\n" .. principal .. "\n" .. layout .. "\n" .. peer .. "\n" .. host
  local number = state.numbers[key]
  if not number and state.size >= @SERIES@ and (peer ~= "" or host ~= "") then
    -- Others make up names: what is beyond the limit is counted without them.
    peer, host, state.folded = "", "", state.folded + 1
    key = id .. "\n" .. upstream .. "\n" .. node .. "\n" .. status .. "\n" .. failure .. "\n" .. grpc
      .. "\n" .. principal .. "\n" .. layout .. "\n\n"
    number = state.numbers[key]
  end
  local series = number and state.list[number]
  if not series then
    series = {
      route = id, upstream = upstream, node = node, status = status, failure = failure, grpc = grpc,
      principal = principal, peer = peer, host = host, count = 0,
      duration = distribution(), received = distribution(), sent = distribution(),
      headers = wants and wants.headers,
    }
    if peer ~= "" then
      series.metadata = sub(metadata or "", 1, 8192)
    end
    number = state.size + 1
    state.numbers[key], state.list[number], state.size = number, series, number
  end
  series.count = series.count + 1
  local started = start_time()
  local took = floor((now() - started) * 1000 + 0.5)
  observe(series.duration, took)
  observe(series.received, tonumber(var.request_length) or 0)
  observe(series.sent, tonumber(var.bytes_sent) or 0)

  if wants then
    keep(entry(number, wants, started, took))
    if not state.called and not state.busy and many() then
      state.called = timer_at(0, state.on_many)
    end
  end
  if not state.armed and not state.busy then
    state.armed = timer_at(exiting() and 0 or @INTERVAL@, state.on_time)
  end
end
