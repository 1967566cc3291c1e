-- Says who we are, in requests that leave and in answers to peers that said it of themselves, and takes
-- away what others say.
local core = require("apisix.core")
local set_request, set_response = core.request.set_header, core.response.set_header
local ngx, find, sub = ngx, string.find, string.sub

return function(_, ctx)
  local route = ctx.matched_route
  route = route and route.value
  local name = route and route.name
  if not name then
    return
  end
  local role
  if chains then
    role = chains[sub(name, 1, (find(name, "|", 1, true) or 0) - 1)]
  end
  if role == nil then
    role = sub(name, 1, 2) == "i:" and inbound or others
  end
  local labels = route.labels
  local quiet = labels and labels["@LABEL@"]

  if role.take then
    local answer = not quiet and role.answer
    local var = ngx.var
    local id, metadata = var.http_x_envoy_peer_metadata_id, var.http_x_envoy_peer_metadata
    if id then
      ctx.meshbridge_peer_id = id
      set_request(ctx, "x-envoy-peer-metadata-id", nil)
      if answer then
        set_response("x-envoy-peer-metadata-id", node)
      end
    end
    if metadata then
      ctx.meshbridge_peer = metadata
      set_request(ctx, "x-envoy-peer-metadata", nil)
      if answer then
        set_response("x-envoy-peer-metadata", answer)
      end
    end
  end

  if role.tell and not quiet then
    set_request(ctx, "x-envoy-peer-metadata-id", node)
    set_request(ctx, "x-envoy-peer-metadata", role.tell)
  end

  ctx.meshbridge_hides = role.hide
  ctx.var.meshbridge_peer_answers = role.hide or ""
end
