-- Runs the Lua of kong.yml under a plain Lua 5.1, Kong's own version, against a fake of the PDK calls that it makes:
--   lua5.1 fake-pdk.lua FOLDER     FOLDER: <plugin>.<phase>.lua, as kong.yml has them
-- Prints `ok <case>`, or `not ok <case>: <why>`. A PDK call that is not here is an error, as in `attempt to call …`.
local folder = arg[1]
local EXIT = {}

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for k, v in pairs(a) do if not same(v, b[k]) then return false end end
  for k in pairs(b) do if a[k] == nil then return false end end
  return true
end

local function show(v)
  if type(v) ~= "table" then return tostring(v) end
  local parts = {}
  for k, x in pairs(v) do parts[#parts + 1] = tostring(k) .. "=" .. show(x) end
  table.sort(parts)
  return "{" .. table.concat(parts, ", ") .. "}"
end

local function expect(what, got, want)
  if not same(got, want) then error(what .. " is " .. show(got) .. ", not " .. show(want), 0) end
end

-- One request. What the Lua does to it is left in the fields of what this returns.
local function request(given)
  local r = {
    headers = given.headers or {}, answer = given.answer or {}, log = {}, targets = {},
    shared = { mesh_decision = given.decision }, ngx = { var = { upstream_host = "frozen" } },
  }
  local plugin = {}
  r.kong = {
    ctx = { shared = r.shared, plugin = plugin },
    client = { get_forwarded_ip = function() return "10.0.0.9" end },
    log = { set_serialize_value = function(key, value) r.log[key] = value == nil and "removed" or value end },
    request = {
      get_headers = function(max)
        local copy = {}
        for name, value in pairs(r.headers) do copy[name] = value end
        return copy, given.truncated and max == 100 and "truncated" or nil
      end,
      get_method = function() return "POST" end,
      get_path = function() return given.path or "/api/v1/mcp/x" end,
      get_raw_query = function() return "a=1" end,
      get_raw_body = function(max)
        expect("limit of the body", max, 65536)
        if given.too_long then return nil, "request body file too big" end
        return given.body or ""
      end,
    },
    response = {
      exit = function(status, body, headers)
        r.exit = { status = status, body = body, headers = headers }
        error(EXIT, 0)
      end,
      get_header = function(name) return r.answer[name] end,
      get_headers = function() return r.answer end,
      get_source = function() return given.source or "service" end,
      get_status = function() return given.status or 200 end,
      clear_header = function(name) r.answer[name] = nil end,
      set_header = function(name, value) r.answer[name] = value end,
      set_raw_body = function(body) r.body = body end,
    },
    service = {
      set_target = function(host, port)
        r.targets[#r.targets + 1] = host .. ":" .. port
        r.ngx.var.upstream_host = host
      end,
      set_retries = function(count) r.retries = count end,
      set_timeouts = function(connect, write, read) r.timeouts = { connect, write, read } end,
      set_target_retry_callback = function(callback) r.retry = callback end,
      request = {
        clear_header = function(name) r.headers[name] = nil end,
        set_headers = function(headers) for name, value in pairs(headers) do r.headers[name] = value end end,
        set_path = function(path) r.path = path end,
      },
    },
  }
  return r
end

-- Runs one phase, as Kong's sandbox does: with an environment of its own.
local function run(r, phase)
  local chunk = assert(loadfile(folder .. "/" .. phase .. ".lua"))
  local library = { error = error, ipairs = ipairs, pairs = pairs, type = type, string = string, table = table }
  setfenv(chunk, setmetatable({ kong = r.kong, ngx = r.ngx }, { __index = library }))
  local fine, why = pcall(chunk)
  if not fine and why ~= EXIT then error(phase .. ": " .. tostring(why), 0) end
  return r
end

local failure = { type = "application/problem+json", lost = "lost", late = "late" }
local function route(targets, more)
  local decision = { targets = targets, path = "/mcp", headers = { ["x-mesh-identity"] = "signed" },
    timeouts = { 1, 2, 3 }, record = { call_id = "c" }, failure = failure }
  for key, value in pairs(more or {}) do decision[key] = value end
  return decision
end

local cases = {
  { "deny: the answer leaves as it was decided", function()
    local r = run(request({ decision = { status = 403, body = "no", headers = { a = "b" } } }), "post-function.access")
    expect("exit", r.exit, { status = 403, body = "no", headers = { a = "b" } })
    expect("targets", r.targets, {})
  end },
  { "route: target, path, identity, time-outs, record", function()
    local r = run(request({ decision = route({ { "10.0.0.1", 11100 } }) }), "post-function.access")
    expect("targets", r.targets, { "10.0.0.1:11100" })
    expect("host", r.ngx.var.upstream_host, "")
    expect("path, retries", { r.path, r.retries, r.retry }, { "/mcp", 0 })
    expect("time-outs", r.timeouts, { 1, 2, 3 })
    expect("headers", r.headers, { ["x-mesh-identity"] = "signed" })
    expect("record", r.log["mesh.record"], { call_id = "c" })
    expect("identity in the log", r.log["request.headers.x-mesh-identity"], "removed")
  end },
  { "retry: one target after the other, then none", function()
    local three = { { "a", 1 }, { "b", 2 }, { "c", 3 } }
    local r = run(request({ decision = route(three) }), "post-function.access")
    expect("retries", r.retries, 2)
    expect("second", { r.retry() }, { true })
    expect("host of the second", r.ngx.var.upstream_host, "")
    expect("third", { r.retry() }, { true })
    expect("targets", r.targets, { "a:1", "b:2", "c:3" })
    local more, why = r.retry()
    expect("no fourth", { more == nil, why }, { true, "no more targets" })
  end },
  { "missing decision: nothing passes", function()
    local nothing = { false, "text", {}, { targets = {} }, { targets = "x" }, { path = "/mcp" } }
    for _, decision in ipairs(nothing) do
      local r = run(request({ decision = decision or nil }), "post-function.access")
      expect("status", r.exit and r.exit.status, 503)
      expect("targets", r.targets, {})
    end
  end },
  { "header stripping: what is the mesh's own is forged, from a client", function()
    local forged = { ["x-mesh-identity"] = "f", ["x-consumer-id"] = "f", ["x-anonymous-consumer"] = "f", accept = "a" }
    local r = run(request({ headers = forged }), "pre-function.access")
    expect("headers", r.headers, { accept = "a" })
    expect("the plugin's", r.shared.mesh_request.headers, { accept = "a" })
    expect("keys in the log", { r.log["request.headers.x-api-key"], r.log["request.headers.cookie"] }, { "removed", "removed" })
  end },
  { "header stripping: credentials end here", function()
    local secrets = { authorization = "s", ["proxy-authorization"] = "s", ["x-api-key"] = "s", cookie = "s",
      ["x-consumer-username"] = "s", ["x-credential-identifier"] = "s", ["x-mesh-old"] = "s", accept = "a" }
    local r = run(request({ headers = secrets, decision = route({ { "a", 1 } }) }), "post-function.access")
    expect("headers", r.headers, { accept = "a", ["x-mesh-identity"] = "signed" })
  end },
  { "the plugin gets the request, and a body of the mesh's own API only", function()
    local r = run(request({ path = "/api/v1/mcp/x", body = "secret" }), "pre-function.access").shared.mesh_request
    expect("request", { r.method, r.path, r.query, r.client_ip, r.body, r.body_over_limit },
      { "POST", "/api/v1/mcp/x", "a=1", "10.0.0.9", nil, false })
    expect("no body's fault", r.body_over_limit, false)
    local own = run(request({ path = "/api/v1/mesh/v2/register", body = "b" }), "pre-function.access").shared.mesh_request
    expect("body", own.body, "b")
    local long = run(request({ path = "/api/v1/mesh/v2/register", too_long = true }), "pre-function.access")
    expect("too long", long.shared.mesh_request.body_over_limit, true)
  end },
  { "too many headers: 431", function()
    local r = run(request({ truncated = true }), "pre-function.access")
    expect("status", r.exit.status, 431)
    expect("the plugin's", r.shared.mesh_request, nil)
  end },
  { "the load goes into the log, and with the mesh's headers off the answer", function()
    local answer = { ["endpoint-load-metrics"] = "load", ["x-mesh-internal"] = "i", ["x-kept"] = "k" }
    local r = run(request({ answer = answer, decision = route({ { "a", 1 } }, { answer_headers = { ratelimit = "r" } }) }),
      "post-function.header_filter")
    expect("answer", r.answer, { ["x-kept"] = "k", ratelimit = "r" })
    expect("load", r.log["mesh.load"], "load")
  end },
  { "a lost worker, and a silent one: the prepared bodies", function()
    for status, want in pairs({ [502] = "lost", [504] = "late" }) do
      local r = request({ source = "error", status = status, decision = route({ { "a", 1 } }), answer = { ["content-length"] = "9" } })
      run(r, "post-function.header_filter")
      run(r, "post-function.body_filter")
      expect("body", r.body, want)
      expect("headers", r.answer, { ["content-type"] = "application/problem+json" })
    end
  end },
  { "a worker's own error, and Kong's 500: as they are", function()
    for _, given in ipairs({ { source = "service", status = 503 }, { source = "error", status = 500 } }) do
      given.decision = route({ { "a", 1 } })
      local r = request(given)
      run(r, "post-function.header_filter")
      run(r, "post-function.body_filter")
      expect("body", r.body, nil)
    end
  end },
}

for _, case in ipairs(cases) do
  local fine, why = pcall(case[2])
  print((fine and "ok " or "not ok ") .. case[1] .. (fine and "" or ": " .. tostring(why)))
end
