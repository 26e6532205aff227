-- The handoff between Kong and the JavaScript plugin, embedded in kong.yml by kong/embed.ts.
-- The plugin costs a socket round trip per PDK call, cannot retry, and Kong lets the request pass when it fails:
-- so it only decides, Lua carries the request to it and the decision out, and without a decision nothing passes.

-- [pre-function access]
local headers, err = kong.request.get_headers(100)
if err == "truncated" then
  return kong.response.exit(431, {
    type = "urn:mcp-mesh:error:too_many_headers", title = "Too many headers", status = 431,
    code = "too_many_headers", detail = "At most 100 request headers are accepted.",
  }, { ["content-type"] = "application/problem+json" })
end
for name in pairs(headers) do -- the mesh's own headers and those of Kong's plugins: from a client they are forged
  if name:find("^x%-mesh%-") or name:find("^x%-consumer%-") or name == "x-anonymous-consumer" then
    kong.service.request.clear_header(name)
    headers[name] = nil
  end
end
for _, name in ipairs({ "x-api-key", "cookie" }) do -- Kong redacts only authorization
  kong.log.set_serialize_value("request.headers." .. name, nil)
end
local path, body = kong.request.get_path(), nil
if path:sub(1, 13) == "/api/v1/mesh/" then -- nil when over the limit, "" when there is none
  body, err = kong.request.get_raw_body(65536)
end
kong.ctx.shared.mesh_request = {
  method = kong.request.get_method(), path = path, query = kong.request.get_raw_query(),
  client_ip = kong.client.get_forwarded_ip(), headers = headers, body = body, body_over_limit = err ~= nil,
}

-- [post-function access]
local d = kong.ctx.shared.mesh_decision
local targets = type(d) == "table" and d.targets
if type(d) ~= "table" or not (d.status or targets and targets[1]) then
  return kong.response.exit(503, {
    type = "urn:mcp-mesh:error:no_decision", title = "No decision", status = 503,
    code = "no_decision", detail = "The gateway's plugin did not answer. Try again.",
  }, { ["content-type"] = "application/problem+json", ["retry-after"] = "1" })
end
kong.log.set_serialize_value("mesh.record", d.record)
if d.status then return kong.response.exit(d.status, d.body, d.headers) end
local private = { authorization = true, ["proxy-authorization"] = true, ["x-api-key"] = true, cookie = true }
for name in pairs(kong.request.get_headers(1000)) do -- the caller's credentials end here
  if private[name] or name:find("^x%-consumer%-") or name:find("^x%-credential%-") or name:find("^x%-mesh%-") then
    kong.service.request.clear_header(name)
  end
end
local try = 0
local function next_target()
  try = try + 1
  if not targets[try] then return nil, "no more targets" end
  kong.service.set_target(targets[try][1], targets[try][2])
  ngx.var.upstream_host = d.host or "" -- else the Host of the first target stays for all
  return true
end
next_target()
kong.service.request.set_path(d.path)
kong.service.request.set_headers(d.headers or {})
kong.log.set_serialize_value("request.headers.x-mesh-identity", nil)
if d.timeouts then kong.service.set_timeouts(d.timeouts[1], d.timeouts[2], d.timeouts[3]) end
kong.service.set_retries(#targets - 1)
if targets[2] then kong.service.set_target_retry_callback(next_target) end

-- [post-function header_filter]
kong.log.set_serialize_value("mesh.load", kong.response.get_header("endpoint-load-metrics"))
for name in pairs(kong.response.get_headers(1000)) do
  if name == "endpoint-load-metrics" or name:sub(1, 7) == "x-mesh-" then kong.response.clear_header(name) end
end
local d = kong.ctx.shared.mesh_decision
for name, value in pairs(type(d) == "table" and d.answer_headers or {}) do kong.response.set_header(name, value) end
if type(d) == "table" and d.targets and d.failure -- Kong's own answer to a call that was under way
  and kong.response.get_source() ~= "service" and kong.response.get_status() >= 502 then
  kong.ctx.plugin.failure = kong.response.get_status() == 504 and d.failure.late or d.failure.lost
  kong.response.set_header("content-type", d.failure.type)
  kong.response.clear_header("content-length")
end

-- [post-function body_filter]
if kong.ctx.plugin.failure then kong.response.set_raw_body(kong.ctx.plugin.failure) end
